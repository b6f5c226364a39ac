//! How a step's tokens are shared out, and how many there are. Pure: no clock, no state but its own.

use std::time::Duration;

/// What a step may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Sequences at most.
    pub sequences: usize,
    /// Tokens at most; at least as many as sequences, so that every decode advances in every step.
    pub tokens: usize,
}

/// What a running sequence could do in the next step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Known tokens that have not been run: 1 for a sequence that decodes, 0 for one that has to wait.
    pub tokens: usize,
    /// Guesses of the tokens after those.
    pub drafts: usize,
    /// Its prompt is computed in small portions, for the sake of others.
    pub brief: bool,
}

/// The part of a step's tokens that prompts get of tenants that have had more than others who are there.
pub const BRIEF: usize = 4;

/// Shares a step's tokens out.
///
/// Gives how many tokens of each sequence to run now. Decodes go first, one token each, so that a long prompt never
/// stalls the answers of others; prefill takes what they leave, in `order`, so that prompts are finished one after
/// another; drafts get the rest. Prompts that are `brief` are not begun once a part of the step, one in [`BRIEF`] tokens,
/// is prefill: so a step that somebody waits for is short.
pub fn share_tokens(pending: &[Pending], order: &[usize], tokens: usize) -> Vec<usize> {
    let mut left = tokens;
    let mut take = |wanted: usize| {
        let share = wanted.min(left);
        left -= share;
        share
    };
    let mut shares: Vec<usize> = pending
        .iter()
        .map(|p| if p.tokens == 1 { take(1) } else { 0 })
        .collect();
    let brief = (tokens / BRIEF).max(1);
    let mut prefill = 0;
    for &index in order.iter().filter(|&&index| pending[index].tokens > 1) {
        let wanted = match pending[index] {
            Pending {
                tokens,
                brief: true,
                ..
            } => tokens.min(brief.saturating_sub(prefill)),
            Pending { tokens, .. } => tokens,
        };
        shares[index] = take(wanted);
        prefill += shares[index];
    }
    for (share, p) in shares.iter_mut().zip(pending) {
        if p.tokens > 0 && *share == p.tokens {
            *share += take(p.drafts);
        }
    }
    shares
}

/// How many tokens a step may have at the moment: what is configured, less where memory or a promise does not allow it.
#[derive(Debug, Clone)]
pub struct Budget {
    most: usize,
    /// Less than `most` after a step ran out of memory.
    memory: f64,
    /// The inter-token latency to keep, and the tokens that it allows, as far as is known.
    latency: Option<(Duration, f64)>,
}

/// By how much a budget grows after a step that it limited.
const GROWTH: f64 = 1.05;
/// Part of the latency target that is aimed at: steps vary.
const MARGIN: f64 = 0.9;

impl Budget {
    /// A budget of up to `most` tokens that keeps the time between two tokens of a stream at `target`.
    pub fn new(most: usize, target: Option<Duration>) -> Self {
        Self {
            most,
            memory: most as f64,
            latency: target.map(|target| (target, most as f64)),
        }
    }

    /// Tokens for the next step. Only with a sequence in it that decodes is there somebody who waits for it.
    pub fn tokens(&self, decoding: bool) -> usize {
        let latency = (self.latency.filter(|_| decoding)).map_or(self.memory, |(_, tokens)| tokens);
        (self.memory.min(latency) as usize).clamp(1, self.most)
    }

    /// A step of `rows` tokens took this long.
    pub fn done(&mut self, rows: usize, decoding: bool, took: Duration) {
        let most = self.most as f64;
        self.memory = grown(self.memory, most);
        let Some((target, tokens)) = &mut self.latency else {
            return;
        };
        if !decoding {
            return;
        }
        let aim = target.as_secs_f64() * MARGIN;
        if took.as_secs_f64() > aim {
            // As if the time were proportional to the rows; it is less than that, so this errs towards more tokens and
            // comes to rest after some steps.
            let fits = rows as f64 * aim / took.as_secs_f64();
            *tokens = tokens.min(fits).max(1.0);
        } else if rows + 1 >= *tokens as usize {
            *tokens = grown(*tokens, most);
        }
    }

    /// A step of `rows` tokens ran out of memory.
    pub fn out_of_memory(&mut self, rows: usize) {
        self.memory = (rows as f64 / 2.0).max(1.0);
    }
}

