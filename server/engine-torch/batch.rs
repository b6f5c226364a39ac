//! A plan as index tensors: which rows a step has, where their keys and values go, and what each may attend to.
//!
//! All numbers of a step lie in one vector, so that one copy brings them to the device, and into the static buffer of a
//! recorded step. A [`Shape`] tells what lies where. The model takes every size that changes between steps from these
//! tensors and never from a number of its own: so a trace of it serves every shape.

use tch::{Device, Tensor};

use code_explainer_engine::{BlockId, SequenceStep, StepPlan};

use crate::error::Result;

/// Sequences with at most so many tokens attend together; longer chunks are worth a call of their own.
const SHORT: usize = 16;

/// The index tensors of one step, all of 64-bit integers.
#[derive(Debug)]
pub(super) struct Batch {
    /// Token ids, `[rows]`.
    pub(super) tokens: Tensor,
    /// Positions in their sequences, `[rows]`.
    pub(super) positions: Tensor,
    /// Where in the flattened KV pool each row goes, `[rows]`.
    pub(super) slots: Tensor,
    /// For each row, where the groups' attention left its result: groups lie one after the other, `[rows]`.
    pub(super) order: Tensor,
    /// Blocks whose first slot is written in this step, `[entered]`.
    pub(super) entered: Tensor,
    /// Rows whose logits are wanted, in the order of the plan, `[outputs]`.
    pub(super) outputs: Tensor,
    pub(super) groups: Vec<Group>,
}

/// Sequences whose attention is one call.
#[derive(Debug)]
pub(super) struct Group {
    /// Rows of the batch, padded with a sequence's first row, `[sequences, queries]`.
    pub(super) rows: Tensor,
    /// Their KV blocks, padded with a sequence's first block, `[sequences, blocks]`.
    pub(super) blocks: Tensor,
    /// 0, 1, 2 and so on: the position of each key, `[blocks * block_tokens]`.
    pub(super) columns: Tensor,
}

/// Sizes of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) entered: usize,
    pub(super) outputs: usize,
    pub(super) groups: Vec<GroupShape>,
}

/// Sizes of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupShape {
    pub(super) sequences: usize,
    pub(super) queries: usize,
    pub(super) blocks: usize,
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

impl Outputs {
    /// These rows of a plan, whose rows are its sequences' tokens one after the other.
    pub(super) fn rows(self, plan: &StepPlan<'_>) -> Vec<i64> {
        let mut rows = Vec::new();
        let mut first = 0;
        for sequence in plan.sequences {
            let length = sequence.tokens.len();
            let wanted = match self {
                Self::Sampled => sequence.sampled(),
                Self::Last => length - 1..length,
                Self::All => 0..length,
            };
            rows.extend(wanted.map(|token| (first + token) as i64));
            first += length;
        }
        rows
    }
}

/// How sequences are put together for attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    /// Short ones where the numbers of their tokens and of their blocks round up to the same powers of two; the bound
    /// keeps padding below the size of what is really read. Each long one is alone.
    Any,
    /// Always two groups, which may be empty: all short ones, and all long ones.
    Two,
}

/// A batch before it is on the device.
#[derive(Debug, Default)]
pub(super) struct Indices {
    tokens: Vec<i64>,
    positions: Vec<i64>,
    slots: Vec<i64>,
    order: Vec<i64>,
    entered: Vec<i64>,
    outputs: Vec<i64>,
    groups: Vec<GroupIndices>,
    block_tokens: usize,
}

#[derive(Debug)]
struct GroupIndices {
    shape: GroupShape,
    rows: Vec<i64>,
    blocks: Vec<i64>,
}

/// A sequence, and its first row in the batch.
type Member<'a> = (usize, &'a SequenceStep<'a>);

impl Indices {
    /// The indices of a plan that [`StepPlan::check`] has passed.
    pub(super) fn new(
        plan: &StepPlan<'_>,
        outputs: Outputs,
        grouping: Grouping,
        block_tokens: usize,
    ) -> Self {
        let mut indices = Self::rows(plan, outputs, block_tokens);
        let starts = plan.sequences.iter().scan(0, |next, sequence| {
            let first = *next;
            *next += sequence.tokens.len();
            Some(first)
        });
        let members: Vec<Member<'_>> = starts.zip(plan.sequences).collect();
        for group in grouped(&members, grouping, block_tokens) {
            indices.group(&group, 1);
        }
        indices
    }

