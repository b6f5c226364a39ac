//! What a stream may have in flight, and what its client has been told of it.

use crate::error::Error;
use crate::explain::Credit;

/// What a stream may have in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Items.
    pub items: usize,
    /// Bytes of code in sum; at least that of the largest snippet.
    pub code_bytes: usize,
}

/// A client's account. What it spends on an item comes back when the item has ended, in grants that are collected until
/// they are worth an event: a quarter of the limit, or all that there is.
#[derive(Debug)]
pub(super) struct Account {
    limits: StreamLimits,
    items: usize,
    code_bytes: usize,
    /// Ended and not granted yet.
    pending: Credit,
}

impl Account {
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            items: 0,
            code_bytes: 0,
            pending: Credit::default(),
        }
    }

    /// Takes an item in, beside `leaving` that it takes the place of.
    pub(super) fn spend(&mut self, code_bytes: usize, leaving: usize) -> Result<(), Error> {
        let StreamLimits {
            items: limit,
            code_bytes: most,
        } = self.limits;
        if self.items >= limit + leaving {
            return Err(Error::StreamFull { limit });
        }
        if self.code_bytes + code_bytes > most {
            return Err(Error::StreamBytesFull { limit: most });
        }
        self.items += 1;
        self.code_bytes += code_bytes;
        Ok(())
    }

    /// An item has ended.
    pub(super) fn ended(&mut self, code_bytes: usize) {
        self.items -= 1;
        self.code_bytes -= code_bytes;
        self.refused(code_bytes);
    }

    /// An item has cost the client, and was not taken in.
    pub(super) fn refused(&mut self, code_bytes: usize) {
        self.pending.items += 1;
        self.pending.code_bytes += code_bytes;
    }

    /// What to grant now.
    pub(super) fn grant(&mut self) -> Option<Credit> {
        let Credit { items, code_bytes } = self.pending;
        let enough = self.items == 0
            || items * 4 >= self.limits.items
            || code_bytes * 4 >= self.limits.code_bytes;
        (items > 0 && enough).then(|| std::mem::take(&mut self.pending))
    }

    /// All that is free, for a client that begins to count.
    pub(super) fn free(&mut self) -> Credit {
        self.pending = Credit::default();
        Credit {
            items: self.limits.items.saturating_sub(self.items),
            code_bytes: self.limits.code_bytes.saturating_sub(self.code_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_and_no_more() {
        let limits = StreamLimits {
            items: 4,
            code_bytes: 100,
        };
        let mut account = Account::new(limits);
        let mut has = account.free();
        for bytes in [10, 20, 60] {
            account.spend(bytes, 0).expect("there is credit");
            has.items -= 1;
            has.code_bytes -= bytes;
        }
        assert_eq!(
            account.spend(11, 0),
            Err(Error::StreamBytesFull { limit: 100 })
        );
        account.spend(10, 0).expect("there is credit");
        has.items -= 1;
        has.code_bytes -= 10;
        assert_eq!(account.spend(0, 0), Err(Error::StreamFull { limit: 4 }));
        assert_eq!(account.spend(0, 1), Ok(()), "it takes another's place");
        account.ended(0);
        for bytes in [60, 20, 10, 10] {
            account.ended(bytes);
            if let Some(grant) = account.grant() {
                has.items += grant.items;
                has.code_bytes += grant.code_bytes;
            }
        }
        assert_eq!(
            (has.items, has.code_bytes),
            (5, 100),
            "one replaced another"
        );
        assert_eq!(account.grant(), None);
    }
}
