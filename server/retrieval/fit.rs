//! What of the passages fits into a prompt.

use super::Found;

/// Fewer tokens of a passage say too little to be worth their place.
const FEWEST_TOKENS: usize = 24;

/// About what a prompt says before its quotations, and around each of them.
pub const HEADING_TOKENS: usize = 24;
const FRAME_TOKENS: usize = 12;

/// The first passages that have at most `budget` tokens together, by `count`; the last one perhaps cut at a line's end.
/// Gives back how many were left out or cut, too.
pub fn fit(
    found: Vec<Found>,
    budget: usize,
    mut count: impl FnMut(&str) -> usize,
) -> (Vec<Found>, usize) {
    let (mut fitting, mut left, mut less) = (Vec::new(), budget, 0);
    for mut passage in found {
        let heading = count(&passage.title) + FRAME_TOKENS;
        let whole = heading + count(&passage.text);
        if whole <= left {
            left -= whole;
            fitting.push(passage);
            continue;
        }
        less += 1;
        let room = left.saturating_sub(heading);
        if room < FEWEST_TOKENS {
            continue;
        }
        while let Some(end) = passage.text.trim_end().rfind('\n') {
            passage.text.truncate(end);
            let tokens = count(&passage.text);
            if tokens <= room {
                if tokens >= FEWEST_TOKENS {
                    left -= heading + tokens;
                    fitting.push(passage);
                }
                break;
            }
        }
    }
    (fitting, less)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::record::Kind;
    use proptest::prelude::*;

    fn words(text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn found(text: String) -> Found {
        Found {
            id: "a".into(),
            title: "title".into(),
            score: 0.5,
            kind: Kind::Documentation,
            text,
        }
    }

    proptest! {
        #[test]
        fn what_fits_is_within_the_budget_and_begins_like_what_was_found(
            texts in prop::collection::vec("([a-z]{1,3} ){1,30}(\n([a-z]{1,3} ){1,30}){0,8}", 0..6),
            budget in 0usize..200,
        ) {
            let (fitting, less) = fit(texts.iter().cloned().map(found).collect(), budget, words);
            let spent: usize = fitting.iter().map(|p| words(&p.title) + words(&p.text)).sum();
            prop_assert!(spent <= budget);
            let whole = fitting.iter().filter(|p| texts.contains(&p.text)).count();
            prop_assert_eq!(whole + less, texts.len());
            prop_assert!(fitting.iter().all(|p| texts.iter().any(|t| t.starts_with(&p.text))));
        }
    }
}
