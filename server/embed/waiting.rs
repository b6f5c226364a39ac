//! What waits for the model, and whose turn it is. Pure: no threads, and the time is an argument.
//!
//! Three lanes, each with room of its own, so that none can take another's. A lane goes before the ones below it, but not
//! for ever: one that was passed over [`PASSED`] times has the next batch.
//!
//! Within a lane, tenants take turns text by text: the one that will have been given fewest tokens with its next text goes
//! next ([`Ledger`]), so a newcomer's short texts are in the next batch, whatever another one has brought.
//! Where a lane has no room, the tenant that has most of it gives up what it brought last, as long as it still has more than
//! the newcomer would: so nobody can fill a lane against others, and alone it may have all of it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;

use code_explainer_scheduler::ledger::{Ledger, Weights};
use code_explainer_scheduler::waiting::Tenant;
use tokio::sync::oneshot;

use super::queue::{Failure, Vectors};

/// Padded tokens that the model is run over at once, at most: its largest intermediate tensors then stay below 100 MB.
const BATCH_TOKENS: usize = 4096;
/// The same for each core of a CPU. More make it no faster, and whoever comes waits for the batch that is being computed.
const CORE_TOKENS: usize = 256;
/// Texts that are so many times as long as the first of a batch, in tokens, wait for the next one: a short text would be
/// padded to their length, and its client would wait for as long as theirs.
const LONGER: usize = 2;
/// Below this length, in tokens, padding costs next to nothing.
const SHORT_TOKENS: usize = 32;
/// Look-ups of explanations that have room at once: one text of at most 4 KiB each.
const QUERY_TEXTS: usize = 256;
/// A lane that has texts waits for so many batches of the lanes above it, at most.
const PASSED: [usize; 3] = [0, 4, 16];

/// Who waits. A lane goes before the ones below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// An explanation that looks for what is known of its code; one text.
    Query,
    /// A client's `Embed`.
    Request,
    /// Documents and answers that are being stored; nobody waits.
    Background,
}

/// What the model is run over at once, at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) texts: usize,
    /// Padded.
    pub(super) tokens: usize,
}

impl BatchLimits {
    /// Of a model on a device, as [`EncoderInfo::device`](code_explainer_engine::EncoderInfo::device) names it.
    pub(super) fn new(texts: usize, device: &str) -> Self {
        let tokens = match device {
            "cpu" => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from);
                (CORE_TOKENS * cores).min(BATCH_TOKENS)
            }
            _ => BATCH_TOKENS,
        };
        Self { texts, tokens }
    }
}

/// One text that is to be computed.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) tokens: Vec<u32>,
    pub(super) request: u64,
    index: usize,
}

/// A request that has room: its texts are being looked up, wait, or are being computed.
struct Request {
    lane: Lane,
    tenant: Tenant,
    texts: usize,
    /// Those that wait, the shortest first: they are taken from the end, so that neighbours need little padding.
    pieces: Vec<Piece>,
    vectors: Vec<Vec<f32>>,
    /// Texts without a vector.
    left: usize,
    reply: oneshot::Sender<Vectors>,
}

struct LaneState {
    limit: usize,
    texts: usize,
    tenants: HashMap<Tenant, Share>,
    ledger: Ledger,
    /// Batches of lanes above, while this one had texts.
    passed: usize,
}

/// What a tenant has in a lane. It goes with its last request.
#[derive(Default)]
struct Share {
    texts: usize,
    /// In the order in which they came.
    requests: Vec<u64>,
    /// Those that have pieces.
    ready: VecDeque<u64>,
}

/// Requests with room, by lane and tenant.
pub(super) struct Waiting {
    lanes: [LaneState; 3],
    requests: HashMap<u64, Request>,
    next: u64,
}

