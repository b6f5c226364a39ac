//! One item's place in an answer.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::error::Error;
use crate::explain::Record;
use crate::explain::log::{About, AnswerLog};

/// Reads an answer from its beginning, at its own pace. Dropping the last reader of a flight cancels it.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    log: Source,
    /// When it began to read.
    pub(super) boarded_at: Instant,
    /// It reads what another item asked for first.
    pub(super) joined: bool,
    /// The position in the queue that the client knows.
    told: Option<usize>,
    /// Deltas that it has read.
    read: usize,
}

/// Where an answer is read.
#[derive(Debug, Clone)]
enum Source {
    /// Where it grows.
    Growing(watch::Receiver<AnswerLog>),
    /// Where all of it is that there will be.
    Whole(Arc<AnswerLog>),
}

/// What a reader finds next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The item is queued, behind this many others.
    Accepted(usize),
    /// It still waits, now behind this many.
    Queued(usize),
    /// There is more text.
    Text,
    /// There will be no more.
    End,
}

impl Reader {
    pub(super) fn new(log: watch::Receiver<AnswerLog>, boarded_at: Instant, joined: bool) -> Self {
        Self {
            log: Source::Growing(log),
            boarded_at,
            joined,
            told: None,
            read: 0,
        }
    }

    /// Of an answer that is there as a whole.
    pub(super) fn of_whole(log: AnswerLog, boarded_at: Instant) -> Self {
        Self {
            log: Source::Whole(Arc::new(log)),
            boarded_at,
            joined: false,
            told: None,
            read: 0,
        }
    }

    /// Waits until there is something to read, and says what. Safe to drop.
    ///
    /// # Errors
    /// [`Error::Internal`] when the flight has gone without an end.
    pub(super) async fn next(&mut self, record: &Record) -> Result<Next, Error> {
        let (told, read) = (self.told, self.read);
        let mut next = None;
        let mut look = |log: &AnswerLog| {
            if log.started.is_some() || log.level.is_some() || log.elsewhere {
                record.started();
            }
            next = match (told, log.position()) {
                (None, Some(position)) => Some(Next::Accepted(position)),
                (Some(_), _) if log.deltas() > read => Some(Next::Text),
                (Some(told), Some(now)) if log.waits() && now != told => Some(Next::Queued(now)),
                _ => log.end.as_ref().map(|_| Next::End),
            };
            next.is_some()
        };
        let there = match &mut self.log {
            Source::Growing(log) => log.wait_for(look).await.is_ok(),
            Source::Whole(log) => look(log),
        };
        next.filter(|_| there).ok_or(Error::Internal)
    }

    /// The client knows that the item is queued, behind so many.
    pub(super) fn told(&mut self, position: usize) {
        self.told = Some(position);
    }

    /// What is left to read of the first `end` deltas, at once.
    pub(super) fn left(&self, end: usize) -> Next {
        match (self.told, self.look(AnswerLog::position)) {
            (None, Some(position)) => Next::Accepted(position),
            _ if self.read < end => Next::Text,
            _ => Next::End,
        }
    }

    /// When the next delta came, or comes at its own pace.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look(|log| log.came_at(self.read))
    }

    /// It came late, and has read nothing of what was said before.
    pub(super) fn is_behind(&self) -> bool {
        self.joined && self.read == 0
    }

    /// The next delta; with `all`, everything that is there, in one.
    pub(super) fn text(&mut self, all: bool) -> String {
        let (text, to) = self.look(|log| {
            let to = if all { log.deltas() } else { self.read + 1 };
            (log.between(self.read, to).into_owned(), to)
        });
        self.read = to;
        text
    }

    /// Deltas that it has read.
    pub(super) fn position(&self) -> usize {
        self.read
    }

    /// Goes back to where its client is.
    pub(super) fn rewind(&mut self, accepted: bool, read: usize) {
        self.told = self.told.filter(|_| accepted);
        self.read = read;
    }

    /// Everything from a delta on.
    pub(super) fn rest(&self, from: usize) -> String {
        self.look(|log| log.between(from, log.deltas()).into_owned())
    }

    /// Reads the answer again later. One that goes on for others is `cut` off from here: who keeps it does not keep it
    /// going.
    pub(super) fn kept(&self, cut: bool) -> Self {
        if !cut {
            return self.clone();
        }
        let log = self.look(|log| log.up_to(self.read));
        Self {
            log: Source::Whole(Arc::new(log)),
            ..*self
        }
    }

    /// Bytes of the answer, about.
    pub(super) fn bytes(&self) -> usize {
        self.look(AnswerLog::bytes)
    }

    /// What its maker says of it, once it is queued.
    pub(super) fn about(&self) -> Arc<About> {
        self.look(AnswerLog::about)
    }

    /// Looks at the answer as it is now.
    pub(super) fn look<T>(&self, look: impl FnOnce(&AnswerLog) -> T) -> T {
        match &self.log {
            Source::Growing(log) => look(&log.borrow()),
            Source::Whole(log) => look(log),
        }
    }
}
