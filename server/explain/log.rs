//! An answer as it grows: append-only, written by one flight, read by any number of readers.

use std::time::Instant;

use tokio::sync::watch;

use crate::cache::{CachedAnswer, FinishReason, Level};
use crate::error::Error;

/// An answer as it grows. What is in it stays, so that a reader needs no more than a place in it.
///
/// Bounded by the answer: [`max_new_tokens`](crate::request::ValidRequest::max_new_tokens).
#[derive(Debug, Default)]
pub(super) struct AnswerLog {
    text: String,
    /// Where in `text` each delta ends.
    ends: Vec<usize>,
    pub(super) queued: Option<Queued>,
    pub(super) started: Option<Started>,
    /// When the first and the last token came.
    pub(super) tokens_at: Option<(Instant, Instant)>,
    pub(super) generated_tokens: usize,
    pub(super) largest_batch: usize,
    /// Where the answer was; `None`: it is computed.
    pub(super) level: Option<Level>,
    pub(super) end: Option<Result<FinishReason, Error>>,
}

/// The item is valid, and waits for its first step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) at: Instant,
    /// Items before it.
    pub(super) position: usize,
}

/// The engine works on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) at: Instant,
    pub(super) cached_tokens: usize,
}

impl AnswerLog {
    /// Deltas so far.
    pub(super) fn deltas(&self) -> usize {
        self.ends.len()
    }

    /// The text of the deltas from one to before another, in one piece.
    pub(super) fn between(&self, from: usize, to: usize) -> &str {
        &self.text[self.start(from)..self.start(to)]
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn start(&self, delta: usize) -> usize {
        delta.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// No engine has begun with it.
    pub(super) fn waits(&self) -> bool {
        self.started.is_none() && self.end.is_none()
    }

    /// Items before it, if it waits.
    pub(super) fn position(&self) -> Option<usize> {
        let queued = self.queued?;
        Some(self.started.map_or(queued.position, |_| 0))
    }
}

/// The one hand that writes an answer. Dropped before the end, it leaves the readers with an internal error.
#[derive(Debug)]
pub(super) struct Writer(pub(super) watch::Sender<AnswerLog>);

impl Writer {
    pub(super) fn queued(&self, at: Instant, position: usize) {
        self.0
            .send_modify(|log| log.queued = Some(Queued { at, position }));
    }

    /// So many items are before it now.
    pub(super) fn moved(&self, position: usize) {
        self.0.send_modify(|log| {
            if let Some(queued) = &mut log.queued {
                queued.position = position;
            }
        });
    }

    pub(super) fn started(&self, at: Instant, cached_tokens: usize) {
        self.0
            .send_modify(|log| log.started = Some(Started { at, cached_tokens }));
    }

    /// A token, and the text that it makes sayable; often none.
    pub(super) fn token(&self, at: Instant, batch: usize, text: &str) {
        self.0.send_modify(|log| {
            log.tokens_at = Some((log.tokens_at.map_or(at, |(first, _)| first), at));
            log.generated_tokens += 1;
            log.largest_batch = log.largest_batch.max(batch);
            log.append(text);
        });
    }

    /// The last text, and why there is no more.
    pub(super) fn end(&self, rest: &str, reason: FinishReason) {
        self.0.send_modify(|log| {
            log.append(rest);
            log.end = Some(Ok(reason));
        });
    }

    pub(super) fn fail(&self, error: Error) {
        self.0.send_modify(|log| log.end = Some(Err(error)));
    }

    /// The whole of an answer that was given before.
    pub(super) fn replay(&self, at: Instant, level: Level, answer: &CachedAnswer) {
        self.0.send_modify(|log| {
            log.queued = Some(Queued { at, position: 0 });
            log.level = Some(level);
            log.generated_tokens = answer.generated_tokens as usize;
            answer.deltas.iter().for_each(|delta| log.append(delta));
            log.end = Some(Ok(answer.finish_reason));
        });
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&AnswerLog) -> T) -> T {
        look(&self.0.borrow())
    }
}

impl AnswerLog {
    fn append(&mut self, text: &str) {
        if !text.is_empty() {
            self.text.push_str(text);
            self.ends.push(self.text.len());
        }
    }
}
