//! A request that is known to be good. Nothing past [`ValidRequest`] sees the wire's types.

use std::time::Duration;

use code_explainer_code::prompt::language::parse_language;
use code_explainer_code::prompt::{PromptError, Strategy};
use code_explainer_engine::Sampling;
use code_explainer_scheduler::Priority;

use crate::error::Error;
use crate::proto;
use crate::retrieval::RetrievalWish;

/// The longest id, in bytes.
pub const MAX_ID_BYTES: usize = 256;
/// Names that a message may list: of items on a stream, or of documents.
pub const MAX_NAMES: usize = 8192;
/// Items that a stream can be allowed to have in flight: its client can name them all in one message, and those besides
/// whose last event it has missed.
pub const MAX_STREAM_ITEMS: usize = MAX_NAMES / 2;
/// Stop strings that a request may name.
pub const MAX_STOPS: usize = 16;
/// The longest stop string, in bytes.
pub const MAX_STOP_BYTES: usize = 256;
/// The longest time that an item can be given.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Higher temperatures and penalties are noise; more likely a mistake of unit.
const MAX_FACTOR: f32 = 100.0;

/// What requests may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// The largest code, in bytes.
    pub code_bytes: usize,
    /// The largest `max_new_tokens`.
    pub max_new_tokens: usize,
    /// The `max_new_tokens` of a request that names none.
    pub default_max_new_tokens: usize,
}

/// One snippet to explain; every field has a value that can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidRequest {
    /// The client's name for it; may be empty.
    pub id: String,
    /// Not empty.
    pub code: String,
    /// What the client should know of it.
    pub notes: Vec<String>,
    /// As given; `None`: to be detected.
    pub language: Option<String>,
    /// How the prompt is made.
    pub strategy: Strategy,
    /// At least 1.
    pub max_new_tokens: usize,
    /// At most `max_new_tokens`.
    pub min_new_tokens: usize,
    /// What to take of what is known; only with the strategy that looks for it.
    pub retrieval: RetrievalWish,
    /// How tokens are picked.
    pub sampling: Sampling,
    /// The answer follows from the request alone, so that it may be cached: greedy, or the client gave the seed.
    pub reproducible: bool,
    /// Not empty ones.
    pub stops: Vec<String>,
    /// Go on past the end-of-sequence token.
    pub ignore_eos: bool,
    /// Repeat the answer at its end.
    pub include_full_text: bool,
    /// Tell the prompt.
    pub include_prompt: bool,
    /// How urgent it is, beside the others of its tenant.
    pub priority: Priority,
    /// The most time for it, from its receipt on.
    pub timeout: Option<Duration>,
    /// When its time is up it ends with what it has, instead of an error.
    pub keep_at_deadline: bool,
    /// What the caches are for.
    pub cache_mode: CacheMode,
    /// How fast a cached answer is told.
    pub replay: Replay,
}

/// What the caches are to an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// An answer that is there is replayed, one that is being made is shared, one that is made is kept.
    #[default]
    Default,
    /// The answer is made, and kept in place of the one that is there.
    Refresh,
    /// The answer is made, and not kept.
    Bypass,
    /// An answer that is there is replayed, and none is made.
    Only,
}

/// How fast a cached answer is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replay {
    /// As fast as the client reads.
    #[default]
    AtOnce,
    /// As when it was made.
    Paced,
}

