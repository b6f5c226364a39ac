//! Texts that wait for the model: bounded, in three lanes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::Error;

/// Padded tokens that the model is run over at once, at most: its largest intermediate tensors then stay below 100 MB.
const BATCH_TOKENS: usize = 4096;
/// Texts of the background that wait at most; then who brings more waits.
const BACKGROUND_TEXTS: usize = 256;
/// How much the newest batch counts in the measured time of a text.
const NEWEST: f64 = 0.2;
/// Before anything was measured.
const TEXT_SECONDS: f64 = 0.01;

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

/// Why texts have no vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    OutOfMemory,
    Engine,
    /// The server is going down.
    Closed,
}

pub(super) type Vectors = Result<Vec<Vec<f32>>, Failure>;

/// One text of a request.
pub(super) struct Piece {
    pub(super) tokens: Vec<u32>,
    index: usize,
    request: Arc<Pending>,
}

/// A request whose texts are on their way.
struct Pending {
    state: Mutex<PendingState>,
}

struct PendingState {
    vectors: Vec<Vec<f32>>,
    left: usize,
    reply: Option<oneshot::Sender<Vectors>>,
    /// Its part of the queue's bound; given back with the reply.
    room: Option<OwnedSemaphorePermit>,
}

impl Piece {
    /// Nobody waits for it any more.
    fn is_cancelled(&self) -> bool {
        self.request
            .lock()
            .reply
            .as_ref()
            .is_none_or(oneshot::Sender::is_closed)
    }

    pub(super) fn done(self, vector: Vec<f32>) {
        let mut state = self.request.lock();
        state.vectors[self.index] = vector;
        state.left -= 1;
        if state.left == 0 {
            let vectors = std::mem::take(&mut state.vectors);
            state.reply(Ok(vectors));
        }
    }

