//! Items that have ended and are kept for a client that lost its connection: found by id in constant time, forgotten in
//! the order in which they ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::explain::{Has, Record};
use crate::request::MAX_ID_BYTES;

/// Those that are kept of a stream, no more than there are bytes for.
#[derive(Debug, Default)]
pub(super) struct Kept {
    by_id: HashMap<Arc<str>, Ended>,
    /// The ids by when they ended.
    order: BTreeMap<u64, Arc<str>>,
    bytes: usize,
    /// How many have ended.
    ended: u64,
}

#[derive(Debug)]
struct Ended {
    record: Arc<Record>,
    bytes: usize,
    /// Its place in the order.
    place: u64,
}

/// Answers that are kept no longer. To be dropped where nobody waits for it.
#[must_use = "freeing answers takes time: not under a lock"]
#[derive(Debug, Default)]
pub(super) struct Forgotten(Vec<Arc<Record>>);

/// An item that ended and is still wanted, by its id.
pub(super) type Wanted = (Arc<str>, Arc<Record>);

impl Kept {
    /// Keeps one of so many bytes, and of the others as many as there is room for beside it: the oldest go first.
    pub(super) fn keep(
        &mut self,
        id: &Arc<str>,
        record: &Arc<Record>,
        bytes: usize,
        most_bytes: usize,
    ) -> Forgotten {
        let mut forgotten = self.forget(id);
        if bytes > most_bytes {
            return forgotten;
        }
        let place = self.ended;
        self.ended += 1;
        self.bytes += bytes;
        self.order.insert(place, id.clone());
        let ended = Ended {
            record: record.clone(),
            bytes,
            place,
        };
        self.by_id.insert(id.clone(), ended);
        while self.bytes > most_bytes
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = oldest.clone();
            forgotten.0.extend(self.take(&oldest));
        }
        forgotten
    }

    /// Forgets one, if it is there.
    pub(super) fn forget(&mut self, id: &str) -> Forgotten {
        Forgotten(self.take(id).into_iter().collect())
    }

    /// The client has these whole. What cannot be the id of an item is not looked for.
    pub(super) fn received(&mut self, ids: &[String]) -> Forgotten {
        let ids = ids
            .iter()
            .filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
        Forgotten(ids.filter_map(|id| self.take(id)).collect())
    }

    /// Keeps those alone of which the client says what it `has`, and gives them in their order, to be gone on with from
    /// there.
    pub(super) fn still_wanted(
        &mut self,
        mut has: impl FnMut(&str) -> Option<Has>,
    ) -> (Vec<Wanted>, Forgotten) {
        let (mut wanted, mut forgotten) = (Vec::new(), Forgotten::default());
        let ids: Vec<Arc<str>> = self.order.values().cloned().collect();
        for id in ids {
            match has(&id) {
                Some(has) => {
                    if let Some(ended) = self.by_id.get(&id) {
                        ended.record.go_on_from(has);
                        wanted.push((id, ended.record.clone()));
                    }
                }
                None => forgotten.0.extend(self.take(&id)),
            }
        }
        (wanted, forgotten)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Keeps nothing any more.
    pub(super) fn clear(&mut self) -> Forgotten {
        let all = std::mem::take(self);
        Forgotten(all.by_id.into_values().map(|ended| ended.record).collect())
    }

    fn take(&mut self, id: &str) -> Option<Arc<Record>> {
        let ended = self.by_id.remove(id)?;
        self.order.remove(&ended.place);
        self.bytes -= ended.bytes;
        Some(ended.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a stream remembers them, by id, with this many bytes each.
    fn kept(ids: &[&str], bytes: usize, most: usize) -> Kept {
        let mut kept = Kept::default();
        for id in ids {
            let id: Arc<str> = (*id).into();
            drop(kept.keep(&id, &Arc::new(Record::new(true)), bytes, most));
        }
        kept
    }

    fn ids(kept: &Kept) -> Vec<&str> {
        kept.order.values().map(|id| &**id).collect()
    }

    #[test]
    fn the_oldest_make_room_and_an_id_is_kept_once() {
        let mut some = kept(&["a", "b", "c", "d"], 10, 30);
        assert_eq!(ids(&some), ["b", "c", "d"]);
        drop(some.keep(&"b".into(), &Arc::new(Record::new(true)), 10, 30));
        assert_eq!(ids(&some), ["c", "d", "b"]);
        assert_eq!((some.bytes, some.by_id.len()), (30, 3));
        drop(some.keep(&"e".into(), &Arc::new(Record::new(true)), 31, 30));
        assert_eq!(ids(&some), ["c", "d", "b"], "what is too large is not kept");
    }

    #[test]
    fn what_is_received_and_what_is_not_wanted_is_forgotten() {
        let mut some = kept(&["a", "b", "c", "d"], 10, 100);
        let long = "x".repeat(MAX_ID_BYTES + 1);
        let received = ["", "c", "c", "unknown", &long].map(str::to_owned);
        assert_eq!(some.received(&received).0.len(), 1);
        assert_eq!(ids(&some), ["a", "b", "d"]);
        let (wanted, forgotten) = some.still_wanted(|id| (id != "b").then(Has::default));
        let wanted: Vec<_> = wanted.iter().map(|(id, _)| &**id).collect();
        assert_eq!((&wanted[..], forgotten.0.len()), (&["a", "d"][..], 1));
        assert_eq!(some.bytes, 20);
        assert_eq!(some.clear().0.len(), 2);
        assert_eq!((some.bytes, ids(&some).len()), (0, 0));
    }

    /// Looking through all that is kept for each id would make three thousand million comparisons of this.
    #[test]
    fn a_list_of_ids_costs_what_its_length_is_and_not_what_is_kept() {
        let names: Vec<String> = (0..1900).map(|n| format!("item-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut many = kept(&names, 1, 1 << 20);
        let unknown: Vec<String> = (0..8192).map(|n| format!("item_{n}")).collect();
        let began = cpu_time();
        for _ in 0..200 {
            assert!(many.received(&unknown).0.is_empty());
        }
        let spent = cpu_time() - began;
        assert!(spent.as_secs() < 4, "{spent:?} for 1.6 million look-ups");
        assert_eq!(many.by_id.len(), 1900);
    }

    /// What this thread has computed, in the hundredths of a second that Linux counts.
    fn cpu_time() -> std::time::Duration {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("of Linux");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
        let fields = fields.split_whitespace().skip(11).take(2);
        let hundredths: u64 = fields.map(|n| n.parse::<u64>().expect("a number")).sum();
        std::time::Duration::from_millis(hundredths * 10)
    }
}
