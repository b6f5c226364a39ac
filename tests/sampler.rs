//! Sampling: the right set of tokens, drawn with the right frequencies, by a random number that depends on nothing else.

use std::collections::BTreeSet;

use code_explainer_engine::sampler::{sample, uniform};
use code_explainer_engine::{SampleStep, Sampling};
use proptest::prelude::*;

/// A draw with no history and no bans.
fn draw(logits: &[f32], sampling: &Sampling, index: u64) -> u32 {
    pick(logits, sampling, index, &[], &[])
}

fn pick(logits: &[f32], sampling: &Sampling, index: u64, history: &[u32], banned: &[u32]) -> u32 {
    let step = SampleStep {
        sampling,
        history,
        index,
        banned,
        drafts: 0,
    };
    sample(&mut logits.to_vec(), &step)
}

fn greedy() -> Sampling {
    Sampling::default()
}

fn warm() -> Sampling {
    Sampling {
        temperature: 1.0,
        ..Sampling::default()
    }
}

/// Which tokens may be drawn and how likely each is, written as plainly as possible: every rule in 64 bits over a full sort.
fn reference(logits: &[f32], sampling: &Sampling, history: &[u32], banned: &[u32]) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|&l| f64::from(l)).collect();
    for score in &mut scores {
        if score.is_nan() {
            *score = f64::NEG_INFINITY;
        }
    }
    for token in history.iter().collect::<BTreeSet<_>>() {
        let penalty = sampling.repetition_penalty;
        if let Some(score) = scores.get_mut(*token as usize) {
            // In 32 bits, as the sampler does it: two logits that round to one are equal.
            let logit = *score as f32;
            *score = f64::from(if logit > 0.0 {
                logit / penalty
            } else {
                logit * penalty
            });
        }
    }
    for &token in banned {
        if let Some(score) = scores.get_mut(token as usize) {
            *score = f64::NEG_INFINITY;
        }
    }
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|&i| scores[i] > f64::NEG_INFINITY)
        .collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let best = order.first().map_or(0.0, |&i| scores[i]);
    let weight = |i: usize| ((scores[i] - best) / f64::from(sampling.temperature)).exp();
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    let mut sum = 0.0;
    let mut set = 0;
    while set < order.len() && (set == 0 || sum < f64::from(sampling.top_p) * total) {
        sum += weight(order[set]);
        set += 1;
    }
    let mut probabilities = vec![0.0; logits.len()];
    for &i in &order[..set] {
        probabilities[i] = weight(i) / sum;
    }
    probabilities
}

fn logit() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -20.0f32..20.0,
        2 => (-4i32..4).prop_map(|n| n as f32),
        1 => prop_oneof![Just(f32::NAN), Just(f32::NEG_INFINITY), Just(0.0), Just(-0.0)],
    ]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    (
        0.05f32..3.0,
        0.01f32..=1.0,
        0u32..40,
        0.5f32..2.0,
        any::<u64>(),
    )
        .prop_map(
            |(temperature, top_p, top_k, repetition_penalty, seed)| Sampling {
                temperature,
                top_p,
                top_k,
                repetition_penalty,
                seed,
            },
        )
}

