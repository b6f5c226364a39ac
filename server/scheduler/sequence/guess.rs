//! What a sequence may say next, and what came of that.

use super::Sequence;
use crate::lookup::Lookup;
use crate::speculation::{Acceptance, MOST_DRAFTS, Odds, Tendency};

/// A guess of what a sequence says next.
#[derive(Debug, Default)]
pub(super) struct Guess {
    lookup: Lookup,
    tendency: Tendency,
    tokens: Vec<u32>,
    /// How long the match is that the guess comes from.
    matched: usize,
}

impl Guess {
    /// Guesses up to `most` tokens that may follow.
    fn look(&mut self, tokens: &[u32], most: usize) {
        self.tokens.clear();
        if most > 0 {
            let found = self.lookup.draft(tokens, most);
            self.tokens.extend_from_slice(found.tokens);
            self.matched = found.matched;
        }
    }

    fn odds(&self, acceptance: &Acceptance) -> Odds {
        let lengths = self.matched..self.matched + self.tokens.len();
        Odds::of(lengths.map(|matched| self.tendency.of(acceptance.probability(matched))))
    }

    /// These tokens came. A guess that was not tried as a draft is judged all the same.
    fn judge(&mut self, came: &[u32], acceptance: &mut Acceptance) {
        for (i, (guessed, came)) in self.tokens.iter().zip(came).enumerate() {
            let holds = guessed == came;
            let expected = acceptance.probability(self.matched + i);
            self.tendency.observe(expected, holds);
            acceptance.observe(self.matched + i, holds);
            if !holds {
                break;
            }
        }
        self.tokens.clear();
    }
}

impl Sequence {
    /// How many drafts may be tried now: all that they could give must be wanted, and no token may be banned after some
    /// of them only.
    fn most_drafts(&self, context: usize) -> usize {
        let generated = self.generated();
        let until_end = self.job.max_new_tokens.saturating_sub(generated + 1);
        let until_full = context.saturating_sub(self.known() + 1);
        let until_allowed = match self.job.min_new_tokens.checked_sub(generated) {
            None | Some(0) => usize::MAX,
            Some(left) => left - 1,
        };
        MOST_DRAFTS
            .min(until_end)
            .min(until_full)
            .min(until_allowed)
    }

    /// Guesses what comes next, and says how likely it is.
    pub(crate) fn propose(&mut self, context: usize, acceptance: &Acceptance) -> Odds {
        self.drop_drafts();
        let most = self.most_drafts(context);
        self.guess.look(&self.tokens, most);
        self.drafts = self.guess.tokens.len();
        self.tokens.extend_from_slice(&self.guess.tokens);
        self.guess.odds(acceptance)
    }

    /// Tells what its guesses have come to, now that these tokens were sampled.
    pub(crate) fn judge_guess(&mut self, sampled: &[u32], acceptance: &mut Acceptance) {
        self.guess.judge(sampled, acceptance);
    }

    /// Keeps only the first `count` drafts.
    pub(crate) fn keep_drafts(&mut self, count: usize) {
        self.tokens.truncate(self.known() + count.min(self.drafts));
        self.drafts = count.min(self.drafts);
    }

    /// Keeps no draft.
    pub(crate) fn drop_drafts(&mut self) {
        self.tokens.truncate(self.known());
        self.drafts = 0;
    }
}
