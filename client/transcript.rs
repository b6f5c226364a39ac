//! The text of an item over several tries, delivered once.

use crate::{Delta, Error};

/// What was delivered of an answer, and how much of it the current try has said again.
///
/// A second try usually says what the first one said, since sampling is seeded. What is said again is
/// swallowed and the text goes on where it was cut. When the second try says something else (another
/// model took over, say), the text starts again.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    text: String,
    /// Bytes of `text` that the current try has said.
    said: usize,
    /// The number that the current try's next delta must have.
    expected: u64,
    /// The number of the next delta to deliver.
    next: u64,
}

/// What to deliver.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Delivery {
    /// What was delivered before is void.
    pub(crate) restart: bool,
    /// What to append.
    pub(crate) delta: Option<Delta>,
}

impl Transcript {
    /// Another try begins.
    pub(crate) fn begin(&mut self) {
        self.said = 0;
        self.expected = 0;
    }

    /// The number of the delta that the current try says next.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// The current try said more.
    pub(crate) fn hear(&mut self, delta: Delta) -> Result<Delivery, Error> {
        if delta.sequence != self.expected {
            return Err(Error::Contract("a delta is missing or came twice"));
        }
        self.expected += 1;

        let again = &self.text[self.said..];
        if again.starts_with(&delta.text) {
            self.said += delta.text.len();
            return Ok(Delivery::default());
        }
        if let Some(more) = delta.text.strip_prefix(again) {
            let more = more.to_owned();
            return Ok(Delivery {
                restart: false,
                delta: Some(self.append(&more)),
            });
        }
        let mut text = self.text[..self.said].to_owned();
        text.push_str(&delta.text);
        Ok(self.restart(&text))
    }

    /// The current try is complete.
    pub(crate) fn finish(&mut self) -> Delivery {
        if self.said == self.text.len() {
            return Delivery::default();
        }
        let text = self.text[..self.said].to_owned();
        self.restart(&text)
    }

    /// What was delivered.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn restart(&mut self, text: &str) -> Delivery {
        self.text.clear();
        self.next = 0;
        let delta = self.append(text);
        Delivery {
            restart: true,
            delta: Some(delta).filter(|delta| !delta.text.is_empty()),
        }
    }

    fn append(&mut self, text: &str) -> Delta {
        self.text.push_str(text);
        self.said = self.text.len();
        let sequence = self.next;
        self.next += 1;
        Delta {
            text: text.to_owned(),
            sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays tries to a consumer that appends deltas and forgets at a restart; checks their numbers.
    fn play(tries: &[&[&str]]) -> (String, usize) {
        let mut transcript = Transcript::default();
        let (mut text, mut restarts, mut next) = (String::new(), 0, 0);
        let mut take = |delivery: Delivery| {
            if delivery.restart {
                text.clear();
                restarts += 1;
                next = 0;
            }
            if let Some(delta) = delivery.delta {
                assert_eq!(delta.sequence, next);
                next += 1;
                text.push_str(&delta.text);
            }
        };
        for deltas in tries {
            transcript.begin();
            for (sequence, text) in (0..).zip(*deltas) {
                take(
                    transcript
                        .hear(Delta {
                            text: (*text).to_owned(),
                            sequence,
                        })
                        .unwrap(),
                );
            }
        }
        take(transcript.finish());
        assert_eq!(transcript.into_text(), text);
        (text, restarts)
    }

    #[test]
    fn a_second_try_goes_on_where_the_first_was_cut() {
        assert_eq!(
            play(&[&["ab", "cd"], &["a", "bcde", "f"]]),
            ("abcdef".into(), 0)
        );
        assert_eq!(play(&[&["é", "ü"], &["éü", "ß"]]), ("éüß".into(), 0));
        assert_eq!(play(&[&["abc"], &["a"], &["ab", "cd"]]), ("abcd".into(), 0));
    }

    #[test]
    fn a_second_try_that_says_something_else_starts_again() {
        assert_eq!(play(&[&["ab", "cd"], &["ab", "xy"]]), ("abxy".into(), 1));
        assert_eq!(play(&[&["abcd"], &["ab"]]), ("ab".into(), 1));
        assert_eq!(play(&[&["é"], &["è"]]), ("è".into(), 1));
        assert_eq!(play(&[&["a"], &[]]), (String::new(), 1));
    }

    #[test]
    fn a_gap_is_noticed() {
        let mut transcript = Transcript::default();
        let gap = transcript.hear(Delta {
            text: "a".into(),
            sequence: 1,
        });
        assert!(matches!(gap, Err(Error::Contract(_))));
    }
}
