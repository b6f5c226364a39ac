//! Token ids to text while they arrive.

use std::sync::Arc;

use super::stop::{State, StopMatcher};
use super::tokenizer::{Start, Tokenizer};

/// Turns an answer's tokens into text that can be sent at once and need never be taken back.
///
/// Two things are held back: bytes that do not make up a character yet, and an end of the text that
/// may become a stop string. All texts that are given out, put together, are
/// [`Tokenizer::decode`] of the tokens, cut where a stop string begins.
///
/// The first byte that completes a stop string ends the text; if it completes several, the longest
/// counts. So the cut does not depend on how the text is split into tokens.
///
/// Each token costs time in proportion to its own bytes (and to the longest stop string at most).
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    stops: StopMatcher,
    start: Start,
    /// The beginning of a character: 3 bytes at most between two calls.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    state: State,
    stopped: bool,
}

/// What a token has added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Text to append. Often empty.
    pub text: String,
    /// A stop string is complete: the answer ends after `text`.
    pub stopped: bool,
}

impl Detokenizer {
    /// A detokenizer at the beginning of an answer. Empty stop strings are left out.
    pub fn new<S: AsRef<str>>(tokenizer: Arc<Tokenizer>, stops: &[S]) -> Self {
        Self {
            tokenizer,
            stops: StopMatcher::new(stops),
            start: Start::default(),
            bytes: Vec::new(),
            held: String::new(),
            state: State::default(),
            stopped: false,
        }
    }

    /// Takes the next token.
    ///
    /// With `may_stop == false` (an answer that is not as long as it must be yet) stop strings are
    /// not looked for in this token's text: it is given out, and no later match reaches back into
    /// it. After a stop, nothing is given out any more.
    pub fn push(&mut self, token: u32, may_stop: bool) -> Step {
        if self.stopped {
            return Step {
                text: String::new(),
                stopped: true,
            };
        }
        let Self {
            tokenizer,
            bytes,
            start,
            ..
        } = self;
        bytes.extend_from_slice(tokenizer.piece(token, start));
        let text = self.complete_characters();
        self.add(&text, may_stop)
    }

    /// The answer has ended: gives out what is still held. Bytes that never became a character are
    /// U+FFFD.
    pub fn finish(self) -> String {
        if self.stopped {
            return String::new();
        }
        self.held + &String::from_utf8_lossy(&self.bytes)
    }

    /// Takes the whole characters out of `bytes`; what can never become one is U+FFFD, just as
    /// `String::from_utf8_lossy` replaces it.
    fn complete_characters(&mut self) -> String {
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let at_end = done + chunk.invalid().len() == self.bytes.len();
            if chunk.invalid().is_empty() || at_end && is_incomplete(chunk.invalid()) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            done += chunk.invalid().len();
        }
        self.bytes.drain(..done);
        text
    }

    /// Adds text and gives out what cannot be part of a stop string.
    fn add(&mut self, text: &str, may_stop: bool) -> Step {
        let before = self.held.len();
        self.held.push_str(text);
        if !may_stop || self.stops.is_empty() {
            self.state = State::default();
            return Step {
                text: std::mem::take(&mut self.held),
                stopped: false,
            };
        }
        for (index, byte) in text.bytes().enumerate() {
            self.state = self.stops.advance(self.state, byte);
            if let Some(length) = self.stops.stop(self.state) {
                self.held.truncate(before + index + 1 - length);
                self.stopped = true;
                return Step {
                    text: std::mem::take(&mut self.held),
                    stopped: true,
                };
            }
        }
        let safe = self.held.len() - self.stops.held(self.state);
        Step {
            text: self.held.drain(..safe).collect(),
            stopped: false,
        }
    }
}

/// Whether these bytes, which are no character, may become one with more bytes after them.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
