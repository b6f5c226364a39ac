//! A stream's items: those in flight, and with them those that have ended and are kept.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Error;
use crate::explain::{Cancel, CancelReason, EventKind, Record};
use crate::session::StreamLimits;
use crate::session::credit::Account;
use crate::session::kept::Kept;
use crate::session::progress::Counts;

#[derive(Debug)]
pub(super) struct Items {
    /// Those that have not had their last event.
    pub(super) in_flight: HashMap<Arc<str>, Entry>,
    /// Those that have, on a stream that can be resumed.
    pub(super) kept: Kept,
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
            kept: Kept::default(),
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
        drop(self.kept.forget(id));
        let entry = Entry {
            cancel: Cancel::default(),
            record: Arc::new(Record::new(resumable)),
            code_bytes,
        };
        self.in_flight.insert(id.clone(), entry.clone());
        Ok(entry)
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
}
