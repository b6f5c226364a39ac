//! An answer as it grows: append-only, written by one flight, read by any number of readers.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use code_explainer_cache::{CachedAnswer, CachedDelta, FinishReason, Level};
use tokio::sync::watch;

use crate::error::Error;
use crate::explain::Source;
use crate::explain::deltas::Deltas;

/// An answer as it grows. What is in it stays, so that a reader needs no more than a place in it.
///
/// Bounded by the answer: [`max_new_tokens`](crate::request::ValidRequest::max_new_tokens).
#[derive(Debug, Clone, Default)]
pub(super) struct AnswerLog {
    deltas: Deltas,
    /// Bytes that the present source of the answer has told. Fewer than there are where it tells again what an earlier one
    /// told, which is left out.
    told: usize,
    /// A later source told something else than an earlier one: the answer is not what its request makes of itself.
    pub(super) diverged: bool,
    /// There before the item is told that it is queued, unless the stored answer tells it.
    about: Option<Arc<About>>,
    pub(super) queued: Option<Queued>,
    pub(super) started: Option<Started>,
    /// When the first and the last token came.
    pub(super) tokens_at: Option<(Instant, Instant)>,
    pub(super) generated_tokens: usize,
    pub(super) largest_batch: usize,
    /// Another replica makes it, or made it to its end.
    pub(super) elsewhere: bool,
    /// Where the answer was; `None`: it is computed.
    pub(super) level: Option<Level>,
    pub(super) end: Option<Result<FinishReason, Error>>,
}

/// What a client is told of an item beside its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) language: Option<String>,
    pub(super) prompt_tokens: usize,
    /// If asked for.
    pub(super) prompt: Option<String>,
    pub(super) notes: Vec<String>,
    /// What the prompt quoted.
    pub(super) sources: Vec<Source>,
    /// When the prompt's making began and ended; `None`: it was made before, with the answer.
    pub(super) made: Option<(Instant, Instant)>,
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
    /// The whole of an answer that was given before.
    pub(super) fn stored(at: Instant, level: Level, answer: Arc<CachedAnswer>) -> Self {
        let mut log = Self::default();
        log.replay(at, level, answer);
        log
    }

    /// Deltas so far.
    pub(super) fn deltas(&self) -> usize {
        self.deltas.count()
    }

    /// The text of the deltas from one to before another, in one piece.
    pub(super) fn between(&self, from: usize, to: usize) -> Cow<'_, str> {
        self.deltas.between(from, to)
    }

    pub(super) fn text(&self) -> Cow<'_, str> {
        self.between(0, self.deltas())
    }

    /// What it was when it had this many deltas.
    pub(super) fn up_to(&self, deltas: usize) -> Self {
        Self {
            deltas: self.deltas.up_to(deltas),
            about: self.about.clone(),
            end: self.end.clone(),
            ..*self
        }
    }

    /// When a delta came.
    pub(super) fn came_at(&self, delta: usize) -> Option<Instant> {
        self.deltas.came_at(delta)
    }

    /// Bytes of its text in memory.
    pub(super) fn bytes(&self) -> usize {
        self.deltas.bytes()
    }

    /// What there is to say of it beside its text.
    pub(super) fn about(&self) -> Arc<About> {
        match (&self.about, &self.deltas) {
            (Some(about), _) => about.clone(),
            (None, Deltas::Stored(stored)) => Arc::new(About::of(&stored.answer)),
            (None, Deltas::Growing(_)) => Arc::default(),
        }
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

impl About {
    fn of(answer: &CachedAnswer) -> Self {
        let language = Some(&answer.language).filter(|language| !language.is_empty());
        Self {
            language: language.cloned(),
            prompt_tokens: answer.prompt_tokens as usize,
            notes: answer.notes.clone(),
            ..Self::default()
        }
    }
}

/// The one hand that writes an answer. Dropped before the end, it leaves the readers with an internal error.
#[derive(Debug)]
pub(super) struct Writer(pub(super) watch::Sender<AnswerLog>);

impl Writer {
    /// What there is to say of the prompt.
    pub(super) fn about(&self, about: About) {
        self.0.send_modify(|log| log.about = Some(Arc::new(about)));
    }

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
            log.append(at, text);
        });
    }

    /// Text that was held back until it was certain that no more tokens come.
    pub(super) fn rest(&self, at: Instant, text: &str) {
        self.0.send_modify(|log| log.append(at, text));
    }

    /// Why there is no more.
    pub(super) fn end(&self, reason: FinishReason) {
        self.0.send_modify(|log| log.end = Some(Ok(reason)));
    }

    pub(super) fn fail(&self, error: Error) {
        self.0.send_modify(|log| log.end = Some(Err(error)));
    }

    /// The whole of an answer that was given before.
    pub(super) fn replay(&self, at: Instant, level: Level, answer: Arc<CachedAnswer>) {
        self.0.send_modify(|log| log.replay(at, level, answer));
    }

    /// Another replica makes the answer; this one tells it on.
    pub(super) fn follows(&self, at: Instant) {
        self.0.send_modify(|log| {
            log.queued.get_or_insert(Queued { at, position: 0 });
            log.elsewhere = true;
        });
    }

    /// More of what another replica makes.
    pub(super) fn told(&self, at: Instant, deltas: &[CachedDelta]) {
        self.0.send_modify(|log| {
            log.tokens_at = Some((log.tokens_at.map_or(at, |(first, _)| first), at));
            deltas.iter().for_each(|delta| log.append(at, &delta.text));
        });
    }

    /// Another replica has made all of it.
    pub(super) fn told_to_the_end(&self, answer: &CachedAnswer) {
        self.0.send_modify(|log| {
            log.generated_tokens = answer.generated_tokens as usize;
            log.end = Some(Ok(answer.finish_reason));
        });
    }

    /// What comes next comes from another source, which tells the answer from its beginning.
    pub(super) fn begin_again(&self) {
        self.0.send_modify(|log| {
            log.told = 0;
            log.elsewhere = false;
            log.tokens_at = None;
        });
    }

    pub(super) fn read<T>(&self, look: impl FnOnce(&AnswerLog) -> T) -> T {
        look(&self.0.borrow())
    }
}

