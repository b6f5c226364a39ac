//! A plan as index tensors: which rows a step has, where their keys and values go, and what each may attend to.

use tch::{Device, Kind, Tensor};

use crate::engine::{EngineError, SequenceStep, StepPlan};

/// The rows of one step, all sequences' tokens one after the other, and how attention groups them.
///
/// The order of rows is not that of the plan: sequences that attend together lie together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Token ids, `[rows]`.
    pub(super) tokens: Tensor,
    /// Positions in their sequences, `[rows]`.
    pub(super) positions: Tensor,
    /// Where in the flattened KV pool each row goes, `[rows]`.
    pub(super) slots: Tensor,
    /// Blocks whose first slot is written in this step, `[blocks]`.
    pub(super) entered_blocks: Option<Tensor>,
    /// They cover the rows in order.
    pub(super) groups: Vec<Group>,
    /// Rows whose logits are wanted, in the order of the plan; `None`: of no row.
    pub(super) outputs: Option<Tensor>,
}

/// Sequences whose attention is one call: one chunk of a prompt, or several sequences with one token each.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) sequences: i64,
    /// Rows of each sequence.
    pub(super) queries: i64,
    /// Keys that each row is compared with: the longest sequence's tokens.
    pub(super) context: i64,
    /// Blocks of all sequences, equally many of each, `[sequences * blocks]`.
    pub(super) blocks: Tensor,
    /// 0 where a row may look and minus infinity elsewhere, in the model's precision,
    /// `[sequences, 1, heads_per_kv_head * queries, context]`; `None`: every row may look everywhere.
    pub(super) mask: Option<Tensor>,
}

/// What a batch's tensors depend on beside the plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) block_tokens: usize,
    /// Query heads that share a key-value head.
    pub(super) heads_per_kv_head: i64,
    pub(super) kind: Kind,
    pub(super) device: Device,
}

/// Which rows' logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outputs {
    /// The rows after which every sequence samples.
    Sampled,
    /// The last row of every sequence.
    Last,
    /// Every row.
    All,
}

impl Batch {
    /// The batch of a plan that [`StepPlan::check`] has passed.
    pub(super) fn new(
        plan: &StepPlan<'_>,
        outputs: Outputs,
        layout: Layout,
    ) -> Result<Self, EngineError> {
        let Layout {
            block_tokens,
            device,
            ..
        } = layout;
        let tensor = |values: &[i64]| -> Result<Tensor, EngineError> {
            Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
        };
        let mut rows = Rows::default();
        let mut first_rows = vec![0; plan.sequences.len()];
        let mut groups = Vec::new();
        for members in grouped(plan, block_tokens) {
            let sequences: Vec<_> = members.iter().map(|&m| &plan.sequences[m]).collect();
            groups.push(Group::new(&sequences, layout)?);
            for &member in &members {
                first_rows[member] = rows.tokens.len();
                rows.push(&plan.sequences[member], block_tokens);
            }
        }
        let mut wanted = Vec::new();
        for (sequence, first) in plan.sequences.iter().zip(first_rows) {
            let row = |token: usize| (first + token) as i64;
            let rows = row(0)..row(sequence.tokens.len());
            match outputs {
                Outputs::Sampled => wanted.extend(sequence.sampled().map(row)),
                Outputs::Last => wanted.push(rows.end - 1),
                Outputs::All => wanted.extend(rows),
            }
        }
        let some = |values: &[i64]| (!values.is_empty()).then(|| tensor(values)).transpose();
        Ok(Self {
            tokens: tensor(&rows.tokens)?,
            positions: tensor(&rows.positions)?,
            slots: tensor(&rows.slots)?,
            entered_blocks: some(&rows.entered_blocks)?,
            groups,
            outputs: some(&wanted)?,
        })
    }
}

