//! The way of texts to the model's thread and of vectors back.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use code_explainer_scheduler::waiting::Tenant;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use super::waiting::Lane;
use super::waiting::{BatchLimits, Piece, Waiting};
use crate::error::Error;

/// Texts of the background that wait at most; then who brings more waits.
const BACKGROUND_TEXTS: usize = 256;
/// How much the newest batch counts in the measured time of a text.
const NEWEST: f64 = 0.2;
/// Before anything was measured.
const TEXT_SECONDS: f64 = 0.01;

/// Why texts have no vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    OutOfMemory,
    Engine,
    /// Its tenant had most of a full queue, and this was the newest of it.
    Displaced,
    /// The server is going down.
    Closed,
}

pub(super) type Vectors = Result<Vec<Vec<f32>>, Failure>;

pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    limit: usize,
    background: Arc<Semaphore>,
}

struct State {
    waiting: Waiting,
    closed: bool,
    /// Measured.
    text_seconds: f64,
}

/// A request's room in the queue, from before its texts are looked at until it is dropped; then nothing of it waits any
/// more.
pub(super) struct Room {
    queue: Arc<Queue>,
    id: u64,
    vectors: oneshot::Receiver<Vectors>,
    _background: Option<OwnedSemaphorePermit>,
}

impl Queue {
    /// With room for so many texts of clients' `Embed`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: Waiting::new(limit),
                closed: false,
                text_seconds: TEXT_SECONDS,
            }),
            work: Condvar::new(),
            limit,
            background: Arc::new(Semaphore::new(BACKGROUND_TEXTS)),
        }
    }

    /// Texts that have room.
    pub(super) fn texts(&self) -> usize {
        self.lock().waiting.texts()
    }

    /// Room for a request's texts; only [`Lane::Background`] waits for it.
    ///
    /// # Errors
    /// [`Error::QueueFull`], unless another tenant has so much that it makes room; [`Error::ShuttingDown`].
    pub(super) async fn enter(
        self: &Arc<Self>,
        lane: Lane,
        tenant: &Tenant,
        texts: usize,
    ) -> Result<Room, Error> {
        let background = match lane {
            Lane::Query | Lane::Request => None,
            Lane::Background => {
                let count = texts.min(BACKGROUND_TEXTS) as u32;
                let room = self.background.clone().acquire_many_owned(count).await;
                Some(room.map_err(|_| Error::ShuttingDown)?)
            }
        };
        let entered = {
            let mut state = self.lock();
            if state.closed {
                return Err(Error::ShuttingDown);
            }
            state.waiting.enter(lane, tenant, texts)
        };
        let (id, vectors) = entered.map_err(|_| self.full())?;
        Ok(Room {
            queue: self.clone(),
            id,
            vectors,
            _background: background,
        })
    }

    /// Texts that are ready to be computed.
    pub(super) fn queued(&self) -> usize {
        self.lock().waiting.queued()
    }

    /// Half of what waits may be done when it is tried again.
    fn full(&self) -> Error {
        let state = self.lock();
        let seconds = state.text_seconds * state.waiting.queued() as f64 / 2.0;
        Error::QueueFull {
            unit: "texts",
            limit: self.limit,
            retry: Duration::from_secs_f64(seconds.clamp(0.05, 30.0)),
        }
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::OutOfMemory => Error::OutOfMemory,
            Failure::Engine => Error::Engine,
            Failure::Displaced => self.full(),
            Failure::Closed => Error::ShuttingDown,
        }
    }

    /// The next batch; waits for it. `None` when the queue is closed.
    pub(super) fn next(&self, most: BatchLimits) -> Option<Vec<Piece>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let batch = state.waiting.take(most, Instant::now());
            if !batch.is_empty() {
                return Some(batch);
            }
            let woken = self.work.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Texts have their vectors.
    pub(super) fn done(&self, pieces: &[Piece], vectors: Vec<Vec<f32>>) {
        let mut state = self.lock();
        for (piece, vector) in pieces.iter().zip(vectors) {
            state.waiting.done(piece, vector);
        }
    }

    /// Texts get none, nor do the others of their requests.
    pub(super) fn failed(&self, pieces: &[Piece], failure: Failure) {
        let mut state = self.lock();
        for piece in pieces {
            state.waiting.end(piece.request, Err(failure));
        }
    }

    /// A batch took so long.
    pub(super) fn measured(&self, texts: usize, time: Duration) {
        let mut state = self.lock();
        let one = time.as_secs_f64() / texts.max(1) as f64;
        state.text_seconds += NEWEST * (one - state.text_seconds);
    }

    /// What waits gets no answer, and nothing more is taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.close();
        self.background.close();
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Whether it was given up for a tenant that had less.
    ///
    /// # Errors
    /// Then it says when to try again.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.queue.lock().waiting.has(self.id) {
            return Ok(());
        }
        Err(self.queue.full())
    }

    /// The vectors of texts, of which there is at least one and are no more than there is room for.
    ///
    /// # Errors
    /// [`Error::QueueFull`] where it was given up meanwhile, and the engine's failures.
    pub(super) async fn compute(&mut self, texts: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, Error> {
        {
            let mut state = self.queue.lock();
            state.waiting.fill(self.id, texts, Instant::now());
            self.queue.work.notify_one();
        }
        let vectors = (&mut self.vectors).await;
        let vectors = vectors.unwrap_or(Err(Failure::Closed));
        vectors.map_err(|failure| self.queue.error(failure))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Nothing is left of one that was answered.
        self.queue.lock().waiting.end(self.id, Err(Failure::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: BatchLimits = BatchLimits {
        texts: 8,
        tokens: 4096,
    };

    fn text(tokens: usize) -> Vec<u32> {
        vec![1; tokens]
    }

    fn queue(limit: usize) -> Arc<Queue> {
        Arc::new(Queue::new(limit))
    }

    async fn room(queue: &Arc<Queue>, tenant: &str, texts: usize) -> Result<Room, Error> {
        queue.enter(Lane::Request, &tenant.into(), texts).await
    }

    /// What was asked for is in the queue once this returns.
    macro_rules! ask {
        ($room:expr, $texts:expr) => {{
            let mut asked = Box::pin($room.compute($texts));
            assert!(futures::poll!(&mut asked).is_pending());
            asked
        }};
    }

    #[tokio::test]
    async fn the_bound_is_told_with_a_time_and_room_comes_back() {
        let queue = queue(3);
        let mut first = room(&queue, "a", 2).await.expect("room");
        let refused = room(&queue, "a", 2).await.err().expect("full");
        assert!(matches!(refused, Error::QueueFull { limit: 3, .. }));
        assert!(refused.retry_after() > Some(Duration::ZERO));
        let asked = ask!(first, vec![text(1); 2]);
        let batch = queue.next(MOST).expect("a batch");
        queue.done(&batch, vec![vec![1.0]; 2]);
        assert_eq!(asked.await, Ok(vec![vec![1.0]; 2]));
        assert_eq!(queue.texts(), 0);
        room(&queue, "a", 3).await.expect("room again");
    }

    #[tokio::test]
    async fn who_has_gone_leaves_at_once_and_is_not_computed_for() {
        let queue = queue(10);
        let mut goes = room(&queue, "a", 2).await.expect("room");
        let mut stays = room(&queue, "a", 1).await.expect("room");
        drop(ask!(goes, vec![text(7), text(8)]));
        drop(goes);
        assert_eq!(queue.texts(), 1, "before the model's thread has looked");
        let _asked = ask!(stays, vec![text(2)]);
        let batch = queue.next(MOST).expect("a batch");
        assert_eq!((batch.len(), batch[0].tokens.len()), (1, 2));
    }

    #[tokio::test]
    async fn a_closed_queue_answers_what_waits() {
        let queue = queue(10);
        let mut waits = room(&queue, "a", 1).await.expect("room");
        let asked = ask!(waits, vec![text(1)]);
        queue.close();
        assert_eq!(asked.await, Err(Error::ShuttingDown));
        assert!(queue.next(MOST).is_none());
        for lane in [Lane::Request, Lane::Background] {
            let refused = queue.enter(lane, &"a".into(), 1).await;
            assert_eq!(refused.err().expect("closed"), Error::ShuttingDown);
        }
    }

    #[tokio::test]
    async fn who_makes_room_is_told_to_come_back() {
        let queue = queue(4);
        let mut first = room(&queue, "a", 2).await.expect("room");
        let mut second = room(&queue, "a", 2).await.expect("room");
        let computed = ask!(first, vec![text(1); 2]);
        let displaced = ask!(second, vec![text(1); 2]);
        let newcomer = room(&queue, "b", 1).await.expect("a makes room");
        assert!(matches!(displaced.await, Err(Error::QueueFull { .. })));
        assert!(second.check().is_err() && newcomer.check().is_ok());
        let batch = queue.next(MOST).expect("a batch");
        queue.done(&batch, vec![vec![1.0]; 2]);
        assert_eq!(computed.await, Ok(vec![vec![1.0]; 2]));
    }
}
