//! What a stream may still be sent, by what its server says of it.

use crate::proto;

/// Items, and bytes of their code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) items: i64,
    pub(crate) code_bytes: i64,
}

/// A stream's credit. An item costs one and its code's bytes; the server grants them again after the item's last event.
#[derive(Debug)]
pub(crate) struct Credit {
    /// `None`: without bound.
    left: Option<Amount>,
    /// Since the stream was opened.
    spent: Amount,
    told: bool,
}

impl Credit {
    /// Of a stream whose server has not said anything yet.
    pub(crate) fn assumed(amount: Amount) -> Self {
        Self {
            left: Some(amount),
            spent: Amount::default(),
            told: false,
        }
    }

    /// Whether there is enough for an item.
    pub(crate) fn covers(&self, code_bytes: usize) -> bool {
        self.left
            .is_none_or(|left| left.items >= 1 && left.code_bytes >= whole(code_bytes as u64))
    }

    /// An item is sent.
    pub(crate) fn spend(&mut self, code_bytes: usize) {
        let cost = Amount {
            items: 1,
            code_bytes: whole(code_bytes as u64),
        };
        self.spent = self.spent.plus(cost);
        self.left = self.left.map(|left| left.less(cost));
    }

    /// The stream's terms, as they were before anything was sent on it. `None`: it has no credit.
    pub(crate) fn told(&mut self, terms: Option<proto::Credit>) {
        self.told = true;
        self.left = terms.map(|terms| Amount::from(terms).less(self.spent));
    }

    /// More of it.
    pub(crate) fn comes(&mut self, more: proto::Credit) {
        self.left = self.left.map(|left| left.plus(more.into()));
    }

    /// The server speaks of items and has not told its terms: it knows none.
    pub(crate) fn is_unknown_there(&mut self) {
        if !self.told {
            self.told(None);
        }
    }
}

impl Amount {
    fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            code_bytes: self.code_bytes.saturating_add(other.code_bytes),
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_sub(other.items),
            code_bytes: self.code_bytes.saturating_sub(other.code_bytes),
        }
    }
}

impl From<proto::Credit> for Amount {
    fn from(credit: proto::Credit) -> Self {
        Self {
            items: whole(credit.items),
            code_bytes: whole(credit.code_bytes),
        }
    }
}

fn whole(count: u64) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(items: u64, code_bytes: u64) -> proto::Credit {
        proto::Credit { items, code_bytes }
    }

    #[test]
    fn what_was_sent_before_the_terms_came_counts() {
        let mut credit = Credit::assumed(Amount {
            items: 2,
            code_bytes: 10,
        });
        assert!(credit.covers(10) && !credit.covers(11));
        credit.spend(10);
        assert!(!credit.covers(1), "no bytes are left");
        credit.told(Some(granted(2, 15)));
        assert!(credit.covers(5) && !credit.covers(6));
        credit.spend(5);
        assert!(!credit.covers(0), "no items are left");
        credit.comes(granted(1, 10));
        assert!(credit.covers(10) && !credit.covers(11));
    }

    #[test]
    fn a_server_that_tells_no_terms_has_none() {
        let mut credit = Credit::assumed(Amount::default());
        assert!(!credit.covers(0));
        credit.is_unknown_there();
        credit.comes(granted(1, 1));
        credit.spend(usize::MAX);
        assert!(credit.covers(usize::MAX));
    }

    #[test]
    fn terms_are_not_forgotten() {
        let mut credit = Credit::assumed(Amount::default());
        credit.told(Some(granted(1, 1)));
        credit.is_unknown_there();
        assert!(credit.covers(1) && !credit.covers(2));
    }
}
