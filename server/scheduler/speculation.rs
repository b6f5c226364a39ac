//! How many drafts are worth their rows.
//!
//! A draft costs a row of the step, and gains a token if it holds. Drafts are taken, likeliest first, as long as the
//! tokens that the step is expected to give by the time that it is expected to take become more: goodput, as Liu et al.
//! call it ("Optimizing Speculative Decoding for Serving Large Language Models Using Goodput", 2024). Both expectations are
//! learned from the steps themselves, so that speculation ends by itself where it does not pay. They decide how fast an
//! answer comes, never what it is.

use std::time::Duration;

/// Most drafts of a sequence in a step.
pub const MOST_DRAFTS: usize = 8;

/// In place of a step's number: what is known so is never learned anew.
const FOREVER: u64 = u64::MAX;

/// A plan with drafts must promise this much more than one without: what is learned is not exact.
const WORTHWHILE: f64 = 1.03;

/// How likely a sequence's drafts are to hold.
#[derive(Debug, Clone, Copy)]
pub struct Acceptance {
    held: f64,
    tried: f64,
}

impl Acceptance {
    /// What is believed before anything is known, and how much it weighs.
    const PRIOR: (f64, f64) = (0.5, 2.0);
    /// What a new trial leaves of the weight of older ones.
    const MEMORY: f64 = 0.9;

    /// The probability that a draft holds if the one before it does.
    pub fn probability(&self) -> f64 {
        (self.held + Self::PRIOR.0 * Self::PRIOR.1) / (self.tried + Self::PRIOR.1)
    }

    /// Of `drafts` drafts the first `held` held. Those after the first that did not were never put to the test.
    pub fn observe(&mut self, drafts: usize, held: usize) {
        let tried = drafts.min(held + 1);
        for trial in 0..tried {
            self.held = self.held * Self::MEMORY + f64::from(u8::from(trial < held));
            self.tried = self.tried * Self::MEMORY + 1.0;
        }
    }

    /// Drafts were there and none was tried: what is known slowly loses its weight, so that they get another chance.
    pub fn forget(&mut self) {
        self.held *= 0.98;
        self.tried *= 0.98;
    }
}

impl Default for Acceptance {
    fn default() -> Self {
        Self {
            held: 0.0,
            tried: 0.0,
        }
    }
}

/// How long a step without prefill takes, by its rows.
#[derive(Debug, Clone)]
pub struct StepCosts {
    /// By rows, the smoothed time in seconds and the number of the step that it was last seen in.
    seen: Vec<Option<(f64, u64)>>,
    steps: u64,
}

impl StepCosts {
    /// Steps with more rows than this are not learned, and get no drafts.
    const MOST_ROWS: usize = 256;
    /// Weight of a new time.
    const SMOOTHING: f64 = 0.2;
    /// Times older than this many steps are not believed any more.
    const LIFETIME: u64 = 4096;

    /// Nothing is known yet.
    pub fn new() -> Self {
        Self {
            seen: vec![None; Self::MOST_ROWS + 1],
            steps: 0,
        }
    }

    /// Rows cost nothing, and no step teaches otherwise: every draft is worth its row.
    #[cfg(test)]
    pub fn free() -> Self {
        Self {
            seen: vec![Some((1.0, FOREVER)); Self::MOST_ROWS + 1],
            steps: 0,
        }
    }

    /// A step of `rows` rows took this long.
    pub fn observe(&mut self, rows: usize, took: Duration) {
        self.steps += 1;
        let steps = self.steps;
        let seen = self.seen.get_mut(rows);
        if let Some(seen) = seen.filter(|seen| !matches!(seen, Some((_, FOREVER)))) {
            let took = took.as_secs_f64();
            let smoothed = match seen {
                // Something else took the machine's time if a step is far slower than those before it.
                Some((old, _)) => *old + (took.min(*old * 2.0) - *old) * Self::SMOOTHING,
                None => took,
            };
            *seen = Some((smoothed, steps));
        }
    }

