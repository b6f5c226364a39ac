//! The network, from token ids to logits.
//!
//! One form serves the three architectures: they differ in what a [`Model`] holds (the kind of norm, biases, how positions
//! enter, whether the feed-forward network has a gate), not in code. The residual stream has the model's precision; norms,
//! rotation and softmax are computed in 32 bits.

use tch::{Device, Kind, Tensor};

use super::batch::{Batch, Group, Layout};
use super::kv_cache::{KvCache, LayerCache};
use crate::engine::EngineError;
use crate::weights::Activation;

type Result<T> = std::result::Result<T, EngineError>;

/// A decoder-only transformer.
#[derive(Debug)]
pub(super) struct Model {
    /// `[vocabulary, hidden]`
    pub(super) embedding: Tensor,
    pub(super) positions: Positions,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Norm,
    /// `[vocabulary, hidden]`; the embedding itself where the model ties them.
    pub(super) head: Tensor,
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

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[out, in]`
    pub(super) weight: Tensor,
    /// `[out]`
    pub(super) bias: Option<Tensor>,
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
    /// How its batches are laid out.
    pub(super) fn layout(&self, block_tokens: usize, device: Device) -> Result<Layout> {
        let heads_per_kv_head = self
            .blocks
            .first()
            .map_or(1, |b| b.attention.heads / b.attention.kv_heads);
        Ok(Layout {
            block_tokens,
            heads_per_kv_head,
            kind: self.embedding.f_kind()?,
            device,
        })
    }

    /// Runs the batch's rows through the model, writes their keys and values, and gives back the logits of its output rows
    /// in 32 bits, `[outputs, vocabulary]`; `None` if it has none.
    pub(super) fn forward(&self, batch: &Batch, cache: &mut KvCache) -> Result<Option<Tensor>> {
        let mut x = self.embedding.f_index_select(0, &batch.tokens)?; // [rows, hidden]
        let rotation = match &self.positions {
            Positions::Rotary(frequencies) => Some(Rotation::new(&batch.positions, frequencies)?),
            Positions::Learned(table) => {
                x = x.f_add(&table.f_index_select(0, &batch.positions)?)?;
                None
            }
        };
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, rotation.as_ref(), batch, cache.layer(layer))?;
        }
        let Some(outputs) = &batch.outputs else {
            return Ok(None);
        };
        let x = self.norm.forward(&x.f_index_select(0, outputs)?)?; // [outputs, hidden]
        let logits = x.f_linear(&self.head, None::<&Tensor>)?; // [outputs, vocabulary]
        Ok(Some(logits.f_to_kind(Kind::Float)?))
    }
}

impl Block {
    fn forward(
        &self,
        x: &Tensor,
        rotation: Option<&Rotation>,
        batch: &Batch,
        cache: &mut LayerCache,
    ) -> Result<Tensor> {
        let attended =
            self.attention
                .forward(&self.attention_norm.forward(x)?, rotation, batch, cache)?;
        let x = x.f_add(&attended)?;
        let fed = self
            .feed_forward
            .forward(&self.feed_forward_norm.forward(&x)?)?;
        Ok(x.f_add(&fed)?)
    }
}

impl Attention {
    fn forward(
        &self,
        x: &Tensor,
        rotation: Option<&Rotation>,
        batch: &Batch,
        cache: &mut LayerCache,
    ) -> Result<Tensor> {
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
        if let Some(rotation) = rotation {
            qk = rotation.apply(&qk)?;
        }
        let queries = qk.f_narrow(1, 0, heads)?; // [rows, heads, head_dim]
        let keys = qk.f_narrow(1, heads, kv_heads)?; // [rows, kv_heads, head_dim]
        let values = qkv.f_narrow(1, heads + kv_heads, kv_heads)?;
        cache.write(batch, &keys, &values)?;

        let mut attended = Vec::with_capacity(batch.groups.len());
        let mut first = 0;
        for group in &batch.groups {
            let rows = group.sequences * group.queries;
            attended.push(self.attend(&queries.f_narrow(0, first, rows)?, group, cache)?);
            first += rows;
        }
        self.output.forward(&Tensor::f_cat(&attended, 0)?)
    }

    /// Attention of a group's queries, `[sequences * queries, heads, head_dim]`, over its sequences' cached keys and
    /// values; gives back `[sequences * queries, heads * head_dim]`.
    ///
    /// The query heads that share a key-value head become rows of one matrix, so that keys and values are neither repeated
    /// in memory nor read once for each of them.
    fn attend(&self, queries: &Tensor, group: &Group, cache: &LayerCache) -> Result<Tensor> {
        let Self {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self;
        let Group {
            sequences,
            queries: length,
            context,
            ..
        } = *group;
        let shared = heads / kv_heads;
        let queries = queries
            .f_view([sequences, length, kv_heads, shared, head_dim])?
            .f_permute([0, 2, 3, 1, 4])? // [sequences, kv_heads, shared, length, head_dim]
            .f_reshape([sequences, kv_heads, shared * length, head_dim])?;
        let (keys, values) = cache.read(&group.blocks, sequences, context)?;
        let scale = 1.0 / (head_dim as f64).sqrt();
        let out = Tensor::f_scaled_dot_product_attention(
            &queries,
            &keys,
            &values,
            group.mask.as_ref(),
            0.0,
            false,
            scale,
            false,
        )?;
        Ok(out
            .f_view([sequences, kv_heads, shared, length, head_dim])?
            .f_permute([0, 3, 1, 2, 4])? // [sequences, length, kv_heads, shared, head_dim]
            .f_reshape([sequences * length, heads * head_dim])?)
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

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
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
