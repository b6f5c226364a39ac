//! Options of a request: its parameters, by the names of `ExplainRequest`'s fields.

use std::time::Duration;

use super::request::short;
use crate::error::Error;
use crate::proto::inference::infer_parameter::ParameterChoice as Value;
use crate::proto::{
    CacheMode, ExplainRequest, OnDeadline, Priority, Replay, Retrieval, SourceKind,
};

/// Sets the option of this name.
///
/// # Errors
/// [`Error::Invalid`]: there is no such option, or it has no such value.
pub(super) fn set(
    item: &mut ExplainRequest,
    name: &str,
    value: Option<Value>,
) -> Result<(), Error> {
    match name {
        "language" => item.language = text("language", value)?,
        "strategy" => item.strategy = text("strategy", value)?,
        "max_new_tokens" => item.max_new_tokens = whole("max_new_tokens", value)?,
        "min_new_tokens" => item.min_new_tokens = whole("min_new_tokens", value)?,
        "temperature" => item.temperature = number("temperature", value)?,
        "top_p" => item.top_p = number("top_p", value)?,
        "top_k" => item.top_k = whole("top_k", value)?,
        "repetition_penalty" => item.repetition_penalty = number("repetition_penalty", value)?,
        "seed" => item.seed = Some(whole("seed", value)?),
        "stop" => item.stop = stops(text("stop", value)?),
        "ignore_eos" => item.ignore_eos = flag("ignore_eos", value)?,
        "include_full_text" => item.include_full_text = flag("include_full_text", value)?,
        "include_prompt" => item.include_prompt = flag("include_prompt", value)?,
        "priority" => {
            let names = |name: &str| Priority::from_str_name(name).map(i32::from);
            item.priority = choice("priority", "PRIORITY_", names, value)?;
        }
        "timeout" => item.timeout = Some(time(value)?),
        "on_deadline" => {
            let names = |name: &str| OnDeadline::from_str_name(name).map(i32::from);
            item.on_deadline = choice("on_deadline", "ON_DEADLINE_", names, value)?;
        }
        "replaces" => item.replaces = text("replaces", value)?,
        "cache_mode" => {
            let names = |name: &str| CacheMode::from_str_name(name).map(i32::from);
            item.cache_mode = choice("cache_mode", "CACHE_MODE_", names, value)?;
        }
        "replay" => {
            let names = |name: &str| Replay::from_str_name(name).map(i32::from);
            item.replay = choice("replay", "REPLAY_", names, value)?;
        }
        "retrieval" => item.retrieval = Some(retrieval(&text("retrieval", value)?)?),
        _ => {
            let problem = format!(
                "has '{}', expected the name of an option such as max_new_tokens",
                short(name)
            );
            return Err(Error::invalid("parameters", problem));
        }
    }
    Ok(())
}

/// A value of an enum: its number, or its name with or without what all its names begin with, in capitals or not.
fn choice(
    field: &'static str,
    prefix: &str,
    by_name: impl Fn(&str) -> Option<i32>,
    value: Option<Value>,
) -> Result<i32, Error> {
    let Some(Value::StringParam(name)) = value else {
        return whole(field, value);
    };
    let upper = name.to_ascii_uppercase();
    (by_name(&upper).or_else(|| by_name(&format!("{prefix}{upper}"))))
        .ok_or_else(|| Error::invalid(field, format!("is '{}', which is no {field}", short(&name))))
}

/// Microseconds, as the protocol's clients give a timeout, or a text such as 1500ms.
fn time(value: Option<Value>) -> Result<prost_types::Duration, Error> {
    let expected = "expected microseconds, or a time such as 1500ms";
    let time = match value {
        Some(Value::StringParam(text)) => {
            humantime::parse_duration(&text).map_err(|_| Error::invalid("timeout", expected))?
        }
        Some(Value::Int64Param(_) | Value::Uint64Param(_)) => {
            Duration::from_micros(whole("timeout", value)?)
        }
        _ => return Err(Error::invalid("timeout", expected)),
    };
    prost_types::Duration::try_from(time).map_err(|_| Error::invalid("timeout", "is too long"))
}

/// The message `Retrieval` in JSON.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RetrievalText {
    top_k: Option<u32>,
    threshold: Option<f32>,
    diversity: Option<f32>,
    max_tokens: Option<u32>,
    #[serde(default)]
    sources: Vec<String>,
}

