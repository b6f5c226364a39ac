//! The rows of one pass through the model, ragged: chunks of prompts and single tokens beside each other.

use code_explainer_engine::{BlockId, SequenceStep};

use super::kernels::attention::RowTile;
use super::kernels::kv::RowSlot;

/// Most rows of one pass; a larger step takes several. Bounds the activations' memory, and is enough for the linear
/// layers to run at full speed.
pub const MAX_ROWS: usize = 512;

/// The rows of one pass. Its lists keep their memory from step to step.
#[derive(Debug, Default)]
pub struct Batch {
    /// Token of each row.
    pub tokens: Vec<u32>,
    /// Position and place in the KV pool of each row.
    pub slots: Vec<RowSlot>,
    /// The rows in the portions in which attention takes them.
    pub tiles: Vec<RowTile>,
    /// Blocks of all sequences, one after the other.
    pub blocks: Vec<BlockId>,
    /// Rows whose logits are wanted.
    pub outputs: Vec<OutputRow>,
}

/// A row whose logits are wanted.
#[derive(Debug, Clone, Copy)]
pub struct OutputRow {
    /// Row of the batch.
    pub row: usize,
    /// Index of its sequence in the plan.
    pub sequence: usize,
    /// Index of its token among the sequence's in the plan.
    pub token: usize,
}

impl Batch {
    /// A batch with room for `MAX_ROWS` rows of sequences of up to `blocks` blocks together.
    pub fn new(blocks: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(MAX_ROWS),
            slots: Vec::with_capacity(MAX_ROWS),
            tiles: Vec::with_capacity(MAX_ROWS),
            blocks: Vec::with_capacity(blocks),
            outputs: Vec::with_capacity(MAX_ROWS),
        }
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// How many more fit in.
    pub fn room(&self) -> usize {
        MAX_ROWS - self.rows()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.slots.clear();
        self.tiles.clear();
        self.blocks.clear();
        self.outputs.clear();
    }

    /// Adds tokens `from..to` of a sequence whose plan is valid; gives back the first one's row.
    pub fn push(
        &mut self,
        sequence: &SequenceStep<'_>,
        (from, to): (usize, usize),
        block_tokens: usize,
        tile_rows: usize,
    ) -> usize {
        let (row, blocks) = (self.rows(), self.blocks.len());
        let end = sequence.past + to;
        self.blocks
            .extend_from_slice(&sequence.blocks[..end.div_ceil(block_tokens)]);
        self.tokens.extend_from_slice(&sequence.tokens[from..to]);
        self.slots
            .extend((sequence.past + from..end).map(|position| RowSlot {
                position,
                block: sequence.blocks[position / block_tokens],
                slot: position % block_tokens,
            }));
        self.tiles
            .extend((from..to).step_by(tile_rows).map(|first| RowTile {
                row: row + first - from,
                rows: tile_rows.min(to - first),
                position: sequence.past + first,
                blocks,
            }));
        row
    }
}