impl ValidRequest {
    /// Checks every field of a request.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first field that is wrong.
    pub fn new(wire: proto::ExplainRequest, limits: &RequestLimits) -> Result<Self, Error> {
        check_id(&wire.id)?;
        check_code(&wire.code, limits.code_bytes)?;
        let (max_new_tokens, min_new_tokens) = token_limits(&wire, limits)?;
        let sampling = sampling(&wire)?;
        check_stops(&wire.stop)?;
        let strategy = strategy(&wire.strategy)?;
        Ok(Self {
            language: language(&wire.language)?,
            retrieval: retrieval(strategy, wire.retrieval.as_ref())?,
            strategy,
            max_new_tokens,
            min_new_tokens,
            reproducible: sampling.temperature == 0.0 || wire.seed.is_some(),
            sampling,
            stops: wire.stop,
            ignore_eos: wire.ignore_eos,
            include_full_text: wire.include_full_text,
            include_prompt: wire.include_prompt,
            priority: priority(wire.priority)?,
            timeout: wire.timeout.map(timeout).transpose()?,
            keep_at_deadline: keep_at_deadline(wire.on_deadline)?,
            cache_mode: cache_mode(wire.cache_mode)?,
            replay: replay(wire.replay)?,
            id: wire.id,
            code: wire.code,
            notes: Vec::new(),
        })
    }
}

fn priority(wire: i32) -> Result<Priority, Error> {
    match proto::Priority::try_from(wire) {
        Ok(proto::Priority::Interactive) => Ok(Priority::Interactive),
        Ok(proto::Priority::Unspecified | proto::Priority::Normal) => Ok(Priority::Normal),
        Ok(proto::Priority::Bulk) => Ok(Priority::Bulk),
        Err(_) => {
            let problem = format!("is {wire}, expected interactive (1), normal (2) or bulk (3)");
            Err(Error::invalid("priority", problem))
        }
    }
}

fn cache_mode(wire: i32) -> Result<CacheMode, Error> {
    match proto::CacheMode::try_from(wire) {
        Ok(proto::CacheMode::Unspecified) => Ok(CacheMode::Default),
        Ok(proto::CacheMode::Refresh) => Ok(CacheMode::Refresh),
        Ok(proto::CacheMode::Bypass) => Ok(CacheMode::Bypass),
        Ok(proto::CacheMode::Only) => Ok(CacheMode::Only),
        Err(_) => {
            let problem = format!("is {wire}, which is no cache mode");
            Err(Error::invalid("cache_mode", problem))
        }
    }
}

fn timeout(wire: prost_types::Duration) -> Result<Duration, Error> {
    time(&wire)
        .filter(|time| !time.is_zero() && *time <= MAX_TIMEOUT)
        .ok_or_else(|| {
            let prost_types::Duration { seconds, nanos } = wire;
            let problem =
                format!("is {seconds} s and {nanos} ns, expected more than 0 and at most 24 hours");
            Error::invalid("timeout", problem)
        })
}

/// A time of the wire; `None` if it is negative, or is none. The wire's own conversion panics at the least of numbers.
pub fn time(wire: &prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(wire.nanos).ok();
    let nanos = nanos.filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(wire.seconds).ok()?, nanos))
}

fn keep_at_deadline(wire: i32) -> Result<bool, Error> {
    match proto::OnDeadline::try_from(wire) {
        Ok(proto::OnDeadline::Unspecified | proto::OnDeadline::Fail) => Ok(false),
        Ok(proto::OnDeadline::Keep) => Ok(true),
        Err(_) => {
            let problem = format!("is {wire}, expected fail (1) or keep (2)");
            Err(Error::invalid("on_deadline", problem))
        }
    }
}

fn replay(wire: i32) -> Result<Replay, Error> {
    match proto::Replay::try_from(wire) {
        Ok(proto::Replay::Unspecified) => Ok(Replay::AtOnce),
        Ok(proto::Replay::Paced) => Ok(Replay::Paced),
        Err(_) => {
            let problem = format!("is {wire}, which is no pace of a replay");
            Err(Error::invalid("replay", problem))
        }
    }
}

fn check_id(id: &str) -> Result<(), Error> {
    if id.len() > MAX_ID_BYTES {
        let problem = format!(
            "is {} bytes long, expected at most {MAX_ID_BYTES}",
            id.len()
        );
        return Err(Error::invalid("id", problem));
    }
    Ok(())
}

fn check_code(code: &str, most: usize) -> Result<(), Error> {
    if code.trim().is_empty() {
        return Err(Error::invalid("code", "is empty, expected source code"));
    }
    if code.len() > most {
        let problem = format!("is {} bytes long, expected at most {most}", code.len());
        return Err(Error::invalid("code", problem));
    }
    Ok(())
}

