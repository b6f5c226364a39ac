//! The JSON that the program prints and keeps.

use serde::{Deserialize, Serialize};

use code_explainer_client::{
    Accepted, Answer, Delta, Error, FinishReason, Progress, Receipt, Step, Usage,
};

/// What an item is called in a record.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name<'a> {
    Id(&'a str),
    Path(&'a str),
}

/// One item's answer or error.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    /// First, so that a line that was cut can be told from a stranger's.
    #[serde(flatten)]
    name: Name<'a>,
    /// Of what was asked, where a later run is to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_digest: Option<&'a str>,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Answer {
        #[serde(skip_serializing_if = "Option::is_none")]
        language: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt: Option<&'a str>,
        text: &'a str,
        #[serde(flatten)]
        end: End<'a>,
        tries: u32,
    },
    Error {
        error: &'a Error,
    },
}

#[derive(Debug, Serialize)]
struct End<'a> {
    finish_reason: FinishReason,
    usage: Usage,
    receipt: &'a Receipt,
}

impl<'a> Record<'a> {
    pub(crate) fn new(name: Name<'a>, result: &'a Result<Box<Answer>, Error>) -> Self {
        match result {
            Ok(answer) => {
                let accepted = answer.accepted.as_ref();
                let outcome = Outcome::Answer {
                    language: accepted
                        .map(|a| a.language.as_str())
                        .filter(|s| !s.is_empty()),
                    prompt: accepted
                        .map(|a| a.prompt.as_str())
                        .filter(|s| !s.is_empty()),
                    text: &answer.text,
                    end: End::of(answer),
                    tries: answer.tries,
                };
                Self {
                    name,
                    request_digest: None,
                    outcome,
                }
            }
            Err(error) => Self::failure(name, error),
        }
    }

    pub(crate) fn failure(name: Name<'a>, error: &'a Error) -> Self {
        Self {
            name,
            request_digest: None,
            outcome: Outcome::Error { error },
        }
    }

    /// The same, to what was asked so.
    pub(crate) fn to(self, request_digest: Option<&'a str>) -> Self {
        Self {
            request_digest,
            ..self
        }
    }
}

impl<'a> End<'a> {
    fn of(answer: &'a Answer) -> Self {
        let done = &answer.done;
        Self {
            finish_reason: done.finish_reason,
            usage: done.usage,
            receipt: &done.receipt,
        }
    }
}

/// One event of an item.
#[derive(Debug, Serialize)]
pub(crate) struct EventRecord<'a> {
    id: &'a str,
    #[serde(flatten)]
    event: EventBody<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum EventBody<'a> {
    Accepted(&'a Accepted),
    Delta(&'a Delta),
    Restarted,
    Retrying { tried: u32, error: &'a Error },
    Done(End<'a>),
    Error(&'a Error),
}

impl<'a> EventRecord<'a> {
    pub(crate) fn of(step: &'a Step) -> Self {
        let event = match &step.progress {
            Progress::Accepted(accepted) => EventBody::Accepted(accepted),
            Progress::Delta(delta) => EventBody::Delta(delta),
            Progress::Restarted => EventBody::Restarted,
            Progress::Retrying { tried, error } => EventBody::Retrying {
                tried: *tried,
                error,
            },
            Progress::Finished(Ok(answer)) => EventBody::Done(End::of(answer)),
            Progress::Finished(Err(error)) => EventBody::Error(error),
        };
        Self {
            id: &step.id,
            event,
        }
    }

    pub(crate) fn failure(id: &'a str, error: &'a Error) -> Self {
        Self {
            id,
            event: EventBody::Error(error),
        }
    }
}

/// What a later run needs to know of a record.
#[derive(Debug, Deserialize)]
pub(crate) struct Kept {
    pub(crate) path: String,
    /// Absent from a record with an error.
    pub(crate) text: Option<String>,
    pub(crate) request_digest: Option<String>,
}

/// The record as a line.
pub(crate) fn line(record: &impl Serialize) -> String {
    // Strings and finite or null numbers: there is nothing here that JSON cannot say.
    let mut line = serde_json::to_string(record).unwrap_or_default();
    line.push('\n');
    line
}