fn grown(tokens: f64, most: f64) -> f64 {
    (tokens * GROWTH + 0.5).min(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prompts_and_decodes(tokens: &[usize]) -> Vec<Pending> {
        let pending = |&tokens: &usize| Pending {
            tokens,
            ..Pending::default()
        };
        tokens.iter().map(pending).collect()
    }

    /// In the order in which they are given.
    fn share(pending: &[Pending], tokens: usize) -> Vec<usize> {
        let order: Vec<usize> = (0..pending.len()).collect();
        share_tokens(pending, &order, tokens)
    }

    #[test]
    fn decodes_go_before_an_older_prefill() {
        assert_eq!(share(&prompts_and_decodes(&[100, 1, 1]), 10), [8, 1, 1]);
    }

    #[test]
    fn prompts_are_finished_in_order() {
        assert_eq!(
            share(&prompts_and_decodes(&[6, 1, 100, 3]), 10),
            [6, 1, 3, 0]
        );
    }

    #[test]
    fn drafts_get_what_is_left() {
        let decode = Pending {
            tokens: 1,
            drafts: 4,
            brief: false,
        };
        let prompt = Pending {
            tokens: 3,
            ..Pending::default()
        };
        assert_eq!(share(&[decode, decode, prompt], 10), [5, 2, 3]);
        assert_eq!(share(&[decode, decode, prompt], 4), [1, 1, 2]);
    }

    #[test]
    fn who_waits_gets_nothing() {
        let waits = Pending {
            tokens: 0,
            ..Pending::default()
        };
        let prompt = Pending {
            tokens: 9,
            ..Pending::default()
        };
        assert_eq!(share(&[prompt, waits, prompt], 12), [9, 0, 3]);
    }

    #[test]
    fn prompts_are_computed_in_the_order_of_turns() {
        let pending = prompts_and_decodes(&[8, 1, 8]);
        assert_eq!(share_tokens(&pending, &[2, 1, 0], 10), [1, 1, 8]);
    }

    #[test]
    fn prompts_of_a_flood_leave_steps_short() {
        let flood = Pending {
            tokens: 100,
            brief: true,
            ..Pending::default()
        };
        let other = Pending {
            brief: false,
            ..flood
        };
        assert_eq!(share(&[flood, flood], 64), [16, 0]);
        assert_eq!(share(&[other, flood], 64), [64, 0]);
        let short = Pending {
            tokens: 10,
            ..other
        };
        assert_eq!(share(&[short, flood], 64), [10, 6]);
        assert_eq!(share(&[flood], 2), [1], "and never stand still");
    }

    /// Steps that take `fixed + rows * each` milliseconds, with as many tokens to prefill as fit.
    fn settle(budget: &mut Budget, fixed: f64, each: f64) -> Vec<f64> {
        let steps = (0..300).map(|_| {
            let rows = budget.tokens(true);
            let took = fixed + rows as f64 * each;
            budget.done(rows, true, Duration::from_secs_f64(took / 1000.0));
            took
        });
        steps.collect()
    }

    #[test]
    fn the_budget_finds_what_the_latency_target_allows() {
        let mut budget = Budget::new(512, Some(Duration::from_millis(50)));
        let times = settle(&mut budget, 8.0, 0.25);
        let last = &times[200..];
        assert!(last.iter().all(|&took| took <= 50.0), "{last:?}");
        assert!(
            last.iter().sum::<f64>() / last.len() as f64 > 38.0,
            "{last:?}"
        );
        assert_eq!(budget.tokens(false), 512, "with nobody waiting");
        // The machine got faster: so does the budget.
        settle(&mut budget, 1.0, 0.05);
        assert_eq!(budget.tokens(true), 512);
    }

    #[test]
    fn without_a_target_or_trouble_the_budget_is_what_was_configured() {
        let mut budget = Budget::new(256, None);
        settle(&mut budget, 1000.0, 100.0);
        assert_eq!(budget.tokens(true), 256);
    }

    #[test]
    fn after_running_out_of_memory_steps_are_smaller_for_a_while() {
        let mut budget = Budget::new(256, None);
        budget.out_of_memory(200);
        assert_eq!(budget.tokens(false), 100);
        budget.out_of_memory(1);
        assert_eq!(budget.tokens(false), 1);
        settle(&mut budget, 1.0, 1.0);
        assert_eq!(budget.tokens(false), 256);
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_nothing_is_left_lying(
            pending in prop::collection::vec((1_usize..50, 0_usize..6), 1..8),
            tokens in 8_usize..64,
        ) {
            let pending: Vec<_> = pending
                .into_iter()
                .map(|(tokens, drafts)| Pending { tokens, drafts, brief: false })
                .collect();
            let shares = share(&pending, tokens);
            let total: usize = shares.iter().sum();
            let wanted: usize = pending.iter().map(|p| p.tokens + p.drafts).sum();
            prop_assert!(total <= tokens.min(wanted));
            let known: usize = pending.iter().map(|p| p.tokens).sum();
            prop_assert!(total >= tokens.min(known));
            for (share, p) in shares.iter().zip(&pending) {
                prop_assert!(*share <= p.tokens + p.drafts);
                if p.tokens == 1 { prop_assert!(*share >= 1, "every decode advances in every step"); }
            }
        }
    }
}
