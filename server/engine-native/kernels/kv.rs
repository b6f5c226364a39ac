//! Where keys and values lie, and how a step's new ones get there.
//!
//! Per layer, block and KV head, keys are stored transposed, `[head_dim][tokens]`, so that the scores of 16 tokens are one
//! register and need no sum across lanes, and values as `[tokens][head_dim]`. Tokens (of keys) and head_dim (of values)
//! are padded to 16. In 8 bits, each token's key and value has a scale of its own, so that a token is stored in the same
//! way whatever else its block holds.

use code_explainer_engine::{BlockId, EngineError, KvPrecision};
use half::{bf16, f16};

use super::Compute;
use super::PARALLEL_ROWS;
use super::isa::dispatch;
use super::lanes::{LANES, Lanes};
use super::matrix::Matrix;
use super::rope::Rope;
use super::stored::Stored;
use crate::buffer::Buffer;

/// Parts of a block start at cache lines.
const LINE: usize = 64;

/// Sizes of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// Blocks in the pool.
    pub blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// Tokens in a block of keys, with padding.
    pub(super) fn padded_tokens(&self) -> usize {
        self.block_tokens.next_multiple_of(LANES)
    }

    /// Width of a head of values, with padding.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    /// Bytes of a pool of this shape; `None`: more than there are numbers for.
    pub fn pool_bytes(&self, precision: KvPrecision) -> Option<u64> {
        [self.layers, self.blocks, self.kv_heads]
            .into_iter()
            .try_fold(Layout::new(self, precision).len, usize::checked_mul)?
            .try_into()
            .ok()
    }
}

/// Where in one head's part of a block its numbers lie, in bytes from its start; keys come first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// `[padded tokens]` of f32, or nothing.
    pub(super) key_scales: usize,
    /// `[tokens][padded dim]`.
    pub(super) values: usize,
    /// As those of keys.
    pub(super) value_scales: usize,
    /// All of it.
    pub(super) len: usize,
}

impl Layout {
    fn new(shape: &KvShape, precision: KvPrecision) -> Self {
        let (element, scale) = match precision {
            KvPrecision::Fp32 => (4, 0),
            KvPrecision::Bf16 | KvPrecision::Fp16 => (2, 0),
            KvPrecision::Int8 => (1, size_of::<f32>()),
        };
        let part = |numbers: usize, size: usize| (numbers * size).next_multiple_of(LINE);
        let keys = part(shape.head_dim * shape.padded_tokens(), element);
        let values = part(shape.block_tokens * shape.padded_dim(), element);
        let scales = part(shape.padded_tokens(), scale);
        Self {
            key_scales: keys,
            values: keys + scales,
            value_scales: keys + scales + values,
            len: keys + scales + values + scales,
        }
    }
}

/// The pool of keys and values of all sequences. Allocated, and resident, from the start.
#[derive(Debug)]
pub struct KvPool {
    shape: KvShape,
    precision: KvPrecision,
    layout: Layout,
    /// `[layers][blocks][heads]` of [`Layout`].
    data: Buffer,
    /// `[heads][padded dim]`: keys on their way.
    rotated: Buffer,
}

/// Where a row's key and value go.
#[derive(Debug, Clone, Copy)]
pub struct RowSlot {
    /// Position in its sequence.
    pub position: usize,
    /// Block of the pool.
    pub block: BlockId,
    /// Token within the block.
    pub slot: usize,
}