    /// Seconds of a step of `rows` rows, from those that were seen: between two of them by a straight line, past the
    /// largest as if rows were free, which makes sure that they are tried.
    fn estimate(&self, rows: usize) -> Option<f64> {
        let at = |rows: usize| {
            let (seconds, step) = (*self.seen.get(rows)?)?;
            (step.saturating_add(Self::LIFETIME) >= self.steps).then_some((rows as f64, seconds))
        };
        let below = (1..=rows).rev().find_map(at);
        let above = (rows..self.seen.len()).find_map(at);
        match (below, above) {
            (Some((r0, t0)), Some((r1, t1))) if r1 > r0 => {
                Some(t0 + (t1 - t0).max(0.0) * (rows as f64 - r0) / (r1 - r0))
            }
            (Some((_, t)), _) | (None, Some((_, t))) => Some(t),
            (None, None) => None,
        }
    }
}

impl Default for StepCosts {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives how many of each sequence's drafts to run: `drafts` are how many there are and how likely one is to hold, for
/// each of the `rows` sequences that decode.
pub fn choose_drafts(drafts: &[(usize, f64)], costs: &StepCosts) -> Vec<usize> {
    let rows = drafts.len();
    let mut chosen = vec![0; rows];
    let Some(alone) = costs.estimate(rows) else {
        return chosen;
    };
    let mut candidates: Vec<(f64, usize)> = Vec::new();
    for (sequence, &(count, probability)) in drafts.iter().enumerate() {
        let chain = std::iter::successors(Some(probability), |p| Some(p * probability));
        candidates.extend(chain.take(count).map(|p| (p, sequence)));
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    candidates.truncate(StepCosts::MOST_ROWS.saturating_sub(rows));
    let (mut tokens, mut best, mut take) = (rows as f64, rows as f64 / alone * WORTHWHILE, 0);
    for (n, (probability, _)) in candidates.iter().enumerate() {
        tokens += probability;
        let goodput = costs
            .estimate(rows + n + 1)
            .map_or(0.0, |cost| tokens / cost);
        if goodput > best {
            (best, take) = (goodput, n + 1);
        }
    }
    for (_, sequence) in &candidates[..take] {
        chosen[*sequence] += 1;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(seconds: impl Fn(usize) -> f64) -> StepCosts {
        let mut costs = StepCosts::new();
        for rows in 1..=64 {
            costs.observe(rows, Duration::from_secs_f64(seconds(rows)));
        }
        costs
    }

    #[test]
    fn where_rows_are_free_every_draft_is_taken() {
        let free = costs(|_| 0.01);
        assert_eq!(choose_drafts(&[(4, 0.5)], &free), [4]);
        assert_eq!(
            choose_drafts(&[(4, 0.5), (0, 0.5), (2, 0.9)], &free),
            [4, 0, 2]
        );
    }

    #[test]
    fn where_a_row_costs_as_much_as_a_token_none_is() {
        let dear = costs(|rows| rows as f64 * 0.01);
        assert_eq!(choose_drafts(&[(8, 0.9)], &dear), [0]);
    }

    #[test]
    fn in_between_it_depends_on_how_likely_they_are() {
        let costs = costs(|rows| 0.01 + 0.002 * rows as f64);
        assert_eq!(choose_drafts(&[(8, 0.05)], &costs), [0]);
        let [few] = choose_drafts(&[(8, 0.5)], &costs)[..] else {
            panic!("one sequence")
        };
        let [many] = choose_drafts(&[(8, 0.9)], &costs)[..] else {
            panic!("one sequence")
        };
        assert!(0 < few && few < many, "{few} {many}");
    }

    #[test]
    fn nothing_is_drafted_before_anything_is_known() {
        assert_eq!(choose_drafts(&[(8, 0.9)], &StepCosts::new()), [0]);
    }

    #[test]
    fn what_was_never_tried_is_tried() {
        let mut costs = StepCosts::new();
        costs.observe(1, Duration::from_millis(10));
        assert_eq!(choose_drafts(&[(3, 0.5)], &costs), [3]);
        costs.observe(4, Duration::from_millis(40));
        assert_eq!(
            choose_drafts(&[(3, 0.5)], &costs),
            [0],
            "and left when it is slow"
        );
    }

    #[test]
    fn acceptance_follows_what_happens() {
        let mut acceptance = Acceptance::default();
        let before = acceptance.probability();
        for _ in 0..20 {
            acceptance.observe(4, 0);
        }
        assert!(acceptance.probability() < 0.15);
        for _ in 0..400 {
            acceptance.forget();
        }
        assert!((acceptance.probability() - before).abs() < 0.05);
        for _ in 0..20 {
            acceptance.observe(4, 4);
        }
        assert!(acceptance.probability() > 0.85);
    }
}