fn retrieval(json: &str) -> Result<Retrieval, Error> {
    let expected = "expected JSON such as {\"top_k\": 3, \"sources\": [\"documentation\"]}";
    let text: RetrievalText =
        serde_json::from_str(json).map_err(|_| Error::invalid("retrieval", expected))?;
    let kind = |name: &String| {
        SourceKind::from_str_name(&format!("SOURCE_KIND_{}", name.to_ascii_uppercase()))
            .map(i32::from)
            .ok_or_else(|| Error::invalid("retrieval", expected))
    };
    Ok(Retrieval {
        top_k: text.top_k,
        threshold: text.threshold,
        diversity: text.diversity,
        max_tokens: text.max_tokens,
        sources: text.sources.iter().map(kind).collect::<Result<_, _>>()?,
    })
}

/// One string, or a JSON list of them.
fn stops(text: String) -> Vec<String> {
    serde_json::from_str(&text).unwrap_or_else(|_| vec![text])
}

fn text(name: &'static str, value: Option<Value>) -> Result<String, Error> {
    match value {
        Some(Value::StringParam(text)) => Ok(text),
        _ => Err(Error::invalid(name, "expected a string")),
    }
}

/// Also used for what is not an option of `ExplainRequest`.
pub(super) fn flag(name: &'static str, value: Option<Value>) -> Result<bool, Error> {
    match value {
        Some(Value::BoolParam(flag)) => Ok(flag),
        _ => Err(Error::invalid(name, "expected a boolean")),
    }
}

fn whole<T: TryFrom<i128>>(name: &'static str, value: Option<Value>) -> Result<T, Error> {
    let number = match value {
        Some(Value::Int64Param(number)) => i128::from(number),
        Some(Value::Uint64Param(number)) => i128::from(number),
        _ => return Err(Error::invalid(name, "expected a whole number")),
    };
    T::try_from(number)
        .map_err(|_| Error::invalid(name, format!("is {number}, which is out of range")))
}

fn number(name: &'static str, value: Option<Value>) -> Result<f32, Error> {
    match value {
        Some(Value::DoubleParam(number)) => Ok(number as f32),
        Some(Value::Int64Param(number)) => Ok(number as f32),
        Some(Value::Uint64Param(number)) => Ok(number as f32),
        // Clients without numbers that are not whole send them as text.
        Some(Value::StringParam(text)) => text
            .parse()
            .map_err(|_| Error::invalid(name, "expected a number")),
        _ => Err(Error::invalid(name, "expected a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: Value) -> Result<ExplainRequest, Error> {
        let mut item = ExplainRequest::default();
        set(&mut item, name, Some(value)).map(|()| item)
    }

    fn said(text: &str) -> Value {
        Value::StringParam(text.into())
    }

    #[test]
    fn enums_are_named_or_numbered() {
        for value in [said("bulk"), said("PRIORITY_BULK"), Value::Uint64Param(3)] {
            assert_eq!(with("priority", value).expect("good").priority, 3);
        }
        let item = with("on_deadline", said("keep")).expect("good");
        assert_eq!(item.on_deadline(), OnDeadline::Keep);
        let item = with("cache_mode", said("only")).expect("good");
        assert_eq!(item.cache_mode(), CacheMode::Only);
        let item = with("replay", said("Paced")).expect("good");
        assert_eq!(item.replay(), Replay::Paced);
        for (name, value) in [
            ("priority", said("soon")),
            ("replay", Value::BoolParam(true)),
        ] {
            let error = with(name, value).expect_err("bad");
            assert_eq!(error.field(), name);
        }
    }

    #[test]
    fn a_timeout_is_microseconds_or_a_text() {
        for value in [Value::Int64Param(1_500_000), said("1500ms")] {
            let timeout = with("timeout", value).expect("good").timeout.expect("set");
            assert_eq!((timeout.seconds, timeout.nanos), (1, 500_000_000));
        }
        for value in [Value::Int64Param(-1), said("soon"), Value::DoubleParam(1.0)] {
            assert_eq!(with("timeout", value).expect_err("bad").field(), "timeout");
        }
    }

    #[test]
    fn retrieval_is_json_and_unknown_names_are_refused() {
        let json = r#"{"top_k": 2, "sources": ["documentation", "EXPLANATION"]}"#;
        let wish = with("retrieval", said(json))
            .expect("good")
            .retrieval
            .expect("set");
        assert_eq!((wish.top_k, wish.sources), (Some(2), vec![1, 2]));
        for json in [
            "",
            "[]",
            "{\"top\": 1}",
            r#"{"sources": ["web"]}"#,
            r#"{"top_k": -1}"#,
        ] {
            assert_eq!(
                with("retrieval", said(json)).expect_err(json).field(),
                "retrieval"
            );
        }
        let error = with("telepathy", Value::BoolParam(true)).expect_err("bad");
        assert!(error.to_string().contains("telepathy"));
    }
}
