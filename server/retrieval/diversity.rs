//! Which of the candidates to take: maximal marginal relevance (Carbonell and Goldstein, 1998).

use super::index::dot;

/// Picks up to `count` candidates, the best one first. Each next one has the most of
/// `(1 - diversity) * score - diversity * (its largest similarity to one that was picked)`: with 0 they come by their score
/// alone, with 1 the next is the one least like those before. Equal ones come in the order given.
///
/// # Panics
/// If there are not as many vectors as scores.
pub fn select(scores: &[f32], vectors: &[&[f32]], count: usize, diversity: f32) -> Vec<usize> {
    assert_eq!(scores.len(), vectors.len());
    let mut left: Vec<usize> = (0..scores.len()).collect();
    // A candidate's largest similarity to a picked one; nothing is picked yet.
    let mut nearest = vec![0.0_f32; scores.len()];
    let mut picked = Vec::with_capacity(count.min(left.len()));
    while picked.len() < count && !left.is_empty() {
        let gain = |candidate: usize| {
            let like = if picked.is_empty() {
                0.0
            } else {
                nearest[candidate]
            };
            // The first is the best one, whatever the wish for diversity.
            let diversity = if picked.is_empty() { 0.0 } else { diversity };
            (1.0 - diversity) * scores[candidate] - diversity * like
        };
        let mut best = 0;
        for place in 1..left.len() {
            if gain(left[place]) > gain(left[best]) {
                best = place;
            }
        }
        let chosen = left.remove(best);
        for &other in &left {
            let like = dot(vectors[chosen], vectors[other]);
            nearest[other] = if picked.is_empty() {
                like
            } else {
                nearest[other].max(like)
            };
        }
        picked.push(chosen);
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWINS: [[f32; 2]; 3] = [[1.0, 0.0], [0.999, 0.04], [0.6, 0.8]];

    fn pick(diversity: f32) -> Vec<usize> {
        let vectors = TWINS.each_ref().map(|v| v.as_slice());
        select(&[0.9, 0.89, 0.7], &vectors, 2, diversity)
    }

    #[test]
    fn diversity_prefers_what_is_new_to_what_is_nearly_the_same() {
        assert_eq!(pick(0.0), [0, 1]);
        assert_eq!(pick(0.5), [0, 2]);
    }

    fn candidates() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<f32>)> {
        prop::collection::vec((prop::collection::vec(-1f32..1.0, 4), -1f32..1.0), 0..12)
            .prop_map(|pairs| pairs.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn what_is_picked_is_different_and_as_many_as_wanted(
            (vectors, scores) in candidates(), count in 0usize..15, diversity in 0f32..=1.0,
        ) {
            let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            let picked = select(&scores, &views, count, diversity);
            prop_assert_eq!(picked.len(), count.min(scores.len()));
            let mut unique = picked.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), picked.len());
            let best = scores.iter().copied().fold(f32::MIN, f32::max);
            prop_assert!(picked.first().is_none_or(|&first| scores[first] == best));
        }

        #[test]
        fn without_diversity_they_come_by_their_score((vectors, scores) in candidates(), count in 0usize..15) {
            let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            let picked = select(&scores, &views, count, 0.0);
            prop_assert!(picked.windows(2).all(|pair| scores[pair[0]] >= scores[pair[1]]));
        }

        /// Of fewer candidates fewer are picked, in the same order.
        #[test]
        fn a_smaller_count_is_the_beginning_of_a_larger_one(
            (vectors, scores) in candidates(), count in 0usize..12, diversity in 0f32..=1.0,
        ) {
            let views: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            let all = select(&scores, &views, 12, diversity);
            let some = select(&scores, &views, count, diversity);
            prop_assert_eq!(&all[..some.len()], some.as_slice());
        }
    }
}
