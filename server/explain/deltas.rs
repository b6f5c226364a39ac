//! The text of an answer, in the pieces in which it came: it grows, or a cache has all of it already and shares it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer_cache::CachedAnswer;

/// Nobody waits longer for a piece of an answer that is replayed at its own pace.
const LONGEST_PACE: Duration = Duration::from_secs(3600);

/// The pieces of an answer's text, and when each came.
#[derive(Debug, Clone)]
pub(super) enum Deltas {
    /// As they are made.
    Growing(Growing),
    /// All of them, or the first of them: those of an answer that is kept elsewhere, and not copied.
    Stored(Stored),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Growing {
    pub(super) text: String,
    /// Of each delta.
    ends: Vec<End>,
    /// When the first one came.
    begun: Option<Instant>,
}

/// Eight bytes, since there is one for nearly every token of every answer that somebody may still read.
#[derive(Debug, Clone, Copy)]
struct End {
    /// Where in the text a delta ends.
    at: u32,
    /// When it came, from the first one on; more than an hour is about an hour.
    microseconds: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) answer: Arc<CachedAnswer>,
    count: usize,
    /// When it would begin, told at its own pace.
    from: Instant,
}

impl Default for Deltas {
    fn default() -> Self {
        Self::Growing(Growing::default())
    }
}

impl Deltas {
    /// Those of an answer that was given before, told from now on.
    pub(super) fn stored(answer: Arc<CachedAnswer>, from: Instant) -> Self {
        let count = answer.deltas.len();
        Self::Stored(Stored {
            answer,
            count,
            from,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Growing(growing) => growing.ends.len(),
            Self::Stored(stored) => stored.count,
        }
    }

    /// The text of those from one to before another, in one piece.
    pub(super) fn between(&self, from: usize, to: usize) -> Cow<'_, str> {
        match self {
            Self::Growing(growing) => {
                Cow::Borrowed(&growing.text[growing.start(from)..growing.start(to)])
            }
            Self::Stored(stored) => match &stored.answer.deltas[from..to] {
                [one] => Cow::Borrowed(&one.text),
                many => Cow::Owned(many.iter().map(|delta| delta.text.as_str()).collect()),
            },
        }
    }

    /// When one came; of a stored one, when it would come at its own pace.
    pub(super) fn came_at(&self, delta: usize) -> Option<Instant> {
        match self {
            Self::Growing(growing) => {
                let end = growing.ends.get(delta)?;
                Some(growing.begun? + Duration::from_micros(end.microseconds.into()))
            }
            Self::Stored(stored) => {
                let delta = stored.answer.deltas[..stored.count].get(delta)?;
                Some(stored.from + Duration::from_micros(delta.at_us).min(LONGEST_PACE))
            }
        }
    }

    /// The first of them.
    pub(super) fn up_to(&self, count: usize) -> Self {
        match self {
            Self::Growing(growing) => Self::Growing(Growing {
                text: growing.text[..growing.start(count)].to_owned(),
                ends: growing.ends[..count].to_vec(),
                begun: growing.begun,
            }),
            Self::Stored(stored) => Self::Stored(Stored {
                count,
                ..stored.clone()
            }),
        }
    }

    /// Bytes that it keeps in memory: of an answer that is stored, all of that, though others may keep it, too.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Growing(growing) => growing.text.len() + growing.ends.len() * size_of::<End>(),
            Self::Stored(stored) => stored.answer.size_bytes(),
        }
    }

    /// To be added to. One that is stored becomes a copy.
    pub(super) fn growing(&mut self) -> &mut Growing {
        if let Self::Stored(_) = self {
            let mut copy = Growing::default();
            for delta in 0..self.count() {
                let at = self.came_at(delta).unwrap_or_else(Instant::now);
                copy.push(at, &self.between(delta, delta + 1));
            }
            *self = Self::Growing(copy);
        }
        match self {
            Self::Growing(growing) => growing,
            Self::Stored(_) => unreachable!("it has just been copied"),
        }
    }
}

impl Growing {
    /// One more.
    pub(super) fn push(&mut self, at: Instant, text: &str) {
        self.text.push_str(text);
        let begun = *self.begun.get_or_insert(at);
        let time = at.saturating_duration_since(begun).as_micros();
        self.ends.push(End {
            at: u32::try_from(self.text.len()).expect("an answer has less than 4 GiB"),
            microseconds: time.try_into().unwrap_or(u32::MAX),
        });
    }

    fn start(&self, delta: usize) -> usize {
        delta
            .checked_sub(1)
            .map_or(0, |before| self.ends[before].at as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use code_explainer_cache::{CachedDelta, FinishReason, Timings};

    fn answer(texts: &[&str]) -> Arc<CachedAnswer> {
        let deltas = texts.iter().zip(0..).map(|(text, at)| CachedDelta {
            text: (*text).into(),
            at_us: at * 1000,
        });
        Arc::new(CachedAnswer {
            deltas: deltas.collect(),
            finish_reason: FinishReason::Eos,
            prompt_tokens: 1,
            generated_tokens: texts.len() as u32,
            seed: 0,
            notes: Vec::new(),
            language: String::new(),
            timings: Timings::default(),
        })
    }

    #[test]
    fn what_is_stored_is_read_where_it_is_and_as_what_grows() {
        let (at, texts) = (Instant::now(), ["Grüße", " an", " alle"]);
        let shared = answer(&texts);
        let stored = Deltas::stored(shared.clone(), at);
        let mut copied = stored.clone();
        copied.growing();
        assert_eq!(Arc::strong_count(&shared), 2, "one of them is a copy");
        for deltas in [&stored, &copied] {
            assert_eq!(deltas.count(), 3);
            assert_eq!(deltas.between(0, 0), "");
            assert_eq!(deltas.between(1, 2), " an");
            assert_eq!(deltas.between(0, 3), "Grüße an alle");
            assert_eq!(deltas.came_at(2), Some(at + Duration::from_millis(2)));
            assert_eq!(deltas.came_at(3), None);
            let less = deltas.up_to(2);
            assert_eq!((less.count(), &*less.between(0, 2)), (2, "Grüße an"));
            assert_eq!(less.came_at(2), None);
        }
    }
}
