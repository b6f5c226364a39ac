//! Which sequences a step works on, and how far: pure decisions, tested without an engine.

/// What a step may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Sequences at most.
    pub sequences: usize,
    /// Tokens at most, over all sequences. At least `sequences`, so that every decode fits.
    pub tokens: usize,
}

/// Shares a step's tokens out: continuous batching with chunked prefill (Agrawal et al., "Sarathi-Serve", 2024).
///
/// `pending[i]` is how many tokens of running sequence `i` wait to be run: 1 for one that decodes, the rest of the
/// prompt for one that is in prefill. Gives how many of them to run now. Decodes go first, one token each, so that a
/// long prompt never stalls the answers of others; prefill takes what the budget leaves, oldest first, so that prompts
/// are finished one after another.
pub fn share_tokens(pending: &[usize], limits: StepLimits) -> Vec<usize> {
    let mut left = limits.tokens;
    let mut shares: Vec<usize> = pending
        .iter()
        .map(|&p| {
            let share = usize::from(p == 1 && left > 0);
            left -= share;
            share
        })
        .collect();
    for (share, &p) in shares.iter_mut().zip(pending) {
        if p > 1 {
            *share = p.min(left);
            left -= *share;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: StepLimits = StepLimits {
        sequences: 4,
        tokens: 10,
    };

    #[test]
    fn decodes_go_before_an_older_prefill() {
        assert_eq!(share_tokens(&[100, 1, 1], LIMITS), [8, 1, 1]);
    }

    #[test]
    fn prompts_are_finished_in_order() {
        assert_eq!(share_tokens(&[6, 1, 100, 3], LIMITS), [6, 1, 3, 0]);
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_nothing_is_left_lying(
            pending in prop::collection::vec(1_usize..50, 1..8),
            tokens in 8_usize..64,
        ) {
            let shares = share_tokens(&pending, StepLimits { sequences: 8, tokens });
            let total: usize = shares.iter().sum();
            prop_assert_eq!(total, tokens.min(pending.iter().sum()));
            for (share, p) in shares.iter().zip(&pending) {
                prop_assert!(share <= p);
                if *p == 1 { prop_assert_eq!(*share, 1, "every decode advances in every step"); }
            }
        }
    }
}
