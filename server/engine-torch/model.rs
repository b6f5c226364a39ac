//! The network, from token ids to logits.
//!
//! One form serves the three architectures: they differ in what a [`Model`] holds (the kind of norm, biases, how positions
//! enter, whether the feed-forward network has a gate), not in code. The residual stream has the model's precision; norms,
//! rotation and softmax are computed in 32 bits.
//!
//! Nothing here reads a size that changes from step to step: such sizes are in the index tensors, or -1. That is what makes a
//! trace of [`Model::forward`] serve any batch.

use tch::{Kind, Tensor};

use code_explainer_weights::Activation;

use super::batch::{Batch, Group};
use super::kv_cache::{KvCache, LayerCache, gather_rows};
use super::linear::{Embedding, Linear};
use crate::error::Result;

/// A decoder-only transformer.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) embedding: Embedding,
    pub(super) positions: Positions,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Norm,
    /// `[vocabulary, hidden]`; it shares the embedding's memory where the model ties them.
    pub(super) head: Linear,
    /// Of the residual stream.
    pub(super) kind: Kind,
}

/// How a row's position enters.
#[derive(Debug)]
pub(super) enum Positions {
    /// Queries and keys are turned; inverse frequencies in 32 bits, `[rotary_dim / 2]`.
    Rotary(Tensor),
    /// A vector is added to the embedding, `[context, hidden]`.
    Learned(Tensor),
}

/// Attention and feed-forward network, each behind a norm and beside a residual connection.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) attention_norm: Norm,
    pub(super) attention: Attention,
    pub(super) feed_forward_norm: Norm,
    pub(super) feed_forward: FeedForward,
}

/// Grouped-query attention; `heads == kv_heads` is multi-head attention.
#[derive(Debug)]
pub(super) struct Attention {
    /// Query, key and value as one, `[(heads + 2 * kv_heads) * head_dim, hidden]`.
    pub(super) qkv: Linear,
    /// `[hidden, heads * head_dim]`
    pub(super) output: Linear,
    pub(super) heads: i64,
    pub(super) kv_heads: i64,
    pub(super) head_dim: i64,
}

/// `down(activation(up(x)))`, or `down(activation(gate(x)) * up(x))`.
#[derive(Debug)]
pub(super) struct FeedForward {
    /// Gate above up, `[2 * intermediate, hidden]`, where it is gated; else `[intermediate, hidden]`.
    pub(super) up: Linear,
    /// `[hidden, intermediate]`
    pub(super) down: Linear,
    pub(super) gated: bool,
    pub(super) activation: Activation,
}

/// Weights are `[hidden]`.
#[derive(Debug)]
pub(super) enum Norm {
    Rms {
        weight: Tensor,
        eps: f64,
    },
    Layer {
        weight: Tensor,
        bias: Tensor,
        eps: f64,
    },
}

impl Model {
    /// Runs the batch's rows through the model, writes their keys and values, and gives back the logits of its output rows
    /// in 32 bits, `[outputs, vocabulary]`.
    pub(super) fn forward(&self, batch: &Batch, cache: &KvCache) -> Result<Tensor> {
        let mut x = self.embedding.rows(&batch.tokens, self.kind)?; // [rows, hidden]
        let rotation = match &self.positions {
            Positions::Rotary(frequencies) => Some(Rotation::new(&batch.positions, frequencies)?),
            Positions::Learned(table) => {
                x = x.f_add(&table.f_index_select(0, &batch.positions)?)?;
                None
            }
        };
        let shared = self.heads_per_kv_head();
        let masks = (batch.groups.iter())
            .map(|group| causal_mask(group, &batch.positions, shared, self.kind))
            .collect::<Result<Vec<_>>>()?;
        let step = Step {
            batch,
            rotation,
            masks,
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &step, cache.layer(layer))?;
        }
        let x = self.norm.forward(&x.f_index_select(0, &batch.outputs)?)?; // [outputs, hidden]
        Ok(self.head.forward(&x)?.f_to_kind(Kind::Float)?) // [outputs, vocabulary]
    }

    fn heads_per_kv_head(&self) -> i64 {
        let ratio = |block: &Block| block.attention.heads / block.attention.kv_heads;
        self.blocks.first().map_or(1, ratio)
    }
}

/// What all layers of a step share.
struct Step<'a> {
    batch: &'a Batch,
    rotation: Option<Rotation>,
    /// One for each group.
    masks: Vec<Tensor>,
}

/// 0 where a row may look and minus infinity elsewhere, `[sequences, 1, heads_per_kv_head * queries, context]`: a row at
/// position p may look at positions 0 to p.
fn causal_mask(group: &Group, positions: &Tensor, shared: i64, kind: Kind) -> Result<Tensor> {
    let positions = positions.f_unsqueeze(1)?;
    let positions = gather_rows(&positions, &group.rows)?; // [sequences, queries, 1]
    let hidden = group.columns.f_gt_tensor(&positions)?; // [sequences, queries, context]
    let mask = hidden
        .f_to_kind(kind)?
        .f_masked_fill(&hidden, f64::NEG_INFINITY)?;
    // The order of a group's query rows: for each of the heads that share keys, all queries.
    Ok(mask.f_unsqueeze(1)?.f_repeat([1, 1, shared, 1])?)
}

impl Block {
    fn forward(&self, x: &Tensor, step: &Step<'_>, cache: &LayerCache) -> Result<Tensor> {
        let attended = self
            .attention
            .forward(&self.attention_norm.forward(x)?, step, cache)?;
        let x = x.f_add(&attended)?;
        let fed = self
            .feed_forward
            .forward(&self.feed_forward_norm.forward(&x)?)?;
        Ok(x.f_add(&fed)?)
    }
}