impl AnswerLog {
    fn replay(&mut self, at: Instant, level: Level, answer: Arc<CachedAnswer>) {
        self.queued = Some(Queued { at, position: 0 });
        self.level = Some(level);
        self.generated_tokens = answer.generated_tokens as usize;
        self.end = Some(Ok(answer.finish_reason));
        if self.deltas() == 0 {
            // Told from where it is. Its own words say what there is to say of it.
            self.about = None;
            self.deltas = Deltas::stored(answer, at);
            return;
        }
        // Readers know a part, which another replica had begun to tell: in their own count of deltas it goes on.
        self.about = Some(Arc::new(About::of(&answer)));
        let told = Deltas::stored(answer, at);
        for delta in 0..told.count() {
            let due = told.came_at(delta).unwrap_or(at);
            self.append(due, &told.between(delta, delta + 1));
        }
    }

    fn append(&mut self, at: Instant, text: &str) {
        let growing = self.deltas.growing();
        let known = &growing.text.as_bytes()[self.told.min(growing.text.len())..];
        let again = known.len().min(text.len());
        self.diverged |= known[..again] != text.as_bytes()[..again];
        self.told += text.len();
        let fresh = text.get(again..).unwrap_or_default();
        if !fresh.is_empty() {
            growing.push(at, fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_again_is_left_out() {
        let (at, mut log) = (Instant::now(), AnswerLog::default());
        for text in ["Grüße", " an", " alle"] {
            log.append(at, text);
        }
        log.told = 0;
        for text in ["Gr", "üße a", "n alle We", "lt"] {
            log.append(at, text);
        }
        assert_eq!(log.text(), "Grüße an alle Welt");
        let deltas = (0..log.deltas()).map(|d| log.between(d, d + 1));
        assert_eq!(
            deltas.collect::<Vec<_>>(),
            ["Grüße", " an", " alle", " We", "lt"]
        );
        assert!(!log.diverged);
    }

    #[test]
    fn a_source_that_tells_something_else_is_noticed() {
        let (at, mut log) = (Instant::now(), AnswerLog::default());
        log.append(at, "one answer");
        log.told = 0;
        for text in ["one ä", "nother one"] {
            log.append(at, text);
        }
        assert!(log.diverged);
        // It goes on where the first one was left.
        assert!(log.text().starts_with("one answer"));
    }
}