/// A lane has no room, and nobody has more of it than who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Waiting {
    /// With room for so many texts of clients' `Embed`. The background's room is its caller's to bound.
    pub(super) fn new(limit: usize) -> Self {
        let lane = |limit| LaneState {
            limit,
            texts: 0,
            tenants: HashMap::new(),
            ledger: Ledger::new(Weights::default()),
            passed: 0,
        };
        Self {
            lanes: [QUERY_TEXTS, limit, usize::MAX].map(lane),
            requests: HashMap::new(),
            next: 0,
        }
    }

    /// Texts that have room.
    pub(super) fn texts(&self) -> usize {
        self.lanes.iter().map(|lane| lane.texts).sum()
    }

    /// Texts that are ready to be computed.
    pub(super) fn queued(&self) -> usize {
        let requests = self.requests.values();
        requests.map(|request| request.pieces.len()).sum()
    }

    /// Room for a request. Others may have to give theirs up: they are told [`Failure::Displaced`].
    pub(super) fn enter(
        &mut self,
        lane: Lane,
        tenant: &Tenant,
        texts: usize,
    ) -> Result<(u64, oneshot::Receiver<Vectors>), Full> {
        let displaced = self.lanes[lane as usize].displaced_by(tenant, texts, &self.requests)?;
        for id in displaced {
            self.end(id, Err(Failure::Displaced));
        }
        let state = &mut self.lanes[lane as usize];
        let id = self.next;
        self.next += 1;
        state.texts += texts;
        let share = state.tenants.entry(tenant.clone()).or_default();
        share.texts += texts;
        share.requests.push(id);
        let (reply, vectors) = oneshot::channel();
        let request = Request {
            lane,
            tenant: tenant.clone(),
            texts,
            pieces: Vec::new(),
            vectors: Vec::new(),
            left: 0,
            reply,
        };
        self.requests.insert(id, request);
        Ok((id, vectors))
    }

    /// Whether a request still has room.
    pub(super) fn has(&self, id: u64) -> bool {
        self.requests.contains_key(&id)
    }

    /// What is to be computed of a request, at least one text; for the others it needs no room any more.
    pub(super) fn fill(&mut self, id: u64, texts: Vec<Vec<u32>>, now: Instant) {
        // It has given its room up meanwhile, and was told so.
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let lane = &mut self.lanes[request.lane as usize];
        let Some(share) = lane.tenants.get_mut(&request.tenant) else {
            return;
        };
        let spare = request.texts - texts.len().min(request.texts);
        request.texts -= spare;
        share.texts -= spare;
        lane.texts -= spare;
        request.left = texts.len();
        request.vectors = vec![Vec::new(); texts.len()];
        let pieces = texts.into_iter().enumerate();
        let pieces = pieces.map(|(index, tokens)| Piece {
            tokens,
            request: id,
            index,
        });
        request.pieces = pieces.collect();
        request.pieces.sort_by_key(|piece| piece.tokens.len());
        if share.ready.is_empty() {
            lane.ledger.join(&request.tenant, now);
        }
        share.ready.push_back(id);
    }

    /// The next batch, of one lane; empty where nothing waits.
    pub(super) fn take(&mut self, most: BatchLimits, now: Instant) -> Vec<Piece> {
        let ready: Vec<usize> = (0..self.lanes.len())
            .filter(|&lane| self.lanes[lane].is_ready())
            .collect();
        let overdue = |&&lane: &&usize| lane > 0 && self.lanes[lane].passed >= PASSED[lane];
        let Some(&chosen) = ready.iter().find(overdue).or(ready.first()) else {
            return Vec::new();
        };
        for lane in ready.into_iter().filter(|&lane| lane > chosen) {
            self.lanes[lane].passed += 1;
        }
        let lane = &mut self.lanes[chosen];
        lane.passed = 0;
        lane.take(most, &mut self.requests, now)
    }

    /// A text has its vector; with the last one its request is answered.
    pub(super) fn done(&mut self, piece: &Piece, vector: Vec<f32>) {
        let Some(request) = self.requests.get_mut(&piece.request) else {
            return;
        };
        request.vectors[piece.index] = vector;
        request.left -= 1;
        if request.left == 0 {
            let vectors = std::mem::take(&mut request.vectors);
            self.end(piece.request, Ok(vectors));
        }
    }

    /// A request is over: what waits of it is taken out, its room is free, and who still listens is told.
    pub(super) fn end(&mut self, id: u64, vectors: Vectors) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let lane = &mut self.lanes[request.lane as usize];
        lane.texts -= request.texts;
        if let Some(share) = lane.tenants.get_mut(&request.tenant) {
            share.texts -= request.texts;
            share.requests.retain(|&other| other != id);
            share.ready.retain(|&other| other != id);
            if share.requests.is_empty() {
                lane.tenants.remove(&request.tenant);
            }
        }
        // Who has gone need not be told.
        let _ = request.reply.send(vectors);
    }

    /// Everything that waits gets no answer.
    pub(super) fn close(&mut self) {
        let all: Vec<u64> = self.requests.keys().copied().collect();
        for id in all {
            self.end(id, Err(Failure::Closed));
        }
    }
}

