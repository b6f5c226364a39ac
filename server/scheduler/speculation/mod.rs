//! How many drafts are worth their rows.
//!
//! A draft costs a row of the step, and gains a token if it holds. Drafts are taken, likeliest first, as long as the
//! tokens that the step is expected to give by the time that it is expected to take become more: goodput, as Liu et al.
//! call it ("Optimizing Speculative Decoding for Serving Large Language Models Using Goodput", 2024). Both expectations are
//! learned from the steps themselves ([`acceptance`], [`costs`]), so that speculation ends by itself where it does not
//! pay. They decide how fast an answer comes, never what it is.

pub mod acceptance;
pub mod costs;

pub use acceptance::{Acceptance, Tendency};
pub use costs::StepCosts;

/// Most drafts of a sequence in a step.
pub const MOST_DRAFTS: usize = 8;

/// A plan with drafts must promise this much more than one without: what is learned is not exact.
const WORTHWHILE: f64 = 1.03;
/// And a draft this much more than the time of its row gives without it: of many, those come first that are believed too
/// likely.
const MARGIN: f64 = 1.25;

/// After so many steps that had likely drafts and tried none, one draft is tried, so that what a row costs is not
/// believed for ever. It costs a small part of one step in so many.
const PATIENCE: u32 = 256;
/// What is likely enough to be tried then.
const LIKELY: f64 = 0.25;

/// When drafts are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drafting {
    /// Not at all.
    Never,
    /// Where they are expected to pay.
    WherePays,
    /// Wherever there are any.
    Always,
}

/// Where they pay, or not at all.
impl From<bool> for Drafting {
    fn from(wanted: bool) -> Self {
        match wanted {
            true => Self::WherePays,
            false => Self::Never,
        }
    }
}

/// How likely each of a sequence's drafts is to hold, with all those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Odds {
    drafts: [f64; MOST_DRAFTS],
    count: usize,
}

impl Odds {
    /// Of drafts each of which holds with its probability if those before it do. Those past [`MOST_DRAFTS`] are left out.
    pub fn of(probabilities: impl Iterator<Item = f64>) -> Self {
        let mut odds = Self::default();
        let mut all = 1.0;
        for p in probabilities.take(MOST_DRAFTS) {
            all *= p;
            odds.drafts[odds.count] = all;
            odds.count += 1;
        }
        odds
    }

    /// How many drafts there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There is nothing to guess.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn drafts(&self) -> &[f64] {
        &self.drafts[..self.count]
    }
}

/// What an engine has learned about drafts.
#[derive(Debug, Clone, Default)]
pub struct Speculation {
    /// How often they hold.
    pub acceptance: Acceptance,
    /// What they cost.
    pub costs: StepCosts,
    /// Steps in a row that had likely drafts and tried none.
    untried: u32,
}

impl Speculation {
    /// Gives how many of each sequence's drafts to run, for each sequence that decodes.
    pub fn choose(&mut self, odds: &[Odds]) -> Vec<usize> {
        let (chosen, best) = choose_drafts(odds, &self.costs);
        if let Some((sequence, p)) = best
            && p >= LIKELY
        {
            self.untried += 1;
            if chosen.iter().any(|&count| count > 0) {
                self.untried = 0;
            } else if self.untried >= PATIENCE {
                self.untried = 0;
                let mut chosen = chosen;
                chosen[sequence] = 1;
                return chosen;
            }
        }
        chosen
    }
}

/// The number of drafts of each sequence, and which sequence's first one is the likeliest.
fn choose_drafts(odds: &[Odds], costs: &StepCosts) -> (Vec<usize>, Option<(usize, f64)>) {
    let rows = odds.len();
    let mut chosen = vec![0; rows];
    let Some(alone) = costs.of(rows) else {
        return (chosen, None);
    };
    let (row, alone_gives) = (costs.row(), rows as f64 / alone);
    // Those that give less than a row's time gives without them only make it less.
    let least = row * alone_gives * MARGIN;
    let mut candidates: Vec<(f64, usize)> = Vec::new();
    for (sequence, odds) in odds.iter().enumerate() {
        let pay = odds.drafts().iter().filter(|&&p| p >= least);
        candidates.extend(pay.map(|&p| (p, sequence)));
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut tokens, mut time) = (rows as f64, alone);
    let take = (candidates.iter())
        .take_while(|(p, _)| {
            let pays = (tokens + p) * time >= tokens * (time + row);
            (tokens, time) = (tokens + p, time + row);
            pays
        })
        .count();
    let tokens = rows as f64 + candidates[..take].iter().map(|(p, _)| p).sum::<f64>();
    if tokens / (alone + take as f64 * row) > alone_gives * WORTHWHILE {
        for (_, sequence) in &candidates[..take] {
            chosen[*sequence] += 1;
        }
    }
    let first = |(sequence, odds): (usize, &Odds)| Some((sequence, *odds.drafts().first()?));
    let likeliest = (odds.iter().enumerate())
        .filter_map(first)
        .max_by(|a, b| a.1.total_cmp(&b.1));
    (chosen, likeliest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Where a step takes `alone` milliseconds without drafts, and `row` more with each.
    fn engine(sequences: usize, alone: f64, row: f64) -> Speculation {
        let mut speculation = Speculation::default();
        for i in 0..500 {
            let drafts = [0, 0, 0, 4][i % 4];
            let took = alone + row * drafts as f64;
            let took = Duration::from_secs_f64(took / 1e3);
            speculation.costs.observe(sequences + drafts, took);
        }
        speculation
    }

    fn odds(count: usize, p: f64) -> Odds {
        Odds::of(std::iter::repeat_n(p, count))
    }

    #[test]
    fn where_rows_are_free_every_draft_is_taken() {
        let mut free = engine(3, 10.0, 0.0);
        assert_eq!(
            free.choose(&[odds(4, 0.5), odds(0, 0.5), odds(2, 0.9)]),
            [4, 0, 2]
        );
    }

    #[test]
    fn where_a_row_costs_as_much_as_a_token_none_is() {
        assert_eq!(engine(1, 10.0, 10.0).choose(&[odds(8, 0.9)]), [0]);
    }

    #[test]
    fn in_between_it_depends_on_how_likely_they_are() {
        let mut engine = engine(1, 12.0, 2.0);
        assert_eq!(engine.choose(&[odds(8, 0.05)]), [0]);
        let few = engine.choose(&[odds(8, 0.5)])[0];
        let many = engine.choose(&[odds(8, 0.9)])[0];
        assert!(0 < few && few < many, "{few} {many}");
    }

    #[test]
    fn the_likeliest_are_taken_whosever_they_are() {
        let chosen = engine(3, 12.0, 2.0).choose(&[odds(8, 0.1), odds(8, 0.95), odds(1, 0.9)]);
        assert_eq!((chosen[0], chosen[2]), (0, 1));
        assert!(chosen[1] > 1, "{chosen:?}");
    }

    #[test]
    fn nothing_is_drafted_before_anything_is_known() {
        assert_eq!(Speculation::default().choose(&[odds(8, 0.9)]), [0]);
    }

    #[test]
    fn what_is_believed_of_rows_is_tested_now_and_then() {
        let mut engine = engine(1, 10.0, 10.0);
        let mut tried = 0;
        for _ in 0..10 * PATIENCE {
            tried += engine.choose(&[odds(8, 0.9)])[0];
        }
        assert_eq!(tried, 10);
        assert_eq!(engine.choose(&[odds(0, 0.9)]), [0]);
    }
}
