//! Drafts from the sequence itself: what followed the last time the same few tokens came.
//!
//! Prompt lookup decoding (Saxena 2023): explanations copy names and phrases out of the code, and repeat themselves.

use std::collections::HashMap;

use crate::speculation::acceptance::LONGEST_MATCH;

/// The longest n-gram that is looked up.
const LONGEST: usize = 3;

/// Where each n-gram of a sequence was last followed by something.
#[derive(Debug, Default)]
pub struct Lookup {
    /// By n-gram, shorter ones padded in front, the position after its last occurrence.
    after: HashMap<[Option<u32>; LONGEST], usize>,
    /// Tokens that have been taken in.
    seen: usize,
}

/// What may follow a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// What followed.
    pub tokens: &'a [u32],
    /// How many tokens before it are the sequence's last ones too; those past
    /// [`LONGEST_MATCH`](crate::speculation::acceptance::LONGEST_MATCH) are not counted.
    pub matched: usize,
}

impl Lookup {
    /// What may follow `tokens`: up to `most` tokens that followed the last occurrence of its last three, two, or one
    /// tokens before the end. Takes in what was added to `tokens` since the last call; they must only have grown.
    pub fn draft<'a>(&mut self, tokens: &'a [u32], most: usize) -> Found<'a> {
        // An n-gram that ends at the last token is not followed by anything yet.
        for end in self.seen.max(1)..tokens.len() {
            for n in 1..=LONGEST.min(end) {
                self.after.insert(key(&tokens[end - n..end]), end);
            }
        }
        self.seen = tokens.len();
        let longest_first = (1..=LONGEST.min(tokens.len())).rev();
        let found = longest_first
            .map(|n| key(&tokens[tokens.len() - n..]))
            .find_map(|ngram| self.after.get(&ngram).copied());
        found.map_or(Found::default(), |start| Found {
            tokens: &tokens[start..tokens.len().min(start + most)],
            matched: (tokens[..start].iter().rev())
                .zip(tokens.iter().rev())
                .take(LONGEST_MATCH)
                .take_while(|(a, b)| a == b)
                .count(),
        })
    }
}

fn key(ngram: &[u32]) -> [Option<u32>; LONGEST] {
    let mut key = [None; LONGEST];
    for (slot, token) in key.iter_mut().zip(ngram) {
        *slot = Some(*token);
    }
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longest_match_wins_over_a_later_shorter_one() {
        let tokens = [1, 2, 3, 9, 9, 3, 8, 1, 2, 3];
        let draft = |tokens, most| {
            let found = Lookup::default().draft(tokens, most);
            (found.tokens.to_vec(), found.matched)
        };
        assert_eq!(draft(&tokens, 2), (vec![9, 9], 3));
        assert_eq!(draft(&tokens[..6], 4), (vec![9, 9, 3], 1));
        assert_eq!(draft(&[7, 1, 2, 3, 4, 5, 7, 1, 2, 3, 4], 1), (vec![5], 5));
        assert_eq!(draft(&[1, 2, 3], 4), (vec![], 0));
        assert_eq!(draft(&[], 4), (vec![], 0));
    }

    proptest! {
        #[test]
        fn taking_tokens_in_step_by_step_changes_nothing(
            tokens in prop::collection::vec(0..6_u32, 1..60),
            cut in any::<prop::sample::Index>(),
            most in 0..6_usize,
        ) {
            let cut = cut.index(tokens.len());
            let mut stepwise = Lookup::default();
            stepwise.draft(&tokens[..cut], most);
            let draft = stepwise.draft(&tokens, most);
            prop_assert_eq!(draft, Lookup::default().draft(&tokens, most));
            // What is drafted did follow the longest earlier occurrence of the end.
            let earlier = (1..=LONGEST.min(tokens.len())).rev().find_map(|n| {
                let end = &tokens[tokens.len() - n..];
                (n..tokens.len()).rev().find(|&at| &tokens[at - n..at] == end)
            });
            let expected = earlier.map_or(&[][..], |at| &tokens[at..tokens.len().min(at + most)]);
            prop_assert_eq!(draft.tokens, expected);
        }
    }
}