impl LaneState {
    fn is_ready(&self) -> bool {
        self.tenants.values().any(|share| !share.ready.is_empty())
    }

    /// The requests that make room for so many more texts of a tenant: the newest of whoever has most, as long as that is
    /// more than the tenant would have.
    fn displaced_by(
        &self,
        tenant: &Tenant,
        texts: usize,
        requests: &HashMap<u64, Request>,
    ) -> Result<Vec<u64>, Full> {
        let mut displaced = Vec::new();
        let mut free = self.limit - self.texts.min(self.limit);
        if texts <= free {
            return Ok(displaced);
        }
        let own = self.tenants.get(tenant).map_or(0, |share| share.texts);
        let others = self.tenants.iter().filter(|(other, _)| *other != tenant);
        let mut others: BinaryHeap<(usize, usize, &Tenant)> = others
            .map(|(other, share)| (share.texts, share.requests.len(), other))
            .collect();
        while texts > free {
            let (most, count, other) = others.pop().ok_or(Full)?;
            if most <= own + texts || count == 0 {
                return Err(Full);
            }
            let newest = self.tenants[other].requests[count - 1];
            let given = requests.get(&newest).map_or(0, |request| request.texts);
            free += given;
            displaced.push(newest);
            others.push((most - given, count - 1, other));
        }
        Ok(displaced)
    }

    /// Text by text from the tenant whose turn it is, as many as fit a batch when they are padded to the longest of them,
    /// up to one that is much longer than the first.
    fn take(
        &mut self,
        most: BatchLimits,
        requests: &mut HashMap<u64, Request>,
        now: Instant,
    ) -> Vec<Piece> {
        // By what each will have been served with its next text, and not before it: who has just come was served as much as
        // who is there, and should not wait for a long text of another's with a short one.
        let turn = |ledger: &Ledger, tenant: &Tenant, first: u64, next: usize| {
            let served = ledger.served(tenant) + next as f64 / ledger.weight(tenant);
            // Never negative, so the bits are in the order of the numbers.
            Reverse((served.to_bits(), next, first, tenant.clone()))
        };
        let length = |requests: &HashMap<u64, Request>, id: u64| {
            let next = requests.get(&id).and_then(|request| request.pieces.last());
            next.map_or(0, |piece| piece.tokens.len())
        };
        let ready = self.tenants.iter().filter_map(|(tenant, share)| {
            let first = *share.ready.front()?;
            Some(turn(&self.ledger, tenant, first, length(requests, first)))
        });
        let mut turns: BinaryHeap<_> = ready.collect();
        let (mut batch, mut longest): (Vec<Piece>, usize) = (Vec::new(), 0);
        while batch.len() < most.texts
            && let Some(Reverse((_, next, first, tenant))) = turns.pop()
        {
            let request = requests.get_mut(&first);
            let share = self.tenants.get_mut(&tenant);
            let (Some(request), Some(share)) = (request, share) else {
                break;
            };
            let padded = longest.max(next) * (batch.len() + 1);
            let longer = (batch.first())
                .is_some_and(|piece| next > (LONGER * piece.tokens.len()).max(SHORT_TOKENS));
            if longer || !batch.is_empty() && padded > most.tokens {
                break;
            }
            longest = longest.max(next);
            batch.extend(request.pieces.pop());
            if request.pieces.is_empty() {
                share.ready.pop_front();
            }
            self.ledger.charge(&tenant, next, now);
            if let Some(&first) = share.ready.front() {
                let next = length(requests, first);
                turns.push(turn(&self.ledger, &tenant, first, next));
            }
        }
        let there = self.tenants.iter();
        let there = there.filter_map(|(tenant, share)| (!share.ready.is_empty()).then_some(tenant));
        self.ledger.settle(there);
        batch
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