proptest! {
    #[test]
    fn a_drawn_token_is_in_the_set_of_the_plain_rules(
        logits in prop::collection::vec(logit(), 1..400),
        sampling in sampling(),
        history in prop::collection::vec(0u32..400, 0..20),
        banned in prop::collection::vec(0u32..400, 0..5),
    ) {
        let probabilities = reference(&logits, &sampling, &history, &banned);
        prop_assume!(probabilities.iter().sum::<f64>() > 0.0);
        for index in 0..20 {
            let token = pick(&logits, &sampling, index, &history, &banned);
            prop_assert!(probabilities[token as usize] > 0.0, "token {token}");
        }
    }

    #[test]
    fn every_token_of_a_small_set_is_drawn_and_no_other(
        logits in prop::collection::vec(-2.0f32..2.0, 1..8),
        sampling in sampling(),
    ) {
        let sampling = Sampling { temperature: 2.0, repetition_penalty: 1.0, ..sampling };
        let probabilities = reference(&logits, &sampling, &[], &[]);
        let expected: BTreeSet<u32> =
            (0..).zip(&probabilities).filter(|(_, p)| **p > 0.0).map(|(i, _)| i).collect();
        // The least likely of 8 has e^-2 / 8: not to see it in 2,000 draws has a chance below 1e-14.
        let drawn: BTreeSet<u32> = (0..2000).map(|index| draw(&logits, &sampling, index)).collect();
        prop_assert_eq!(drawn, expected);
    }

    #[test]
    fn the_same_seed_and_index_give_the_same_token_whatever_else_is_drawn(
        logits in prop::collection::vec(logit(), 1..200),
        sampling in sampling(),
        index in any::<u64>(),
    ) {
        let first = draw(&logits, &sampling, index);
        for other in 0..5 {
            draw(&logits, &Sampling { seed: other, ..sampling }, other);
        }
        prop_assert_eq!(draw(&logits, &sampling, index), first);
    }

    #[test]
    fn greedy_is_the_lowest_of_the_largest(logits in prop::collection::vec(logit(), 1..300)) {
        let largest = logits.iter().copied().filter(|l| !l.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let expected = logits.iter().position(|&l| l == largest && l > f32::NEG_INFINITY).unwrap_or(0);
        prop_assert_eq!(draw(&logits, &greedy(), 0), expected as u32);
    }

    #[test]
    fn a_low_temperature_is_greedy(logits in prop::collection::vec(-5.0f32..5.0, 2..100), seed in any::<u64>()) {
        let best = draw(&logits, &greedy(), 0);
        let gap = (0..).zip(&logits).filter(|(i, _)| *i != best).map(|(_, l)| logits[best as usize] - l);
        prop_assume!(gap.fold(f32::INFINITY, f32::min) > 0.01);
        for temperature in [1e-4, f32::MIN_POSITIVE] {
            prop_assert_eq!(draw(&logits, &Sampling { temperature, seed, ..warm() }, 3), best);
        }
    }

    #[test]
    fn a_banned_token_is_never_picked(
        logits in prop::collection::vec(logit(), 2..50),
        sampling in sampling(),
        banned in prop::collection::btree_set(0u32..60, 1..20),
        cold in any::<bool>(),
    ) {
        prop_assume!((0..logits.len() as u32).any(|token| !banned.contains(&token)));
        let sampling = if cold { greedy() } else { sampling };
        let list: Vec<u32> = banned.iter().copied().collect();
        for index in 0..20 {
            prop_assert!(!banned.contains(&pick(&logits, &sampling, index, &list, &list)));
        }
    }

    #[test]
    fn nothing_panics(
        logits in prop::collection::vec(any::<f32>(), 0..100),
        temperature in any::<f32>(),
        top_p in any::<f32>(),
        top_k in any::<u32>(),
        repetition_penalty in any::<f32>(),
        tokens in prop::collection::vec(any::<u32>(), 0..10),
        index in any::<u64>(),
    ) {
        let sampling = Sampling { temperature, top_p, top_k, repetition_penalty, seed: index };
        let token = pick(&logits, &sampling, index, &tokens, &tokens);
        prop_assert!((token as usize) < logits.len().max(1));
    }
}

/// Pearson's statistic of `draws` tokens against the probabilities of the plain rules.
fn chi_square(logits: &[f32], sampling: &Sampling, draws: u64) -> f64 {
    let probabilities = reference(logits, sampling, &[], &[]);
    let mut counts = vec![0f64; logits.len()];
    for index in 0..draws {
        counts[draw(logits, sampling, index) as usize] += 1.0;
    }
    (counts.iter().zip(probabilities))
        .filter(|(_, p)| *p > 0.0)
        .map(|(count, p)| (count - p * draws as f64).powi(2) / (p * draws as f64))
        .sum()
}

#[test]
fn tokens_come_as_often_as_they_are_likely() {
    let logits = [1.0, 0.5, 0.0, -0.5, 2.0, 1.5, f32::NAN, -1.0, 0.25, 0.75];
    let full = Sampling { seed: 11, ..warm() };
    // Upper 0.1 % points of the chi-square distribution with 8, 3 and 4 degrees of freedom.
    for (sampling, limit) in [
        (full, 26.12),
        (
            Sampling {
                temperature: 0.7,
                top_k: 4,
                ..full
            },
            16.27,
        ),
        (
            Sampling {
                temperature: 1.5,
                top_p: 0.7,
                ..full
            },
            18.47,
        ),
    ] {
        let statistic = chi_square(&logits, &sampling, 40_000);
        assert!(statistic < limit, "{sampling:?}: {statistic}");
    }
    let tokens = reference(
        &logits,
        &Sampling {
            temperature: 1.5,
            top_p: 0.7,
            ..full
        },
        &[],
        &[],
    );
    assert_eq!(
        tokens.iter().filter(|p| **p > 0.0).count(),
        5,
        "the degrees of freedom above"
    );
}

#[test]
fn the_random_number_is_uniform_over_seeds_and_over_indices() {
    let numbers: [fn(u64) -> f64; 3] = [
        |n| uniform(5, n),
        |n| uniform(n, 5),
        |n| uniform(n << 32, n << 32),
    ];
    for number in numbers {
        let mut counts = [0f64; 64];
        for n in 0..64_000 {
            let value = number(n);
            assert!((0.0..1.0).contains(&value));
            counts[(value * 64.0) as usize] += 1.0;
        }
        let statistic: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        // The upper 0.1 % point for 63 degrees of freedom.
        assert!(statistic < 103.44, "{statistic}");
    }
}

#[test]
fn top_p_keeps_the_shortest_prefix_that_reaches_it() {
    // Probabilities 0.5, 0.25, 0.125, 0.125.
    let logits = [4f32, 2.0, 1.0, 1.0].map(f32::ln);
    for (top_p, tokens) in [
        (0.1, 1),
        (0.49, 1),
        (0.51, 2),
        (0.74, 2),
        (0.76, 3),
        (0.9, 4),
        (1.0, 4),
    ] {
        let sampling = Sampling { top_p, ..warm() };
        let drawn: BTreeSet<u32> = (0..500)
            .map(|index| draw(&logits, &sampling, index))
            .collect();
        assert_eq!(drawn, (0..tokens).collect(), "top_p {top_p}");
    }
}

#[test]
fn the_penalty_counts_a_token_once_and_lowers_it_on_either_side_of_zero() {
    let penalized = Sampling {
        repetition_penalty: 2.0,
        ..greedy()
    };
    // 3 becomes 1.5, once, whether it was said once or three times.
    assert_eq!(pick(&[3.0, 1.4, 0.0], &penalized, 0, &[0, 0, 0], &[]), 0);
    assert_eq!(pick(&[3.0, 1.6, 0.0], &penalized, 0, &[0], &[]), 1);
    // -1 becomes -2.
    assert_eq!(pick(&[-1.0, -1.5], &penalized, 0, &[0], &[]), 1);
    assert_eq!(pick(&[-1.0, -1.5], &penalized, 0, &[0, 1, 99], &[]), 0);
}

#[test]
fn with_nothing_left_to_pick_the_lowest_that_is_not_banned_is_given() {
    let nothing = [f32::NAN, f32::NEG_INFINITY, f32::NAN];
    assert_eq!(pick(&nothing, &greedy(), 0, &[], &[0]), 1);
    assert_eq!(pick(&nothing, &warm(), 0, &[], &[0, 1, 2]), 0);
    assert_eq!(draw(&[f32::INFINITY, 1.0, f32::INFINITY], &greedy(), 0), 0);
    let infinite: BTreeSet<u32> = (0..50)
        .map(|index| draw(&[f32::INFINITY, 1.0, f32::INFINITY], &warm(), index))
        .collect();
    assert_eq!(infinite, BTreeSet::from([0, 2]));
}
