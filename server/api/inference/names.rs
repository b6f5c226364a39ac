//! What a stream's clients call their requests. The protocol lets two have the same id, or none; the server's own stream
//! needs one for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::request::MAX_ID_BYTES;

/// The requests of a stream that have not had their last response: as many as the stream may have in flight, and the
/// refusals that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Arc<str>, Called>,
    /// Makes names that are not taken.
    next: u64,
}

/// How a client is told of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Called {
    /// The id that it gave.
    pub(super) id: Arc<str>,
    /// The last response is to have no output.
    pub(super) empty_final: bool,
    /// To be told with the last response, if it was asked for.
    pub(super) prompt: Option<String>,
}

impl Names {
    /// A name that no other request of the stream has: its own id, where that is free.
    pub(super) fn take(&self, id: &str, empty_final: bool) -> Arc<str> {
        let id: Arc<str> = id[..id.floor_char_boundary(MAX_ID_BYTES)].into();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = id.clone();
        while name.is_empty() || table.known.contains_key(&name) {
            table.next += 1;
            let number = format!("#{}", table.next);
            let room = MAX_ID_BYTES - number.len();
            name = (id[..id.floor_char_boundary(room)].to_owned() + &number).into();
        }
        let called = Called {
            id,
            empty_final,
            prompt: None,
        };
        table.known.insert(name.clone(), called);
        name
    }

    /// Remembers the prompt of a request.
    pub(super) fn keep_prompt(&self, name: &str, prompt: String) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(called) = table.known.get_mut(name) {
            called.prompt = Some(prompt);
        }
    }

    /// How the client is told of a request.
    pub(super) fn called(&self, name: &str) -> Option<Called> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.known.get(name).cloned()
    }

    /// The same for the last time: the name is free again.
    pub(super) fn last(&self, name: &str) -> Option<Called> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.known.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_name_of_its_own_and_is_told_by_its_clients_id() {
        let names = Names::default();
        let taken = ["a", "a", "", "", "a#1"].map(|id| (id, names.take(id, id.is_empty())));
        assert_eq!(&*taken[0].1, "a", "its own, where it is free");
        for (place, (id, name)) in taken.iter().enumerate() {
            assert!(!name.is_empty() && taken[..place].iter().all(|(_, other)| other != name));
            assert_eq!(&*names.called(name).expect("known").id, *id);
        }
        assert_eq!(&*names.last("a").expect("known").id, "a");
        assert_eq!(names.called("a"), None);
        assert_eq!(&*names.take("a", false), "a", "free again");
    }

    #[test]
    fn names_are_as_short_as_ids_must_be() {
        let (names, long) = (Names::default(), "é".repeat(MAX_ID_BYTES));
        for _ in 0..3 {
            assert!(names.take(&long, false).len() <= MAX_ID_BYTES);
        }
    }
}
