//! The transformer: what a pass computes, from tokens to logits.
//!
//! The architectures differ in data alone: which norm, whether positions are rotary or learned, which activation, which
//! layers have a bias.

use code_explainer_engine::EngineError;

use super::batch::{Batch, MAX_ROWS};
use super::buffer::{Buffer, Weights};
use super::kernels::Compute;
use super::kernels::attention::Attention;
use super::kernels::kv::KvPool;
use super::kernels::matrix::{Matrix, MatrixMut, for_each_row};
use super::kernels::norm::Norm;
use super::kernels::panels::{Epilogue, PANEL};
use super::kernels::quantized_gemm::GATED_SCRATCH;
use super::kernels::quantized_rows::QuantizedRows;
use super::kernels::rope::Rope;
use super::linear::Linear;
use super::profile::{Operator, Profile};

/// Rows whose logits are computed at once. Bounds the memory of logits.
pub const HEAD_ROWS: usize = 64;

/// A model's weights and what its passes need.
pub struct Model {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Where embeddings come from; `None`: from the head's rows.
    pub embedding: Option<Linear>,
    /// Learned positions, `[positions][hidden]`.
    pub positions: Option<Weights>,
    /// Rotary tables.
    pub rope: Rope,
    /// The blocks, in order.
    pub layers: Vec<Layer>,
    /// Norm before the head.
    pub norm: Norm,
    /// Vocabulary head.
    pub head: Linear,
    /// Attention's shape and scratch.
    pub attention: Attention,
    /// Columns of keys and values in the output of [`Layer::qkv`].
    pub kv_columns: (usize, usize),
    /// The feed-forward network's activation; with [`Epilogue::SiluMul`], [`Layer::up`] holds gate and up.
    pub activation: Epilogue,
}

/// One transformer block.
pub struct Layer {
    /// Before attention.
    pub attention_norm: Norm,
    /// Query, key and value as one matrix.
    pub qkv: Linear,
    /// Back into the residual stream.
    pub attention_out: Linear,
    /// Before the feed-forward network.
    pub feed_forward_norm: Norm,
    /// Gate and up as one matrix, or up alone.
    pub up: Linear,
    /// Back into the residual stream.
    pub down: Linear,
}

/// The activations of a pass, allocated once.
pub struct Activations {
    /// `[rows][hidden]`: the residual stream.
    residual: Buffer,
    /// `[rows][hidden]`: its norm.
    normed: Buffer,
    /// `[rows][queries, keys, values]`.
    qkv: Buffer,
    /// `[rows][heads * head_dim]`.
    attended: Buffer,
    /// `[rows][gate, up]` or `[rows][up]`.
    feed_forward: Buffer,
    /// `[HEAD_ROWS][vocabulary]`.
    logits: Buffer,
    /// What the linear layers make of their input where they compute in bytes.
    quantized: QuantizedRows,
    /// The activated ones, while `quantized` is still read.
    activated: QuantizedRows,
    /// For each worker: what operators make and use at once.
    scratch: Buffer,
    /// For each worker.
    scratch_len: usize,
    /// Their strides, in the same order, residual's first and shared with `normed`.
    strides: [usize; 5],
}

impl Activations {
    /// Those of a model whose attention has `attended` outputs, on so many threads.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(model: &Model, attended: usize, threads: usize) -> Result<Self, EngineError> {
        let strides = [
            model.hidden.next_multiple_of(PANEL),
            model.layers.first().map_or(0, |l| l.qkv.padded_outputs()),
            attended.next_multiple_of(PANEL),
            model.layers.first().map_or(0, |l| l.up.padded_outputs()),
            model.head.padded_outputs(),
        ]
        .map(spread);
        let inputs = model.linears().map(Linear::quantized_inputs).max();
        let activated = model.layers.iter().map(|l| l.down.quantized_inputs()).max();
        let scratch_len = Norm::scratch(model.hidden).max(GATED_SCRATCH);
        let rows = |stride: usize| Buffer::zeroed(MAX_ROWS * stride, "activations");
        Ok(Self {
            residual: rows(strides[0])?,
            normed: rows(strides[0])?,
            qkv: rows(strides[1])?,
            attended: rows(strides[2])?,
            feed_forward: rows(strides[3])?,
            logits: Buffer::zeroed(HEAD_ROWS * strides[4], "logits")?,
            quantized: QuantizedRows::new(MAX_ROWS, inputs.unwrap_or(0))?,
            activated: QuantizedRows::new(MAX_ROWS, activated.unwrap_or(0))?,
            scratch: Buffer::zeroed(threads * scratch_len, "activations")?,
            scratch_len,
            strides,
        })
    }
}

/// A stride that is no multiple of 4 KiB: rows that are that far apart push each other out of the caches.
fn spread(stride: usize) -> usize {
    match stride.is_multiple_of(1024) {
        true => stride + LINE,
        false => stride,
    }
}

/// Floats in a line of memory.
const LINE: usize = 16;

impl Model {
    /// Bytes of all weights.
    pub fn bytes(&self) -> u64 {
        let linears = self.linears().chain(&self.embedding).map(Linear::bytes);
        linears.sum::<u64>() + self.positions.as_ref().map_or(0, Weights::bytes)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        (self.layers.iter())
            .flat_map(|l| [&l.qkv, &l.attention_out, &l.up, &l.down])
            .chain([&self.head])
    }

