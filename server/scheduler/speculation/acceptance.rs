//! How often guesses hold.
//!
//! A guess is what followed the last occurrence of a sequence's end. It tends to hold the more, the longer that occurrence is
//! like the end; and every step shows whether the first guess was right, be it tried or not. So what is known is learned at
//! no cost, for all sequences of an engine together, by the length of the match, and a new sequence begins with it.

/// Longer matches than this are not told apart.
pub const LONGEST_MATCH: usize = 8;

/// What is believed of matches of 1, 2, ... tokens before anything is known; what they come to on explanations of code.
const PRIOR: [f64; LONGEST_MATCH] = [0.2, 0.45, 0.6, 0.7, 0.75, 0.75, 0.75, 0.85];
/// How many guesses that belief weighs.
const PRIOR_WEIGHT: f64 = 16.0;
/// What a guess leaves of the weight of older ones of the same length.
const MEMORY: f64 = 0.998;

/// How often guesses held, by the length of the match that they came from.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// Guesses that held, and all.
    seen: [(f64, f64); LONGEST_MATCH],
}

impl Acceptance {
    /// The probability that a guess holds that a match of so many tokens gave. After it, the match is a token longer.
    pub fn probability(&self, matched: usize) -> f64 {
        let (held, all) = self.seen[cell(matched)];
        held / all
    }

    /// A guess held, or did not.
    pub fn observe(&mut self, matched: usize, holds: bool) {
        let (held, all) = &mut self.seen[cell(matched)];
        *held = *held * MEMORY + f64::from(u8::from(holds));
        *all = *all * MEMORY + 1.0;
    }
}

impl Default for Acceptance {
    fn default() -> Self {
        let prior = |p: f64| (p * PRIOR_WEIGHT, PRIOR_WEIGHT);
        Self {
            seen: PRIOR.map(prior),
        }
    }
}

fn cell(matched: usize) -> usize {
    matched.clamp(1, LONGEST_MATCH) - 1
}

/// How much more, or less, a sequence's guesses hold than those of others do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tendency {
    held: f64,
    expected: f64,
}

impl Tendency {
    /// How many guesses that hold the belief weighs that a sequence is like the others.
    const PRIOR: f64 = 8.0;
    /// What a guess leaves of the weight of older ones.
    const MEMORY: f64 = 0.97;
    /// Nothing is certain.
    const MOST: f64 = 0.97;

    /// The probability that its guess holds, where that of others does with probability `p`.
    pub fn of(self, p: f64) -> f64 {
        let ratio = (self.held + Self::PRIOR) / (self.expected + Self::PRIOR);
        (p * ratio).min(Self::MOST)
    }

    /// A guess that others' would have held with probability `p` held, or did not.
    pub fn observe(&mut self, p: f64, holds: bool) {
        self.held = self.held * Self::MEMORY + f64::from(u8::from(holds));
        self.expected = self.expected * Self::MEMORY + p;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_happens_by_the_length_of_the_match() {
        let mut acceptance = Acceptance::default();
        let before = acceptance.probability(4);
        for i in 0..4000 {
            acceptance.observe(1, i % 10 == 0);
            acceptance.observe(20, i % 10 != 0);
        }
        assert!((acceptance.probability(1) - 0.1).abs() < 0.03);
        assert!((acceptance.probability(LONGEST_MATCH) - 0.9).abs() < 0.03);
        assert_eq!(acceptance.probability(4), before);
        for _ in 0..2000 {
            acceptance.observe(1, true);
        }
        assert!(
            acceptance.probability(1) > 0.95,
            "and what it was is forgotten"
        );
    }

    #[test]
    fn a_sequence_that_copies_more_than_others_is_believed_to_go_on_so() {
        let mut tendency = Tendency::default();
        assert_eq!(tendency.of(0.4), 0.4);
        for _ in 0..20 {
            tendency.observe(0.4, true);
        }
        assert!(tendency.of(0.4) > 0.6);
        for _ in 0..80 {
            tendency.observe(0.4, false);
        }
        assert!(tendency.of(0.4) < 0.25);
    }
}
