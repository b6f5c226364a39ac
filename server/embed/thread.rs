//! The loop that runs the model over what waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use code_explainer_engine::{Encoder, EngineError};

use super::queue::{Failure, Queue};
use super::waiting::{BatchLimits, Piece};
use crate::metrics::Metrics;

/// Starts the thread; it ends when the queue is closed.
pub(super) fn start(
    queue: Arc<Queue>,
    mut encoder: Box<dyn Encoder>,
    batch_texts: usize,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let limits = BatchLimits::new(batch_texts, &encoder.info().device);
    let work = move || {
        while let Some(batch) = queue.next(limits) {
            let (texts, started) = (batch.len(), Instant::now());
            run(&queue, encoder.as_mut(), &batch);
            queue.measured(texts, started.elapsed());
            metrics.embeddings.batch(texts, started.elapsed());
        }
    };
    let thread = std::thread::Builder::new().name("embedding".into());
    thread.spawn(work).map(drop)
}

/// Each piece gets its vector or a failure. Where memory is short the texts are tried one by one.
fn run(queue: &Queue, encoder: &mut dyn Encoder, batch: &[Piece]) {
    match encode(encoder, batch) {
        Ok(vectors) => queue.done(batch, vectors),
        Err(Failure::OutOfMemory) if batch.len() > 1 => {
            for piece in batch.chunks(1) {
                run(queue, encoder, piece);
            }
        }
        Err(failure) => queue.failed(batch, failure),
    }
}

fn encode(encoder: &mut dyn Encoder, batch: &[Piece]) -> Result<Vec<Vec<f32>>, Failure> {
    let texts: Vec<&[u32]> = batch.iter().map(|piece| piece.tokens.as_slice()).collect();
    let dimensions = encoder.info().dimensions;
    let vectors = match catch_unwind(AssertUnwindSafe(|| encoder.encode(&texts))) {
        Ok(Ok(vectors)) => vectors,
        Ok(Err(EngineError::OutOfMemory(reason))) => {
            tracing::warn!(
                reason,
                texts = batch.len(),
                "no memory for a batch of texts"
            );
            return Err(Failure::OutOfMemory);
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the embedding model failed");
            return Err(Failure::Engine);
        }
        Err(_) => {
            tracing::error!("the embedding model panicked");
            return Err(Failure::Engine);
        }
    };
    let whole = |v: &Vec<f32>| v.len() == dimensions && v.iter().all(|x| x.is_finite());
    if vectors.len() != batch.len() || !vectors.iter().all(whole) {
        tracing::error!("the embedding model gave vectors that are none");
        return Err(Failure::Engine);
    }
    Ok(vectors)
}