    /// Runs the batch through all layers: writes its keys and values to the pool and leaves the residual stream in `a`.
    ///
    /// # Panics
    /// If the batch is not one that [`Batch::push`] made of valid plans, or larger than [`MAX_ROWS`].
    pub fn forward(
        &mut self,
        compute: &Compute,
        batch: &Batch,
        kv: &mut KvPool,
        a: &mut Activations,
        profile: &mut Profile,
    ) {
        let rows = batch.rows();
        let [hidden, qkv, attended, up, _] = a.strides;
        profile.start();
        self.embed(compute, batch, a);
        let threads = compute.pool.threads();
        let mut scratch = MatrixMut::new(a.scratch.as_mut_slice(), threads, a.scratch_len);
        profile.lap(Operator::Embed);
        for (index, layer) in self.layers.iter().enumerate() {
            let mut out = MatrixMut::new(a.normed.as_mut_slice(), rows, hidden);
            layer.qkv.normed(
                compute,
                &layer.attention_norm,
                Matrix::new(a.residual.as_slice(), rows, hidden),
                &mut out,
                (&mut a.quantized, &mut scratch),
            );
            profile.lap(Operator::Norm);
            let mut out = MatrixMut::new(a.qkv.as_mut_slice(), rows, qkv);
            layer.qkv.multiply(
                compute,
                (Matrix::new(a.normed.as_slice(), rows, hidden), &a.quantized),
                &mut out,
                Epilogue::Store,
                layer.attention_out.then(Epilogue::Add),
            );
            profile.lap(Operator::Qkv);

            let x = Matrix::new(a.qkv.as_slice(), rows, qkv);
            kv.write(compute, index, &batch.slots, x, self.kv_columns, &self.rope);
            profile.lap(Operator::KvWrite);
            let mut out = MatrixMut::new(a.attended.as_mut_slice(), rows, attended);
            self.attention.forward(
                compute,
                index,
                &batch.tiles,
                &batch.blocks,
                kv,
                &self.rope,
                x,
                &mut out,
            );
            profile.lap(Operator::Attention);
            let mut out = MatrixMut::new(a.residual.as_mut_slice(), rows, hidden);
            layer.attention_out.forward(
                compute,
                Matrix::new(a.attended.as_slice(), rows, attended),
                &mut out,
                Epilogue::Add,
                &mut a.quantized,
                layer.up.then(self.activation),
            );
            profile.lap(Operator::Out);

            let mut out = MatrixMut::new(a.normed.as_mut_slice(), rows, hidden);
            layer.up.normed(
                compute,
                &layer.feed_forward_norm,
                Matrix::new(a.residual.as_slice(), rows, hidden),
                &mut out,
                (&mut a.quantized, &mut scratch),
            );
            profile.lap(Operator::Norm);
            let normed = Matrix::new(a.normed.as_slice(), rows, hidden);
            layer.up.activated(
                compute,
                (normed, &a.quantized),
                &mut MatrixMut::new(a.feed_forward.as_mut_slice(), rows, up),
                self.activation,
                &layer.down,
                (&mut a.activated, &mut scratch),
            );
            profile.lap(Operator::Up);
            let mut out = MatrixMut::new(a.residual.as_mut_slice(), rows, hidden);
            let next = self.layers.get(index + 1).map_or(&self.head, |l| &l.qkv);
            layer.down.multiply(
                compute,
                (
                    Matrix::new(a.feed_forward.as_slice(), rows, up),
                    &a.activated,
                ),
                &mut out,
                Epilogue::Add,
                next.then(Epilogue::Store),
            );
            profile.lap(Operator::Down);
        }
    }

    /// Logits of the given rows of the last pass, at most [`HEAD_ROWS`], as a matrix with rows of at least
    /// [`Model::vocabulary`] floats.
    ///
    /// # Panics
    /// If a row was not in that pass.
    pub fn logits<'a>(
        &self,
        compute: &Compute,
        rows: impl ExactSizeIterator<Item = usize>,
        a: &'a mut Activations,
        profile: &mut Profile,
    ) -> MatrixMut<'a> {
        let (n, hidden, stride) = (rows.len(), a.strides[0], a.strides[4]);
        // The pass's queries are no longer needed; the rows gather in their place.
        let gathered = a.normed.as_mut_slice();
        for (i, row) in rows.enumerate() {
            gathered[i * hidden..][..hidden]
                .copy_from_slice(&a.residual.as_slice()[row * hidden..][..hidden]);
        }
        let mut normed = MatrixMut::new(a.attended.as_mut_slice(), n, hidden);
        self.norm.forward(
            compute,
            Matrix::new(a.normed.as_slice(), n, hidden),
            &mut normed,
        );
        profile.lap(Operator::Norm);
        let mut logits = MatrixMut::new(a.logits.as_mut_slice(), n, stride);
        self.head.forward(
            compute,
            Matrix::new(a.attended.as_slice(), n, hidden),
            &mut logits,
            Epilogue::Store,
            &mut a.quantized,
            None,
        );
        profile.lap(Operator::Head);
        logits
    }

    fn embed(&self, compute: &Compute, batch: &Batch, a: &mut Activations) {
        let width = self.hidden;
        let mut residual = MatrixMut::new(a.residual.as_mut_slice(), batch.rows(), a.strides[0]);
        for_each_row(&compute.pool, &mut residual, |row, x| {
            let (x, padding) = x.split_at_mut(width);
            padding.fill(0.0);
            let token = batch.tokens[row] as usize;
            match &self.embedding {
                Some(table) => table.unpack_row(token, x),
                None => self.head.unpack_row(token, x),
            }
            if let Some(table) = &self.positions {
                let position = &table.as_slice()[batch.slots[row].position * width..][..width];
                x.iter_mut().zip(position).for_each(|(x, p)| *x += p);
            }
        });
    }
}