/// In the canonical form of its name.
fn language(name: &str) -> Result<Option<String>, Error> {
    parse_language(name).map_err(|e| Error::invalid("language", e.to_string()))
}

fn strategy(name: &str) -> Result<Strategy, Error> {
    if name.is_empty() {
        return Ok(Strategy::default());
    }
    name.parse()
        .map_err(|e: PromptError| Error::invalid("strategy", e.to_string()))
}

fn retrieval(strategy: Strategy, wire: Option<&proto::Retrieval>) -> Result<RetrievalWish, Error> {
    match wire {
        None => Ok(RetrievalWish::default()),
        Some(wire) if strategy == Strategy::RetrievalAugmented => RetrievalWish::new(wire),
        Some(_) => {
            let problem = "is only for the strategy retrieval_augmented; leave it out";
            Err(Error::invalid("retrieval", problem))
        }
    }
}

fn token_limits(
    wire: &proto::ExplainRequest,
    limits: &RequestLimits,
) -> Result<(usize, usize), Error> {
    let max = match wire.max_new_tokens {
        0 => limits.default_max_new_tokens,
        n => in_range("max_new_tokens", n, limits.max_new_tokens)?,
    };
    let min = in_range("min_new_tokens", wire.min_new_tokens, max)?;
    Ok((max, min))
}

fn in_range(field: &'static str, value: i32, most: usize) -> Result<usize, Error> {
    usize::try_from(value)
        .ok()
        .filter(|v| *v <= most)
        .ok_or_else(|| Error::invalid(field, format!("is {value}, expected 0 to {most}")))
}

fn sampling(wire: &proto::ExplainRequest) -> Result<Sampling, Error> {
    let within = |field, value: f32, low: f32, high: f32| {
        if (low..=high).contains(&value) {
            Ok(value)
        } else {
            Err(Error::invalid(
                field,
                format!("is {value}, expected {low} to {high}"),
            ))
        }
    };
    let or_one = |value: f32| if value == 0.0 { 1.0 } else { value };
    Ok(Sampling {
        temperature: within("temperature", wire.temperature, 0.0, MAX_FACTOR)?,
        top_p: or_one(within("top_p", wire.top_p, 0.0, 1.0)?),
        top_k: u32::try_from(wire.top_k).map_err(|_| {
            Error::invalid(
                "top_k",
                format!("is {}, expected 0 (off) or more", wire.top_k),
            )
        })?,
        repetition_penalty: or_one(within(
            "repetition_penalty",
            wire.repetition_penalty,
            0.0,
            MAX_FACTOR,
        )?),
        // A greedy answer uses no random number; a fixed seed keeps its receipt the same.
        seed: wire.seed.unwrap_or_else(|| {
            if wire.temperature == 0.0 {
                0
            } else {
                rand_seed()
            }
        }),
    })
}

/// Any number will do, as long as it differs from call to call; it is told in the receipt.
fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0_u8)
}

