//! What a client that speaks the protocol by itself knows of its items, and what has to be true of all that it hears.

use std::collections::BTreeMap;
use std::time::Duration;

use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{
    Done, ExplainRequest, FinishReason, GoAway, Have, ItemError, OnDeadline, Session,
};
use tokio::time::Instant;
use tonic::Code;

use crate::oracle::{Expected, expected};
use crate::trace::note;

/// What a client knows.
pub(crate) struct Account {
    name: String,
    in_order: bool,
    /// Items that the stream may have in flight.
    limit: u64,
    pub(crate) items: BTreeMap<String, Sent>,
    /// Items that may still be sent.
    pub(crate) credit: u64,
    /// The server takes no more on this stream.
    pub(crate) retired: bool,
    sent: u64,
}

/// An item that was sent.
pub(crate) struct Sent {
    pub(crate) request: ExplainRequest,
    wanted: Expected,
    /// In the order of the requests.
    number: u64,
    sent_at: Instant,
    accepted: bool,
    text: String,
    deltas: u64,
    pub(crate) ended: bool,
    /// Its client, or another item, has had it given up.
    pub(crate) given_up: bool,
    handed_back: bool,
    /// It was in flight when the stream was gone on with: its server may have answered it already.
    carried: bool,
}

/// What a client did not do well, so that its items may suffer from it.
#[derive(Clone, Copy)]
pub(crate) struct Conduct {
    /// It did not read for a time, or its line was held up.
    pub(crate) slow: bool,
    /// Its line has been as it should be since then.
    pub(crate) calm_since: Instant,
}

impl Account {
    pub(crate) fn new(name: &str, in_order: bool, limit: u64) -> Self {
        Self {
            name: name.to_owned(),
            in_order,
            limit,
            items: BTreeMap::new(),
            credit: 0,
            retired: false,
            sent: 0,
        }
    }

    /// An item is sent.
    pub(crate) fn sends(&mut self, request: ExplainRequest) {
        note!("{}: sends {}", self.name, request.id);
        self.credit = self.credit.checked_sub(1).expect("there was credit");
        self.sent += 1;
        let sent = Sent {
            wanted: expected(&request),
            number: self.sent,
            sent_at: Instant::now(),
            accepted: false,
            text: String::new(),
            deltas: 0,
            ended: false,
            given_up: false,
            handed_back: false,
            carried: false,
            request,
        };
        let before = self.items.insert(sent.request.id.clone(), sent);
        assert!(
            before.is_none_or(|item| item.ended),
            "the client's own mistake"
        );
    }

    /// Items that have not ended.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &String> {
        let unended = self.items.iter().filter(|(_, item)| !item.ended);
        unended.map(|(id, _)| id)
    }

    /// What it has of those.
    pub(crate) fn have(&self) -> Vec<Have> {
        let unended = self.items.iter().filter(|(_, item)| !item.ended);
        let have = |(id, item): (&String, &Sent)| Have {
            id: id.clone(),
            accepted: item.accepted,
            next_sequence: item.deltas,
        };
        unended.map(have).collect()
    }

    /// The stream is served. Gives the items that are to be sent again.
    pub(crate) fn opened(&mut self, session: &Session) -> Vec<ExplainRequest> {
        let credit = session.credit.unwrap_or_default();
        let unknown = &session.unknown;
        note!(
            "{}: opened, resumed {}, {unknown:?} unknown",
            self.name,
            session.resumed
        );
        (self.credit, self.retired) = (credit.items, false);
        let mut again = Vec::new();
        for id in unknown {
            let item = self.items.get_mut(id).expect("an item of its own");
            assert!(
                !item.ended,
                "{}: {id} has ended and is asked for",
                self.name
            );
            item.ended = true;
            again.push(item.request.clone());
        }
        for item in self.items.values_mut() {
            item.carried = true;
        }
        self.credit_holds();
        again
    }

    /// The stream is lost and cannot be gone on with.
    pub(crate) fn forget(&mut self) -> Vec<ExplainRequest> {
        let unended = self.items.values_mut().filter(|item| !item.ended);
        let again = unended.map(|item| {
            item.ended = true;
            item.request.clone()
        });
        again.collect()
    }

    fn credit_holds(&self) {
        let in_flight = self
            .items
            .values()
            .filter(|item| !item.ended && !item.carried);
        let known = self.credit + in_flight.count() as u64;
        // One that replaces another is there beside it for a moment.
        let replacing = (self.items.values())
            .filter(|item| !item.request.replaces.is_empty())
            .count() as u64;
        assert!(
            known <= self.limit + replacing,
            "{}: {known} items may be in flight, and not {}",
            self.name,
            self.limit
        );
    }

    /// Something is told.
    pub(crate) fn hears(&mut self, id: &str, event: Event, conduct: Conduct) {
        match event {
            Event::Session(_) => panic!("{}: opened twice", self.name),
            Event::Progress(told) => {
                let ended = told.done + told.failed + told.cancelled;
                note!("{}: {ended} have ended", self.name);
            }
            Event::Credit(credit) => {
                note!("{}: {} more", self.name, credit.items);
                self.credit += credit.items;
                self.credit_holds();
            }
            Event::GoAway(go_away) => self.goes_away(&go_away),
            event => self.hears_of(id, event, conduct),
        }
    }

    fn goes_away(&mut self, go_away: &GoAway) {
        note!(
            "{}: goes away, {:?} not started",
            self.name,
            go_away.not_started
        );
        assert!(!self.retired, "{}: it goes away twice", self.name);
        self.retired = true;
        for id in &go_away.not_started {
            let item = self.items.get_mut(id).expect("an item of its own");
            assert!(item.deltas == 0, "{}: {id} was begun", self.name);
            item.handed_back = true;
        }
    }

    fn hears_of(&mut self, id: &str, event: Event, conduct: Conduct) {
        let name = &self.name;
        let item = self.items.get(id);
        let item =
            item.unwrap_or_else(|| panic!("{name}: {event:?} of {id:?}, which was not sent"));
        if self.in_order {
            let earlier = self
                .items
                .iter()
                .find(|(_, other)| !other.ended && other.number < item.number);
            if let Some((other, _)) = earlier {
                panic!("{name}: {event:?} of {id} comes before the end of {other}");
            }
        }
        let item = self.items.get_mut(id).expect("it is there");
        assert!(!item.ended, "{name}: {id} goes on after its end: {event:?}");
        match event {
            Event::Accepted(accepted) => {
                note!("{name}: {id} accepted behind {}", accepted.queue_position);
                assert!(!item.accepted, "{name}: {id} is accepted twice");
                assert_eq!(accepted.prompt_tokens, item.wanted.prompt_tokens);
                item.accepted = true;
            }
            Event::Queued(queued) => {
                note!("{name}: {id} waits behind {}", queued.queue_position);
                assert!(
                    item.accepted && item.deltas == 0,
                    "{name}: {id} does not wait"
                );
            }
            Event::Delta(delta) => {
                note!("{name}: {id} says {} bytes", delta.text.len());
                assert!(item.accepted, "{name}: {id} was not accepted");
                assert!(
                    !item.handed_back,
                    "{name}: {id} was not started, and speaks"
                );
                assert_eq!(
                    delta.sequence, item.deltas,
                    "{name}: {id} has a gap or repeats"
                );
                item.deltas += 1;
                item.text.push_str(&delta.text);
                let wanted = &item.wanted.text;
                assert!(
                    wanted.starts_with(&item.text),
                    "{name}: {id} says {:?}, not {wanted:?}",
                    item.text
                );
            }
            Event::Done(done) => item.done(name, &done, conduct),
            Event::Error(error) => item.failed(name, &error, conduct),
            _ => unreachable!("events of the stream are told apart"),
        }
    }
}

