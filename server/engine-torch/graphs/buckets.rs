//! Which sizes of steps are recorded, and which of them serves a step. Pure.

use code_explainer_engine::StepPlan;

/// Rows and KV blocks of each row that a recorded step has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Bucket {
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
}

/// The sizes that are recorded, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buckets {
    rows: Vec<usize>,
    blocks: Vec<usize>,
}

impl Buckets {
    /// Rows in powers of two, so that less than half of a step is padding. Blocks in powers of four, because the time that
    /// attention takes is a small share of a step's; the last bucket has `most_blocks`, which is what a whole context needs.
    pub(crate) fn new(most_rows: usize, most_blocks: usize) -> Self {
        let up_to = |most: usize, first: usize, factor: usize| {
            let powers = std::iter::successors(Some(first), move |n| n.checked_mul(factor));
            let mut sizes: Vec<_> = powers.take_while(|&n| n < most).collect();
            sizes.push(most);
            sizes
        };
        Self {
            rows: up_to(most_rows, 1, 2),
            blocks: up_to(most_blocks, 8, 4),
        }
    }

    /// All of them, the largest first: what it needs of a memory pool serves the others too.
    pub(crate) fn all(&self) -> impl Iterator<Item = Bucket> {
        (self.rows.iter().rev()).flat_map(|&rows| {
            let blocks = self.blocks.iter().rev();
            blocks.map(move |&blocks| Bucket { rows, blocks })
        })
    }

    /// The smallest that holds the plan, if one does.
    pub(crate) fn fit(&self, plan: &StepPlan<'_>, block_tokens: usize) -> Option<Bucket> {
        let context = |s: &code_explainer_engine::SequenceStep<'_>| s.past + s.tokens.len();
        let longest = plan.sequences.iter().map(context).max()?;
        let smallest = |sizes: &[usize], least| sizes.iter().copied().find(|&size| size >= least);
        Some(Bucket {
            rows: smallest(&self.rows, plan.rows())?,
            blocks: smallest(&self.blocks, longest.div_ceil(block_tokens))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use code_explainer_engine::SequenceStep;

    fn fit(buckets: &Buckets, sequences: &[(usize, usize)]) -> Option<(usize, usize)> {
        let tokens = [0; 100];
        let sequences: Vec<_> = (sequences.iter())
            .map(|&(past, count)| SequenceStep {
                tokens: &tokens[..count],
                past,
                blocks: &[],
                sample: None,
            })
            .collect();
        let plan = StepPlan {
            sequences: &sequences,
        };
        buckets.fit(&plan, 16).map(|b| (b.rows, b.blocks))
    }

    #[test]
    fn a_step_gets_the_smallest_bucket_that_holds_it() {
        let buckets = Buckets::new(32, 128);
        assert_eq!(fit(&buckets, &[(0, 1)]), Some((1, 8)));
        assert_eq!(fit(&buckets, &[(127, 1); 3]), Some((4, 8)));
        assert_eq!(fit(&buckets, &[(128, 1), (3, 1)]), Some((2, 32)));
        assert_eq!(fit(&buckets, &[(2047, 1)]), Some((1, 128)));
        // A token and its drafts are rows like others.
        assert_eq!(fit(&buckets, &[(9, 5), (9, 1)]), Some((8, 8)));
    }

    #[test]
    fn what_no_bucket_holds_gets_none() {
        let buckets = Buckets::new(32, 128);
        assert_eq!(fit(&buckets, &[]), None);
        assert_eq!(fit(&buckets, &[(0, 33)]), None);
        assert_eq!(fit(&buckets, &[(2048, 1)]), None);
    }

    #[test]
    fn the_largest_is_what_was_asked_for_and_comes_first() {
        let buckets = Buckets::new(24, 100);
        let all: Vec<_> = buckets.all().map(|b| (b.rows, b.blocks)).collect();
        assert_eq!(all.len(), 6 * 3);
        assert_eq!(all[0], (24, 100));
        assert_eq!(all[all.len() - 1], (1, 8));
        let tiny: Vec<_> = Buckets::new(1, 2).all().collect();
        assert_eq!(tiny, [Bucket { rows: 1, blocks: 2 }]);
    }
}
