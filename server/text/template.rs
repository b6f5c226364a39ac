//! Chat templates: the Jinja programs that model files carry to lay out a conversation.
//!
//! They are run as Hugging Face's `apply_chat_template` runs them: blocks trimmed, `tools` and
//! `documents` none, Python's string methods, the statement `generation`, and the functions
//! `raise_exception`, `strftime_now` and `tojson`. A template comes with the model and is not trusted: it runs on a budget.

use std::time::SystemTime;

use code_explainer_weights::model_files::LARGEST_TEMPLATE;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::clock::strftime;
use super::error::TextError;
use super::generation::without_generation;
use super::python::call_method;

/// Work that one rendering may do: about so many instructions, or 64 times as many bytes of text.
/// A usual template with a long prompt needs some tens of thousands.
const FUEL: u64 = 1_000_000;
/// How deep macros and recursive loops may nest.
const DEPTH: usize = 100;
const NAME: &str = "chat_template";

/// One message of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: &'a str,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator, to the model.
    System,
    /// The client.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// Its name in templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    place: String,
    variables: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// `place` says in messages where it was found; `variables` are the special tokens that it may
    /// name, such as `("bos_token", "<s>")`.
    ///
    /// # Errors
    /// [`TextError::Template`] if it is not a template.
    pub fn new(
        source: String,
        place: String,
        variables: Vec<(&'static str, String)>,
    ) -> Result<Self, TextError> {
        if source.len() > LARGEST_TEMPLATE {
            let problem =
                format!("is larger than {LARGEST_TEMPLATE} bytes, the most that one may have");
            return Err(TextError::Template { place, problem });
        }
        let mut environment = Environment::new();
        let compiled = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .and_then(|syntax| {
                environment.set_syntax(syntax);
                environment.add_template_owned(NAME, without_generation(&source))
            });
        if let Err(error) = compiled {
            return Err(TextError::Template {
                place,
                problem: error.to_string(),
            });
        }
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        environment.set_unknown_method_callback(call_method);
        environment.add_test("iterable", is_iterable);
        environment.add_filter("tojson", to_json);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        Ok(Self {
            environment,
            source,
            place,
            variables,
        })
    }

    /// Lays out a conversation. With `add_generation_prompt`, the text ends where the model's
    /// answer begins. `now` is what `strftime_now` tells, in UTC.
    ///
    /// # Errors
    /// [`TextError::Render`] if the template refuses the messages, or runs out of its budget.
    pub fn render(
        &self,
        messages: &[Message<'_>],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, TextError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                Value::from_pairs([
                    ("role", message.role.as_str()),
                    ("content", message.content),
                ])
            })
            .collect();
        let clock = Value::from_function(move |format: String| -> Result<String, Error> {
            strftime(&format, now).ok_or_else(|| {
                let problem = format!("strftime_now does not know the format {format:?}");
                Error::new(ErrorKind::InvalidOperation, problem)
            })
        });
        let fixed = [
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("strftime_now", clock),
        ];
        let variables = self
            .variables
            .iter()
            .map(|(name, text)| (*name, Value::from(text.as_str())));
        self.environment
            .get_template(NAME)
            .and_then(|template| {
                template.render(Value::from_pairs(fixed.into_iter().chain(variables)))
            })
            .map_err(|error| self.failed(error.to_string()))
    }

    /// The template's own text.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn failed(&self, problem: String) -> TextError {
        TextError::Render {
            place: self.place.clone(),
            problem,
        }
    }
}

/// As Python's `iter` sees it: none is not, and what is not defined is, and empty.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && (value.is_undefined() || value.try_iter().is_ok())
}

/// `tojson` as Hugging Face has it: nothing is escaped for HTML, and nothing for ASCII.
fn to_json(value: &Value, indent: Option<Value>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get("indent")?,
    };
    if options
        .get::<Option<bool>>("ensure_ascii")?
        .unwrap_or(false)
    {
        let problem = "tojson(ensure_ascii=True) is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, problem));
    }
    options.assert_all_used()?;
    let escaped =
        minijinja::filters::tojson(value, indent, Kwargs::from_iter::<[(&str, Value); 0]>([]))?;
    Ok(undo_html_escapes(escaped.as_str().unwrap_or_default()))
}

/// Turns the `\u003c` that the built-in filter writes for `<`, and its like, back.
fn undo_html_escapes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let plain = [
            ("\\u003c", '<'),
            ("\\u003e", '>'),
            ("\\u0026", '&'),
            ("\\u0027", '\''),
        ]
        .into_iter()
        .find(|(escape, _)| rest.starts_with(escape));
        if let Some((escape, c)) = plain {
            text.push(c);
            rest = &rest[escape.len()..];
        } else {
            // The escape's second character is ASCII; it may be a backslash and must not be read
            // as the beginning of another escape.
            let end = rest.len().min(2);
            text.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::undo_html_escapes;

    #[test]
    fn escaped_backslashes_are_left_alone() {
        assert_eq!(
            undo_html_escapes(r#""\u003ca\u003e \\u003c \n""#),
            r#""<a> \\u003c \n""#
        );
    }
}