impl Sent {
    fn done(&mut self, name: &str, done: &Done, conduct: Conduct) {
        let id = &self.request.id;
        note!("{name}: {id} is done: {:?}", done.finish_reason());
        self.ended = true;
        assert!(self.accepted && !self.handed_back, "{name}: {id}");
        let full = &done.full_text;
        assert!(
            full.is_empty() || *full == self.text,
            "{name}: {id} repeats {full:?}"
        );
        self.in_time(name, conduct);
        if done.finish_reason() == FinishReason::Deadline {
            let keeps = self.request.on_deadline == i32::from(OnDeadline::Keep);
            assert!(
                keeps && self.request.timeout.is_some(),
                "{name}: {id} had no deadline"
            );
            return;
        }
        let usage = done.usage.unwrap_or_default();
        assert_eq!(self.text, self.wanted.text, "{name}: {id}");
        assert_eq!(done.finish_reason(), self.wanted.reason, "{name}: {id}");
        assert_eq!(
            usage.generated_tokens, self.wanted.generated_tokens,
            "{name}: {id}"
        );
        assert_eq!(
            usage.prompt_tokens, self.wanted.prompt_tokens,
            "{name}: {id}"
        );
    }

    fn failed(&mut self, name: &str, error: &ItemError, conduct: Conduct) {
        let (id, message) = (&self.request.id, &error.message);
        note!("{name}: {id} failed: {message}");
        self.ended = true;
        if self.handed_back && !self.given_up {
            assert_eq!(
                error.code,
                Code::Unavailable as i32,
                "{name}: {id}: {message}"
            );
        }
        self.in_time(name, conduct);
        let may = match Code::from_i32(error.code) {
            Code::Cancelled => self.given_up,
            Code::DeadlineExceeded => self.request.timeout.is_some(),
            // It goes away, begins, or has given an engine up.
            Code::Unavailable => error.retryable,
            Code::ResourceExhausted => {
                let full = message.contains("queue is full");
                let slow = message.contains("was not read") && conduct.slow;
                let often = message.contains("for these credentials");
                full || slow || often || message.contains("out of memory")
            }
            Code::Internal => message.contains("the engine failed"),
            _ => false,
        };
        assert!(may, "{name}: {id} must not fail like this: {error:?}");
    }

    /// An item with a deadline ends by it, where nothing held up what it says.
    fn in_time(&self, name: &str, conduct: Conduct) {
        /// For the way to the server and back, and for a step of the clocks' ticks.
        const SLACK: Duration = Duration::from_millis(250);
        let (id, timeout) = (&self.request.id, self.request.timeout);
        let Some(timeout) = timeout.and_then(|t| Duration::try_from(t).ok()) else {
            return;
        };
        if conduct.slow || conduct.calm_since > self.sent_at {
            return;
        }
        let took = self.sent_at.elapsed();
        assert!(
            took <= timeout + SLACK,
            "{name}: {id} took {took:?} of {timeout:?}"
        );
    }
}