    /// As [`new`](Self::new), in exactly `rows` rows that are one group of as many sequences with `blocks` blocks each: a
    /// sequence of several tokens is one sequence for each of them here, as all of a step's keys are written before any
    /// is read. What is not needed of it does its work in the block `scratch`.
    ///
    /// The plan must have at most that many rows, and its sequences that many blocks.
    pub(super) fn in_bucket(
        plan: &StepPlan<'_>,
        (rows, blocks): (usize, usize),
        scratch: BlockId,
        block_tokens: usize,
    ) -> Self {
        let mut single = Vec::with_capacity(rows);
        for sequence in plan.sequences {
            single.extend((0..sequence.tokens.len()).map(|i| SequenceStep {
                tokens: &sequence.tokens[i..=i],
                past: sequence.past + i,
                ..*sequence
            }));
        }
        let padding = SequenceStep {
            tokens: &[0],
            past: 0,
            blocks: &[scratch],
            sample: None,
        };
        single.resize(rows, padding);
        let plan = StepPlan { sequences: &single };
        let mut indices = Self::rows(&plan, Outputs::All, block_tokens);
        let members: Vec<_> = single.iter().enumerate().collect();
        indices.group(&members, blocks);
        indices.entered.resize(rows, i64::from(scratch));
        indices
    }

    fn rows(plan: &StepPlan<'_>, outputs: Outputs, block_tokens: usize) -> Self {
        let mut indices = Self {
            block_tokens,
            ..Self::default()
        };
        for sequence in plan.sequences {
            for (position, &token) in (sequence.past..).zip(sequence.tokens) {
                let block = sequence.blocks[position / block_tokens] as usize;
                let slot = position % block_tokens;
                indices.tokens.push(i64::from(token));
                indices.positions.push(position as i64);
                indices.slots.push((block * block_tokens + slot) as i64);
                if slot == 0 {
                    indices.entered.push(block as i64);
                }
            }
        }
        indices.outputs = outputs.rows(plan);
        indices.order = vec![0; indices.tokens.len()];
        indices
    }

    /// Adds the group of these sequences, each with `least_blocks` blocks or more.
    fn group(&mut self, members: &[Member<'_>], least_blocks: usize) {
        let needed = |s: &SequenceStep<'_>| (s.past + s.tokens.len()).div_ceil(self.block_tokens);
        let most = |of: &dyn Fn(&SequenceStep<'_>) -> usize| {
            members.iter().map(|(_, s)| of(s)).max().unwrap_or(1)
        };
        let shape = GroupShape {
            sequences: members.len(),
            queries: most(&|s| s.tokens.len()),
            blocks: most(&needed).max(least_blocks),
        };
        let mut start: usize = self.groups.iter().map(|group| group.rows.len()).sum();
        let (mut rows, mut blocks) = (Vec::new(), Vec::new());
        for (first, sequence) in members {
            let length = sequence.tokens.len();
            let own = &sequence.blocks[..needed(sequence)];
            // Padding is masked or thrown away; a sequence's own row and block serve for it, so that nothing of
            // another's is read.
            let row = |query| first + if query < length { query } else { 0 };
            rows.extend((0..shape.queries).map(|query| row(query) as i64));
            let padding = std::iter::repeat_n(&own[0], shape.blocks - own.len());
            blocks.extend(own.iter().chain(padding).map(|&block| i64::from(block)));
            for query in 0..length {
                self.order[first + query] = (start + query) as i64;
            }
            start += shape.queries;
        }
        self.groups.push(GroupIndices {
            shape,
            rows,
            blocks,
        });
    }

    /// Sizes of the batch that these indices make.
    pub(super) fn shape(&self) -> Shape {
        Shape {
            rows: self.tokens.len(),
            entered: self.entered.len(),
            outputs: self.outputs.len(),
            groups: self.groups.iter().map(|group| group.shape).collect(),
        }
    }

    /// All numbers, on the CPU; [`Batch::new`] takes them apart.
    pub(super) fn flat(&self) -> Result<Tensor> {
        let parts = [
            &self.tokens,
            &self.positions,
            &self.slots,
            &self.order,
            &self.entered,
            &self.outputs,
        ];
        let mut flat: Vec<i64> = parts.into_iter().flatten().copied().collect();
        for group in &self.groups {
            flat.extend(group.rows.iter().chain(&group.blocks));
            flat.extend(0..(group.shape.blocks * self.block_tokens) as i64);
        }
        Ok(Tensor::f_from_slice(&flat)?)
    }

    /// The batch, on a device.
    pub(super) fn batch(&self, device: Device) -> Result<Batch> {
        let flat = self.flat()?.f_to_device(device)?;
        Batch::new(&flat, &self.shape(), self.block_tokens)
    }
}

/// The sequences in groups that attend together.
fn grouped<'a>(
    members: &[Member<'a>],
    grouping: Grouping,
    block_tokens: usize,
) -> Vec<Vec<Member<'a>>> {
    let is_short = |member: &Member<'_>| member.1.tokens.len() <= SHORT;
    let (short, long): (Vec<_>, Vec<_>) = members.iter().partition(|member| is_short(member));
    if grouping == Grouping::Two {
        return vec![short, long];
    }
    let mut alike = std::collections::BTreeMap::<_, Vec<_>>::new();
    for member in short {
        let tokens = member.1.tokens.len();
        let blocks = (member.1.past + tokens).div_ceil(block_tokens);
        let class = (tokens.next_power_of_two(), blocks.next_power_of_two());
        alike.entry(class).or_default().push(member);
    }
    let alone = long.into_iter().map(|member| vec![member]);
    alike.into_values().chain(alone).collect()
}