/// The plan's sequences by index, in groups that attend together.
///
/// Sequences with one token are put together where the number of their blocks rounds up to the same power of two. The
/// shorter ones are padded to the longest, so the bound keeps padding below the size of what is really read.
fn grouped(plan: &StepPlan<'_>, block_tokens: usize) -> Vec<Vec<usize>> {
    let mut buckets = std::collections::BTreeMap::<usize, Vec<usize>>::new();
    let mut chunks = Vec::new();
    for (index, sequence) in plan.sequences.iter().enumerate() {
        if sequence.tokens.len() == 1 {
            let blocks = (sequence.past + 1).div_ceil(block_tokens);
            buckets
                .entry(blocks.next_power_of_two())
                .or_default()
                .push(index);
        } else {
            chunks.push(vec![index]);
        }
    }
    buckets.into_values().chain(chunks).collect()
}

#[derive(Default)]
struct Rows {
    tokens: Vec<i64>,
    positions: Vec<i64>,
    slots: Vec<i64>,
    entered_blocks: Vec<i64>,
}

impl Rows {
    fn push(&mut self, sequence: &SequenceStep<'_>, block_tokens: usize) {
        for (position, &token) in (sequence.past..).zip(sequence.tokens) {
            let block = sequence.blocks[position / block_tokens] as usize;
            let slot = position % block_tokens;
            self.tokens.push(i64::from(token));
            self.positions.push(position as i64);
            self.slots.push((block * block_tokens + slot) as i64);
            if slot == 0 {
                self.entered_blocks.push(block as i64);
            }
        }
    }
}

impl Group {
    /// A group of sequences that have equally many tokens.
    fn new(sequences: &[&SequenceStep<'_>], layout: Layout) -> Result<Self, EngineError> {
        let Layout {
            block_tokens,
            device,
            ..
        } = layout;
        let queries = sequences[0].tokens.len();
        let context = sequences
            .iter()
            .map(|s| s.past + queries)
            .max()
            .unwrap_or(queries);
        let per_sequence = context.div_ceil(block_tokens);
        let blocks: Vec<i64> = sequences
            .iter()
            .flat_map(|sequence| {
                let own = &sequence.blocks[..(sequence.past + queries).div_ceil(block_tokens)];
                // Padding is masked; a sequence's own block serves for it, so that nothing of another's is read.
                let padding = std::iter::repeat_n(&own[0], per_sequence - own.len());
                own.iter().chain(padding).map(|&block| i64::from(block))
            })
            .collect();
        let mut group = Self {
            sequences: sequences.len() as i64,
            queries: queries as i64,
            context: context as i64,
            blocks: Tensor::f_from_slice(&blocks)?.f_to_device(device)?,
            mask: None,
        };
        if sequences.iter().any(|sequence| sequence.past + 1 < context) {
            let past: Vec<i64> = sequences.iter().map(|s| s.past as i64).collect();
            group.mask = Some(group.causal_mask(&past, layout)?);
        }
        Ok(group)
    }

    /// A row at position p may look at positions 0 to p.
    fn causal_mask(&self, past: &[i64], layout: Layout) -> Result<Tensor, EngineError> {
        let Layout {
            heads_per_kv_head: heads,
            kind,
            device,
            ..
        } = layout;
        let Self {
            sequences,
            queries,
            context,
            ..
        } = *self;
        let range = |n| Tensor::f_arange(n, (Kind::Int64, device));
        let past = Tensor::f_from_slice(past)?
            .f_to_device(device)?
            .f_view([sequences, 1, 1])?;
        let positions = past.f_add(&range(queries)?.f_view([1, queries, 1])?)?;
        let hidden = range(context)?.f_gt_tensor(&positions)?; // [sequences, queries, context]
        let mask = Tensor::f_zeros([sequences, queries, context], (kind, device))?
            .f_masked_fill(&hidden, f64::NEG_INFINITY)?;
        // The order of a group's query rows: for each of the heads that share keys, all queries.
        let mask = mask.f_view([sequences, 1, 1, queries, context])?;
        let mask = mask.f_expand([sequences, 1, heads, queries, context], false)?;
        Ok(mask.f_reshape([sequences, 1, heads * queries, context])?)
    }
}