fn check_stops(stops: &[String]) -> Result<(), Error> {
    if stops.len() > MAX_STOPS {
        let problem = format!("has {} strings, expected at most {MAX_STOPS}", stops.len());
        return Err(Error::invalid("stop", problem));
    }
    if stops.iter().any(String::is_empty) {
        return Err(Error::invalid(
            "stop",
            "has an empty string, which would end every answer",
        ));
    }
    if stops.iter().any(|s| s.len() > MAX_STOP_BYTES) {
        let problem = format!("has a string over {MAX_STOP_BYTES} bytes");
        return Err(Error::invalid("stop", problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits = RequestLimits {
        code_bytes: 100,
        max_new_tokens: 50,
        default_max_new_tokens: 20,
    };

    fn good() -> proto::ExplainRequest {
        proto::ExplainRequest {
            code: "x = 1".into(),
            ..Default::default()
        }
    }

    #[track_caller]
    fn refuses(field: &str, change: impl FnOnce(&mut proto::ExplainRequest)) {
        let mut wire = good();
        change(&mut wire);
        let error = ValidRequest::new(wire, &LIMITS).expect_err("refused");
        assert_eq!(error.field(), field, "{error}");
    }

    #[test]
    fn defaults_are_greedy_vanilla_and_reproducible() {
        let request = ValidRequest::new(good(), &LIMITS).expect("valid");
        assert_eq!(request.strategy, Strategy::Vanilla);
        assert_eq!((request.max_new_tokens, request.min_new_tokens), (20, 0));
        assert_eq!(request.sampling.temperature, 0.0);
        assert_eq!(request.sampling.top_p, 1.0);
        assert_eq!(request.sampling.repetition_penalty, 1.0);
        assert!(request.reproducible);
    }

    #[test]
    fn sampling_without_a_seed_is_not_reproducible() {
        let unseeded = proto::ExplainRequest {
            temperature: 0.8,
            ..good()
        };
        let seeded = proto::ExplainRequest {
            seed: Some(7),
            ..unseeded.clone()
        };
        assert!(
            !ValidRequest::new(unseeded, &LIMITS)
                .expect("valid")
                .reproducible
        );
        let seeded = ValidRequest::new(seeded, &LIMITS).expect("valid");
        assert!(seeded.reproducible);
        assert_eq!(seeded.sampling.seed, 7);
    }

    #[test]
    fn each_bad_field_is_named() {
        refuses("code", |r| r.code = " \n".into());
        refuses("code", |r| r.code = "x".repeat(101));
        refuses("id", |r| r.id = "i".repeat(MAX_ID_BYTES + 1));
        refuses("language", |r| r.language = "py\nthon".into());
        refuses("language", |r| r.language = "l".repeat(65));
        refuses("strategy", |r| r.strategy = "psychic".into());
        refuses("retrieval", |r| {
            r.retrieval = Some(proto::Retrieval::default());
        });
        refuses("retrieval.top_k", |r| {
            r.strategy = "retrieval_augmented".into();
            r.retrieval = Some(proto::Retrieval {
                top_k: Some(1000),
                ..Default::default()
            });
        });
        refuses("max_new_tokens", |r| r.max_new_tokens = -1);
        refuses("max_new_tokens", |r| r.max_new_tokens = 51);
        refuses("min_new_tokens", |r| r.min_new_tokens = -5);
        refuses("min_new_tokens", |r| r.min_new_tokens = 21);
        refuses("temperature", |r| r.temperature = f32::NAN);
        refuses("temperature", |r| r.temperature = -0.1);
        refuses("temperature", |r| r.temperature = f32::INFINITY);
        refuses("top_p", |r| r.top_p = 1.01);
        refuses("top_p", |r| r.top_p = f32::NAN);
        refuses("top_k", |r| r.top_k = -3);
        refuses("repetition_penalty", |r| r.repetition_penalty = f32::NAN);
        refuses("repetition_penalty", |r| r.repetition_penalty = -1.0);
        refuses("cache_mode", |r| r.cache_mode = 9);
        refuses("replay", |r| r.replay = -1);
        refuses("stop", |r| r.stop = vec![String::new()]);
        refuses("stop", |r| r.stop = vec!["a".into(); MAX_STOPS + 1]);
        refuses("stop", |r| r.stop = vec!["a".repeat(MAX_STOP_BYTES + 1)]);
        refuses("priority", |r| r.priority = 4);
        refuses("on_deadline", |r| r.on_deadline = -1);
        let time = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        refuses("timeout", |r| r.timeout = time(0, 0));
        refuses("timeout", |r| r.timeout = time(-1, 0));
        refuses("timeout", |r| r.timeout = time(86_400, 1));
        refuses("timeout", |r| r.timeout = time(i64::MAX, i32::MAX));
        refuses("timeout", |r| r.timeout = time(i64::MIN, i32::MIN));
        refuses("timeout", |r| r.timeout = time(1, -1));
    }
}