impl KvPool {
    /// A pool of zeros.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(shape: KvShape, precision: KvPrecision) -> Result<Self, EngineError> {
        // The system promises more than it has, and ends who takes it at its word; so it is asked for what it has.
        let available = code_explainer_host::memory::available_bytes().unwrap_or(u64::MAX);
        let needed = shape.pool_bytes(precision);
        let Some(needed) = needed.filter(|needed| *needed <= available) else {
            return Err(EngineError::OutOfMemory(format!(
                "a KV cache of {} tokens takes {} MB in {precision}, and {} MB are available; lower --kv-cache-tokens",
                shape.blocks * shape.block_tokens,
                needed.unwrap_or(u64::MAX) >> 20,
                available >> 20
            )));
        };
        let layout = Layout::new(&shape, precision);
        let mut data = Buffer::zeroed(needed as usize / size_of::<f32>(), "the KV pool")?;
        // Touched now: memory that is not there must show at the start, not under load.
        data.as_mut_slice().fill(0.0);
        Ok(Self {
            shape,
            precision,
            layout,
            data,
            rotated: Buffer::zeroed(shape.kv_heads * shape.padded_dim(), "keys")?,
        })
    }

    /// Its sizes.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// How numbers are stored.
    pub fn precision(&self) -> KvPrecision {
        self.precision
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.data.bytes()
    }

    /// All of it, as it lies in memory.
    pub fn as_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.data.as_slice())
    }

    /// Where the parts of a block's head lie.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The start of a head's part of a block, which is laid out as [`layout`](Self::layout) says.
    ///
    /// # Panics
    /// If there is no such block.
    pub(super) fn block(&self, layer: usize, block: BlockId, head: usize) -> *const u8 {
        let start = offset(&self.shape, &self.layout, (layer, block, head));
        self.as_bytes()[start..].as_ptr()
    }

    /// Writes the rows' keys, rotated to their positions, and values into their slots, and touches no other.
    ///
    /// `qkv` has keys from column `key` on and values from column `value` on, head after head.
    ///
    /// # Panics
    /// If a slot or a column is out of range.
    pub fn write(
        &mut self,
        compute: &Compute,
        layer: usize,
        slots: &[RowSlot],
        qkv: Matrix<'_>,
        columns: (usize, usize),
        rope: &Rope,
    ) {
        let (shape, precision, layout) = (self.shape, self.precision, self.layout);
        let data = Start(self.data.as_mut_slice().as_mut_ptr().cast());
        let rotated = Start(self.rotated.as_mut_slice().as_mut_ptr().cast());
        let isa = compute.isa;
        // Keys and values are tasks of their own.
        let task = |task: usize| {
            let rows = Rows {
                shape: &shape,
                precision,
                layout: &layout,
                data: &data,
                rotated: &rotated,
                layer,
                head: task / 2,
                slots,
                qkv,
                columns,
                rope,
            };
            // SAFETY: the pool and the keys' room are as the shape and the layout say and borrowed mutably; a head's keys,
            // and its values, are written by one task.
            unsafe {
                match task % 2 {
                    0 => dispatch!(isa, write_keys(rows: Rows<'_>)),
                    _ => dispatch!(isa, write_values(rows: Rows<'_>)),
                }
            }
        };
        if slots.len() < PARALLEL_ROWS {
            (0..2 * shape.kv_heads).for_each(task);
        } else {
            compute.pool.run(2 * shape.kv_heads, &|i, _| task(i));
        }
    }
}

fn offset(
    shape: &KvShape,
    layout: &Layout,
    (layer, block, head): (usize, BlockId, usize),
) -> usize {
    assert!(layer < shape.layers && (block as usize) < shape.blocks && head < shape.kv_heads);
    ((layer * shape.blocks + block as usize) * shape.kv_heads + head) * layout.len
}

/// What tasks write to, each to its own part.
struct Start(*mut u8);

// SAFETY: tasks write through the pointer to parts of their own; see `Rows`.
unsafe impl Sync for Start {}

/// One head of a step's rows.
struct Rows<'a> {
    shape: &'a KvShape,
    precision: KvPrecision,
    layout: &'a Layout,
    data: &'a Start,
    rotated: &'a Start,
    layer: usize,
    head: usize,
    slots: &'a [RowSlot],
    qkv: Matrix<'a>,
    columns: (usize, usize),
    rope: &'a Rope,
}

impl Rows<'_> {
    /// The part of the pool that a slot names, from byte `part` on.
    ///
    /// # Safety
    /// The pool is as shape and layout say.
    #[inline(always)]
    unsafe fn at<T>(&self, slot: &RowSlot, part: usize) -> *mut T {
        assert!(slot.slot < self.shape.block_tokens);
        let start = offset(self.shape, self.layout, (self.layer, slot.block, self.head));
        // SAFETY: `offset` checks.
        unsafe { self.data.0.add(start + part).cast() }
    }
}

/// # Safety
/// The pool is as the shape and the layout say, and nobody else uses this head's keys or its row of `rotated`.
#[inline(always)]
unsafe fn write_keys<V: Lanes>(rows: Rows<'_>) {
    // SAFETY: passed on.
    unsafe {
        match rows.precision {
            KvPrecision::Fp32 => write_keys_as::<V, f32>(&rows),
            KvPrecision::Bf16 => write_keys_as::<V, bf16>(&rows),
            KvPrecision::Fp16 => write_keys_as::<V, f16>(&rows),
            KvPrecision::Int8 => write_keys_as::<V, i8>(&rows),
        }
    }
}

/// # Safety
/// See [`write_keys`]; the pool stores E.
#[inline(always)]
unsafe fn write_keys_as<V: Lanes, E: Stored>(rows: &Rows<'_>) {
    let (dim, stride) = (rows.shape.head_dim, rows.shape.padded_tokens());
    let padded = rows.shape.padded_dim();
    // SAFETY: `rotated` has a row for each head, and this is its only user.
    let rotated = unsafe {
        let row = rows.rotated.0.cast::<f32>().add(rows.head * padded);
        std::slice::from_raw_parts_mut(row, dim)
    };
    for (row, slot) in rows.slots.iter().enumerate() {
        let x = &rows.qkv.row(row)[rows.columns.0 + rows.head * dim..][..dim];
        // SAFETY: passed on.
        unsafe { rows.rope.rotate::<V>(slot.position, x, rotated) };
        let scale = E::scale(rotated);
        let inverse = 1.0 / scale;
        // SAFETY: the slot is below `block_tokens`, its keys are `dim` numbers `stride` apart.
        unsafe {
            let mut key = rows.at::<E>(slot, 0).add(slot.slot);
            let mut put = |x: E| {
                *key = x;
                key = key.wrapping_add(stride);
            };
            let (whole, rest) = rotated.as_chunks::<LANES>();
            for x in whole {
                let mut encoded = [E::encode(0.0, 0.0); LANES];
                E::store::<V>(x.as_ptr(), inverse, encoded.as_mut_ptr());
                encoded.into_iter().for_each(&mut put);
            }
            rest.iter().for_each(|x| put(E::encode(*x, inverse)));
            if E::SCALED {
                *rows.at::<f32>(slot, rows.layout.key_scales).add(slot.slot) = scale;
            }
        }
    }
}

/// # Safety
/// As [`write_keys`], with values.
#[inline(always)]
unsafe fn write_values<V: Lanes>(rows: Rows<'_>) {
    // SAFETY: passed on.
    unsafe {
        match rows.precision {
            KvPrecision::Fp32 => write_values_as::<V, f32>(&rows),
            KvPrecision::Bf16 => write_values_as::<V, bf16>(&rows),
            KvPrecision::Fp16 => write_values_as::<V, f16>(&rows),
            KvPrecision::Int8 => write_values_as::<V, i8>(&rows),
        }
    }
}

/// # Safety
/// See [`write_values`]; the pool stores E.
#[inline(always)]
unsafe fn write_values_as<V: Lanes, E: Stored>(rows: &Rows<'_>) {
    let (dim, padded) = (rows.shape.head_dim, rows.shape.padded_dim());
    for (row, slot) in rows.slots.iter().enumerate() {
        let x = &rows.qkv.row(row)[rows.columns.1 + rows.head * dim..][..dim];
        let scale = E::scale(x);
        let inverse = 1.0 / scale;
        // SAFETY: the slot is below `block_tokens`, its values are `padded` numbers from there on.
        unsafe {
            let values = rows.at::<E>(slot, rows.layout.values);
            let values = values.add(slot.slot * padded);
            let whole = dim / LANES * LANES;
            for at in (0..whole).step_by(LANES) {
                E::store::<V>(x[at..].as_ptr(), inverse, values.add(at));
            }
            for at in whole..dim {
                *values.add(at) = E::encode(x[at], inverse);
            }
            if E::SCALED {
                *rows
                    .at::<f32>(slot, rows.layout.value_scales)
                    .add(slot.slot) = scale;
            }
        }
    }
}
