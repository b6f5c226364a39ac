//! A stream's items: those in flight, and those that have ended and are kept for a client that lost its connection.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::error::Error;
use crate::explain::{Cancel, CancelReason, EventKind, Has, Record};
use crate::session::StreamLimits;
use crate::session::credit::Account;
use crate::session::progress::Counts;

#[derive(Debug)]
pub(super) struct Items {
    /// Those that have not had their last event.
    pub(super) in_flight: HashMap<Arc<str>, Entry>,
    /// Those that have, oldest first, on a stream that can be resumed.
    pub(super) kept: VecDeque<(Arc<str>, Arc<Record>, usize)>,
    pub(super) kept_bytes: usize,
    pub(super) account: Account,
    pub(super) counts: Counts,
    /// Takes no more items.
    pub(super) retiring: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) cancel: Cancel,
    pub(super) record: Arc<Record>,
    pub(super) code_bytes: usize,
}

impl Items {
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self {
            in_flight: HashMap::new(),
            kept: VecDeque::new(),
            kept_bytes: 0,
            account: Account::new(limits),
            counts: Counts::default(),
            retiring: false,
        }
    }

    /// Takes one in, in the place of the one that it `replaces`, if that is in flight.
    pub(super) fn add(
        &mut self,
        id: &Arc<str>,
        code_bytes: usize,
        replaces: &str,
        resumable: bool,
    ) -> Result<Entry, Error> {
        if self.retiring {
            return Err(Error::Retiring);
        }
        if self.in_flight.contains_key(id) {
            return Err(Error::DuplicateId(id.to_string()));
        }
        let replaced = self.in_flight.get(replaces).cloned();
        (self.account).spend(code_bytes, usize::from(replaced.is_some()))?;
        self.counts.received += 1;
        if let Some(replaced) = replaced {
            replaced.cancel.cancel(CancelReason::Superseded);
        }
        // Who uses an id again has had its last event.
        self.forget(id);
        let entry = Entry {
            cancel: Cancel::default(),
            record: Arc::new(Record::new(resumable)),
            code_bytes,
        };
        self.in_flight.insert(id.clone(), entry.clone());
        Ok(entry)
    }

    /// Keeps one that has ended, and of the others as many as there is room for beside it.
    pub(super) fn keep(&mut self, id: &Arc<str>, record: &Arc<Record>, most_bytes: usize) {
        let bytes = record.kept_bytes();
        if bytes > most_bytes {
            return;
        }
        self.kept_bytes += bytes;
        self.kept.push_back((id.clone(), record.clone(), bytes));
        while self.kept_bytes > most_bytes
            && let Some((_, _, bytes)) = self.kept.pop_front()
        {
            self.kept_bytes -= bytes;
        }
    }

    /// Keeps those alone of which the client says what it `has`, and gives them, to be gone on with from there.
    pub(super) fn still_wanted(
        &mut self,
        mut has: impl FnMut(&str) -> Option<Has>,
    ) -> Vec<(Arc<str>, Arc<Record>)> {
        let mut wanted = Vec::new();
        self.kept.retain(|(id, record, bytes)| {
            let has = has(id);
            match has {
                Some(has) => {
                    record.go_on_from(has);
                    wanted.push((id.clone(), record.clone()));
                }
                None => self.kept_bytes -= bytes,
            }
            has.is_some()
        });
        wanted
    }

    /// The client has these whole.
    pub(super) fn received(&mut self, ids: &[String]) {
        self.kept.retain(|(id, _, bytes)| {
            let has = ids.iter().any(|known| **known == **id);
            self.kept_bytes -= if has { *bytes } else { 0 };
            !has
        });
    }

    pub(super) fn end(&mut self, id: &Arc<str>, entry: &Entry, kind: &EventKind) {
        self.in_flight.remove(id);
        self.account.ended(entry.code_bytes);
        match kind {
            EventKind::Done(done) => {
                self.counts.done += 1;
                self.counts.generated_tokens += done.generated_tokens as u64;
            }
            EventKind::Failed(Error::Cancelled(_)) => self.counts.cancelled += 1,
            _ => self.counts.failed += 1,
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(at) = self.kept.iter().position(|(kept, _, _)| **kept == *id) {
            self.kept_bytes -= self.kept.remove(at).map_or(0, |(_, _, bytes)| bytes);
        }
    }
}
