//! A backend without a model, for tests: its answers follow from what it reads in the KV cache.
//!
//! It keeps the tokens themselves in its blocks, and each token that it gives is a hash of all the tokens that a
//! sequence's blocks hold. A block handed to two sequences, a position skipped or a chunk run twice changes the answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::{
    Backend, BackendInfo, EngineError, KvPrecision, Precision, SequenceStep, StepOutput, StepPlan,
};

/// How far apart the tokens are that a [`FakeBackend`] likes to repeat.
pub const PERIOD: usize = 7;

/// A deterministic backend that a test can hold, break and watch.
#[derive(Debug)]
pub struct FakeBackend {
    info: BackendInfo,
    cells: Vec<Option<u32>>,
    control: Arc<FakeControl>,
}

/// The test's hand on a [`FakeBackend`].
#[derive(Debug, Default)]
pub struct FakeControl {
    steps: AtomicUsize,
    fail_next: AtomicBool,
    panic_next: AtomicBool,
    /// The next step waits until the other end is dropped.
    hang_next: Mutex<Option<Receiver<()>>>,
    /// Steps with more tokens run out of memory; `None`: none do.
    most_rows: Mutex<Option<usize>>,
    /// Steps that may run; `None`: any number.
    allowance: Mutex<Option<usize>>,
    allowed: Condvar,
}

impl FakeBackend {
    /// A backend of the given vocabulary, context and pool.
    pub fn new(
        vocabulary: usize,
        context_length: usize,
        blocks: usize,
        block_tokens: usize,
    ) -> (Self, Arc<FakeControl>) {
        let control = Arc::new(FakeControl::default());
        let shared = control.clone();
        let backend = Self::steered(vocabulary, context_length, blocks, block_tokens, shared);
        (backend, control)
    }

    /// One more that the same hand steers.
    pub fn steered(
        vocabulary: usize,
        context_length: usize,
        blocks: usize,
        block_tokens: usize,
        control: Arc<FakeControl>,
    ) -> Self {
        let info = BackendInfo {
            model: "fake".into(),
            architecture: "fake".into(),
            parameters: 0,
            context_length,
            vocabulary,
            precision: Precision::Fp32,
            device: "cpu".into(),
            block_tokens,
            blocks,
            kv_precision: KvPrecision::Fp32,
            kv_pool_bytes: (blocks * block_tokens * size_of::<Option<u32>>()) as u64,
            weights_bytes: 0,
        };
        Self {
            info,
            cells: vec![None; blocks * block_tokens],
            control,
        }
    }

    /// The token that follows `context` when sampled with `seed`: mostly the one that came [`PERIOD`] tokens before, so
    /// that drafts can be right, and otherwise any.
    pub fn next_token(context: &[u32], seed: u64, vocabulary: usize) -> u32 {
        // FNV-1a: any mixing of all the tokens does.
        let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
        for token in context {
            hash = (hash ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3);
        }
        let mixed = hash ^ (hash >> 32);
        match context.len().checked_sub(PERIOD) {
            Some(before) if !mixed.is_multiple_of(4) => context[before],
            _ => (mixed / 4 % vocabulary as u64) as u32,
        }
    }

    fn run(&mut self, step: &SequenceStep<'_>) -> Result<Vec<u32>, EngineError> {
        let size = self.info.block_tokens;
        let cell = |position: usize| {
            let block = step.blocks.get(position / size).copied();
            block
                .map(|b| b as usize * size + position % size)
                .ok_or_else(|| EngineError::Torch(format!("no block for position {position}")))
        };
        for (i, token) in step.tokens.iter().enumerate() {
            self.cells[cell(step.past + i)?] = Some(*token);
        }
        let Some(sample) = step.sample else {
            return Ok(Vec::new());
        };
        let context: Option<Vec<u32>> = (0..step.past + step.tokens.len())
            .map(|position| cell(position).map(|c| self.cells[c]))
            .collect::<Result<_, _>>()?;
        let context =
            context.ok_or_else(|| EngineError::Torch("a cell was never written".into()))?;
        let seed = if sample.sampling.temperature > 0.0 {
            sample.sampling.seed
        } else {
            0
        };
        let after = |index: usize| {
            let context = &context[..=step.past + index];
            let mut token = Self::next_token(context, seed, self.info.vocabulary);
            while sample.banned.contains(&token) {
                token = (token + 1) % self.info.vocabulary as u32;
            }
            token
        };
        Ok(step.sampled().map(after).collect())
    }
}

impl Backend for FakeBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput, EngineError> {
        self.control.wait_for_allowance();
        self.control.steps.fetch_add(1, Ordering::SeqCst);
        if let Some(end) = self.control.take_hang() {
            // It comes back when the test lets it, which is told by an error.
            let _ = end.recv();
        }
        if self.control.fail_next.swap(false, Ordering::SeqCst) {
            return Err(EngineError::Torch("asked for by the test".into()));
        }
        if (self.control.most_rows()).is_some_and(|most| plan.rows() > most) {
            return Err(EngineError::OutOfMemory("asked for by the test".into()));
        }
        assert!(
            !self.control.panic_next.swap(false, Ordering::SeqCst),
            "asked for by the test"
        );
        let tokens = plan
            .sequences
            .iter()
            .map(|s| self.run(s))
            .collect::<Result<_, _>>()?;
        Ok(StepOutput { tokens })
    }
}

impl FakeControl {
    /// Steps that were run.
    pub fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }

    /// From now on, steps with more tokens than this run out of memory.
    pub fn limit_rows(&self, most: Option<usize>) {
        *self
            .most_rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = most;
    }

    fn most_rows(&self) -> Option<usize> {
        *self
            .most_rows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The next step fails.
    pub fn fail_next_step(&self) {
        self.fail_next.store(true, Ordering::SeqCst);
    }

    /// The next step panics.
    pub fn panic_in_next_step(&self) {
        self.panic_next.store(true, Ordering::SeqCst);
    }

    /// The next step hangs until what is given is dropped.
    pub fn hang_in_next_step(&self) -> Sender<()> {
        let (end, wait) = channel();
        *self
            .hang_next
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(wait);
        end
    }

    fn take_hang(&self) -> Option<Receiver<()>> {
        let mut hang = self
            .hang_next
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        hang.take()
    }

    /// No step runs until [`allow`](Self::allow) or [`release`](Self::release).
    pub fn hold(&self) {
        self.set(|_| Some(0));
    }

    /// Lets this many more steps run.
    pub fn allow(&self, steps: usize) {
        self.set(|left| Some(left.unwrap_or(0) + steps));
    }

    /// Lets all steps run.
    pub fn release(&self) {
        self.set(|_| None);
    }

    fn set(&self, change: impl FnOnce(Option<usize>) -> Option<usize>) {
        let mut allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *allowance = change(*allowance);
        self.allowed.notify_all();
    }

    fn wait_for_allowance(&self) {
        let allowance = self
            .allowance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut allowance = self
            .allowed
            .wait_while(allowance, |left| *left == Some(0))
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = allowance.as_mut() {
            *left -= 1;
        }
    }
}