impl Attention {
    fn forward(&self, x: &Tensor, step: &Step<'_>, cache: &LayerCache) -> Result<Tensor> {
        let Self {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self;
        let qkv = self
            .qkv
            .forward(x)?
            .f_view([-1, heads + 2 * kv_heads, head_dim])?;
        // Queries and keys turn alike, so they turn together.
        let mut qk = qkv.f_narrow(1, 0, heads + kv_heads)?;
        if let Some(rotation) = &step.rotation {
            qk = rotation.apply(&qk)?;
        }
        let queries = qk.f_narrow(1, 0, heads)?.f_flatten(1, 2)?; // [rows, heads * head_dim]
        let keys = qk.f_narrow(1, heads, kv_heads)?; // [rows, kv_heads, head_dim]
        let values = qkv.f_narrow(1, heads + kv_heads, kv_heads)?;
        cache.write(step.batch, &keys, &values)?;

        let attended = (step.batch.groups.iter().zip(&step.masks))
            .map(|(group, mask)| self.attend(&queries, group, mask, cache))
            .collect::<Result<Vec<_>>>()?;
        let attended = Tensor::f_cat(&attended, 0)?.f_index_select(0, &step.batch.order)?;
        self.output.forward(&attended)
    }

    /// Attention of a group's rows of `queries`, `[rows, heads * head_dim]`, over its sequences' cached keys and values;
    /// gives back `[sequences * queries, heads * head_dim]`.
    ///
    /// The query heads that share a key-value head become rows of one matrix, so that keys and values are neither repeated
    /// in memory nor read once for each of them.
    fn attend(
        &self,
        queries: &Tensor,
        group: &Group,
        mask: &Tensor,
        cache: &LayerCache,
    ) -> Result<Tensor> {
        let Self {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self;
        let shared = heads / kv_heads;
        let queries = gather_rows(queries, &group.rows)? // [sequences, queries, heads * head_dim]
            .f_unflatten(2, [kv_heads, shared, head_dim])?
            .f_permute([0, 2, 3, 1, 4])? // [sequences, kv_heads, shared, queries, head_dim]
            .f_flatten(2, 3)?;
        let [keys, values] = cache.read(group, kv_heads, head_dim)?;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let out = Tensor::f_scaled_dot_product_attention(
            &queries,
            &keys,
            &values,
            Some(mask),
            0.0,
            false,
            scale,
            false,
        )?;
        Ok(out
            .f_unflatten(2, [shared, -1])?
            .f_permute([0, 3, 1, 2, 4])? // [sequences, queries, kv_heads, shared, head_dim]
            .f_flatten(2, 4)?
            .f_flatten(0, 1)?)
    }
}

impl FeedForward {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let up = self.up.forward(x)?;
        if !self.gated {
            return self.down.forward(&self.activate(&up)?);
        }
        let width = up.size2()?.1 / 2;
        let gate = self.activate(&up.f_narrow(1, 0, width)?)?; // [rows, intermediate]
        self.down
            .forward(&gate.f_mul(&up.f_narrow(1, width, width)?)?)
    }

    fn activate(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.activation {
            Activation::Silu => x.f_silu()?,
            Activation::GeluTanh => x.f_gelu("tanh")?,
            Activation::Gelu => x.f_gelu("none")?,
        })
    }
}

impl Norm {
    /// `[rows, hidden]` to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.f_to_kind(Kind::Float)?;
        let normed = match self {
            Self::Rms { weight, eps } => wide.f_rms_norm(weight.size(), Some(weight), *eps)?,
            Self::Layer { weight, bias, eps } => {
                wide.f_layer_norm(weight.size(), Some(weight), Some(bias), *eps, false)?
            }
        };
        Ok(normed.f_to_kind(x.f_kind()?)?)
    }
}

/// The turn of each row of a batch.
///
/// RoPE of Su et al. 2021 in the "rotate half" order: pair i of a head is (i, i + rotary_dim / 2).
struct Rotation {
    /// `[rows, 1, rotary_dim / 2]`
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    fn new(positions: &Tensor, frequencies: &Tensor) -> Result<Self> {
        let angles = positions
            .f_to_kind(Kind::Float)?
            .f_outer(frequencies)?
            .f_unsqueeze(1)?;
        Ok(Self {
            cos: angles.f_cos()?,
            sin: angles.f_sin()?,
        })
    }

    /// Turns the first `rotary_dim` dimensions of every head of `x`, `[rows, heads, head_dim]`.
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.cos.size3()?.2;
        let (_, _, head_dim) = x.size3()?;
        let part = |start, length| x.f_narrow(2, start, length);
        let (a, b) = (
            part(0, half)?.f_to_kind(Kind::Float)?,
            part(half, half)?.f_to_kind(Kind::Float)?,
        );
        let turned_a = a.f_mul(&self.cos)?.f_sub(&b.f_mul(&self.sin)?)?;
        let turned_b = b.f_mul(&self.cos)?.f_add(&a.f_mul(&self.sin)?)?;
        let kind = x.f_kind()?;
        let mut parts = vec![turned_a.f_to_kind(kind)?, turned_b.f_to_kind(kind)?];
        if 2 * half < head_dim {
            parts.push(part(2 * half, head_dim - 2 * half)?);
        }
        Ok(Tensor::f_cat(&parts, 2)?)
    }
}