    pub(super) fn failed(self, failure: Failure) {
        self.request.lock().reply(Err(failure));
    }
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, PendingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingState {
    /// Once; what comes later of a request that failed is of no use.
    fn reply(&mut self, vectors: Vectors) {
        self.room = None;
        if let Some(reply) = self.reply.take() {
            // Who has gone need not be told.
            let _ = reply.send(vectors);
        }
    }
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    work: Condvar,
    limit: usize,
    room: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

struct Waiting {
    lanes: [VecDeque<Piece>; 3],
    closed: bool,
    /// Measured.
    text_seconds: f64,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                lanes: Default::default(),
                closed: false,
                text_seconds: TEXT_SECONDS,
            }),
            work: Condvar::new(),
            limit,
            room: Arc::new(Semaphore::new(limit)),
            background: Arc::new(Semaphore::new(BACKGROUND_TEXTS)),
        }
    }

    /// Texts that wait or are being computed.
    pub(super) fn texts(&self) -> usize {
        let taken = self.limit - self.room.available_permits();
        taken + BACKGROUND_TEXTS - self.background.available_permits()
    }

    /// Puts texts into a lane. They are computed longest first, so that neighbours need little padding.
    pub(super) async fn push(
        &self,
        lane: Lane,
        texts: Vec<Vec<u32>>,
    ) -> Result<oneshot::Receiver<Vectors>, Error> {
        let count = texts.len() as u32;
        let room = match lane {
            Lane::Query | Lane::Request => {
                let room = self.room.clone().try_acquire_many_owned(count);
                room.map_err(|_| self.full())?
            }
            Lane::Background => {
                let room = self.background.clone();
                let room = room
                    .acquire_many_owned(count.min(BACKGROUND_TEXTS as u32))
                    .await;
                room.map_err(|_| Error::ShuttingDown)?
            }
        };
        let (reply, vectors) = oneshot::channel();
        let request = Arc::new(Pending {
            state: Mutex::new(PendingState {
                vectors: vec![Vec::new(); texts.len()],
                left: texts.len(),
                reply: Some(reply),
                room: Some(room),
            }),
        });
        let mut pieces: Vec<Piece> = texts
            .into_iter()
            .enumerate()
            .map(|(index, tokens)| Piece {
                tokens,
                index,
                request: request.clone(),
            })
            .collect();
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.tokens.len()));
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::ShuttingDown);
        }
        waiting.lanes[lane as usize].extend(pieces);
        self.work.notify_one();
        Ok(vectors)
    }

    fn full(&self) -> Error {
        let seconds = self.lock().text_seconds * self.limit as f64 / 2.0;
        Error::QueueFull {
            unit: "texts",
            limit: self.limit,
            retry: Duration::from_secs_f64(seconds.clamp(0.05, 30.0)),
        }
    }

    /// The next batch, of one lane; waits for it. `None` when the queue is closed.
    pub(super) fn next(&self, most_texts: usize) -> Option<Vec<Piece>> {
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let lanes = waiting.lanes.iter_mut();
            let batch = lanes
                .map(|lane| take(lane, most_texts))
                .find(|batch| !batch.is_empty());
            if batch.is_some() {
                return batch;
            }
            waiting = self
                .work
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A batch took so long.
    pub(super) fn measured(&self, texts: usize, time: Duration) {
        let mut waiting = self.lock();
        let one = time.as_secs_f64() / texts.max(1) as f64;
        waiting.text_seconds += NEWEST * (one - waiting.text_seconds);
    }

    /// What waits gets no answer, and nothing more is taken.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        for lane in &mut waiting.lanes {
            lane.drain(..)
                .for_each(|piece| piece.failed(Failure::Closed));
        }
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From the front of a lane, as many as fit a batch when they are padded to the longest of them.
fn take(lane: &mut VecDeque<Piece>, most_texts: usize) -> Vec<Piece> {
    let (mut batch, mut longest) = (Vec::new(), 0);
    while let Some(piece) = lane.pop_front() {
        if piece.is_cancelled() {
            continue;
        }
        longest = longest.max(piece.tokens.len());
        let fits = batch.len() < most_texts && longest * (batch.len() + 1) <= BATCH_TOKENS;
        if !batch.is_empty() && !fits {
            lane.push_front(piece);
            break;
        }
        batch.push(piece);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tokens: usize) -> Vec<u32> {
        vec![1; tokens]
    }

    fn lengths(batch: &[Piece]) -> Vec<usize> {
        batch.iter().map(|piece| piece.tokens.len()).collect()
    }

    #[tokio::test]
    async fn lanes_go_in_their_order_and_batches_are_of_one_lane() {
        let queue = Queue::new(100);
        let mut kept = Vec::new();
        for (lane, tokens) in [(Lane::Background, 3), (Lane::Request, 2), (Lane::Query, 1)] {
            kept.push(queue.push(lane, vec![text(tokens)]).await.expect("room"));
        }
        for expected in 1..=3 {
            assert_eq!(lengths(&queue.next(8).expect("a batch")), [expected]);
        }
    }

    #[tokio::test]
    async fn a_batch_is_bounded_by_texts_and_by_padded_tokens() {
        let queue = Queue::new(100);
        let texts = [10, 2000, 2048, 5].map(text).into();
        let _kept = queue.push(Lane::Request, texts).await.expect("room");
        assert_eq!(lengths(&queue.next(8).expect("a batch")), [2048, 2000]);
        assert_eq!(lengths(&queue.next(1).expect("a batch")), [10]);
        assert_eq!(lengths(&queue.next(1).expect("a batch")), [5]);
    }

    #[tokio::test]
    async fn the_bound_is_told_with_a_time_and_room_comes_back() {
        let queue = Queue::new(3);
        let first = queue
            .push(Lane::Request, vec![text(1); 2])
            .await
            .expect("room");
        let refused = queue
            .push(Lane::Query, vec![text(1); 2])
            .await
            .expect_err("full");
        assert!(matches!(refused, Error::QueueFull { limit: 3, .. }));
        assert!(refused.retry_after() > Some(Duration::ZERO));
        for piece in queue.next(8).expect("a batch") {
            piece.done(vec![1.0]);
        }
        assert_eq!(first.await.expect("a reply"), Ok(vec![vec![1.0]; 2]));
        assert_eq!(queue.texts(), 0);
        queue
            .push(Lane::Request, vec![text(1); 3])
            .await
            .expect("room again");
    }

    #[tokio::test]
    async fn who_has_gone_is_not_computed_for() {
        let queue = Queue::new(10);
        drop(
            queue
                .push(Lane::Request, vec![text(7)])
                .await
                .expect("room"),
        );
        let _kept = queue
            .push(Lane::Request, vec![text(2)])
            .await
            .expect("room");
        let batch = queue.next(8).expect("a batch");
        assert_eq!(lengths(&batch), [2]);
        assert_eq!(queue.texts(), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_answers_what_waits() {
        let queue = Queue::new(10);
        let waits = queue
            .push(Lane::Request, vec![text(1)])
            .await
            .expect("room");
        queue.close();
        assert_eq!(waits.await.expect("a reply"), Err(Failure::Closed));
        assert!(queue.next(8).is_none());
        let refused = queue.push(Lane::Request, vec![text(1)]).await;
        assert_eq!(refused.expect_err("closed"), Error::ShuttingDown);
    }
}