impl Batch {
    /// Views of what [`Indices::flat`] gave for this shape, on whatever device it is now.
    pub(super) fn new(flat: &Tensor, shape: &Shape, block_tokens: usize) -> Result<Self> {
        let mut start = 0;
        let mut take = |sizes: &[usize]| -> Result<Tensor> {
            let length: usize = sizes.iter().product();
            let part = flat.f_narrow(0, start, length as i64)?;
            start += length as i64;
            let sizes: Vec<i64> = sizes.iter().map(|&size| size as i64).collect();
            Ok(part.f_view(sizes.as_slice())?)
        };
        Ok(Self {
            tokens: take(&[shape.rows])?,
            positions: take(&[shape.rows])?,
            slots: take(&[shape.rows])?,
            order: take(&[shape.rows])?,
            entered: take(&[shape.entered])?,
            outputs: take(&[shape.outputs])?,
            groups: (shape.groups.iter())
                .map(|group| {
                    Ok(Group {
                        rows: take(&[group.sequences, group.queries])?,
                        blocks: take(&[group.sequences, group.blocks])?,
                        columns: take(&[group.blocks * block_tokens])?,
                    })
                })
                .collect::<Result<_>>()?,
        })
    }

    /// The tensors in the order of [`from_tensors`](Self::from_tensors).
    pub(super) fn into_tensors(self) -> Vec<Tensor> {
        let mut tensors = vec![
            self.tokens,
            self.positions,
            self.slots,
            self.order,
            self.entered,
            self.outputs,
        ];
        for group in self.groups {
            tensors.extend([group.rows, group.blocks, group.columns]);
        }
        tensors
    }

    /// The batch of these tensors; `None` if it cannot be one by their number.
    pub(super) fn from_tensors(tensors: &[Tensor]) -> Option<Self> {
        let (rows, groups) = tensors.split_at_checked(6)?;
        let own = |tensor: &Tensor| tensor.shallow_clone();
        (groups.len() % 3 == 0).then(|| Self {
            tokens: own(&rows[0]),
            positions: own(&rows[1]),
            slots: own(&rows[2]),
            order: own(&rows[3]),
            entered: own(&rows[4]),
            outputs: own(&rows[5]),
            groups: (groups.chunks_exact(3))
                .map(|group| Group {
                    rows: own(&group[0]),
                    blocks: own(&group[1]),
                    columns: own(&group[2]),
                })
                .collect(),
        })
    }
}
