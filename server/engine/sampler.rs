//! From logits to one token.
//!
//! The order is that of the generation loop of transformers: banned tokens, repetition penalty, temperature, top-k, top-p,
//! draw. The draw's random number is a pure function of the request's seed and of how many tokens were generated before,
//! so a token depends on nothing but its own sequence's logits and request.

use std::cmp::Ordering;

use super::SampleStep;

/// Picks the next token of a sequence.
///
/// `logits` is `[vocabulary]`; what is in it afterwards is not defined. NaN counts as minus infinity. Among equal logits the
/// lowest id comes first, for the greedy choice as at the edge of top-k and top-p. Ids in `step.history` and
/// `step.banned` that are outside the vocabulary are ignored.
///
/// With no token left that can be picked (all logits banned, NaN or minus infinity) the lowest id that is not banned is
/// given, so that a broken model ends in a wrong token and not in a panic; 0 if there is none.
///
/// - Repetition penalty: Keskar et al. 2019 (CTRL), as transformers does it: each distinct token of the history once, the
///   logit divided by the penalty if positive and multiplied if negative.
/// - Top-p: Holtzman et al. 2020: the smallest set of most likely tokens whose probabilities sum to at least `top_p`.
pub fn sample(logits: &mut [f32], step: &SampleStep<'_>) -> u32 {
    let sampling = step.sampling;
    for &token in step.banned {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
    if sampling.repetition_penalty != 1.0 {
        penalize(logits, step.history, sampling.repetition_penalty);
    }
    let Some(best) = argmax(logits) else {
        let allowed = |&token: &u32| !step.banned.contains(&token);
        return (0..logits.len() as u32).find(allowed).unwrap_or(0);
    };
    if sampling.temperature <= 0.0 || sampling.top_k == 1 {
        return best as u32;
    }
    let highest = logits[best];
    let weights = Weights {
        highest,
        temperature: f64::from(sampling.temperature),
    };
    let mut candidates = Candidates::new(logits, sampling.top_k as usize);
    if sampling.top_p < 1.0 {
        candidates.keep_top_p(weights, f64::from(sampling.top_p));
    }
    let random = uniform(sampling.seed, step.index);
    draw(&candidates.in_order(), weights, random)
}

/// A number in [0, 1) with 53 random bits that depends on nothing but `seed` and `index`.
///
/// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with the seed
/// as its key and the index as its counter.
pub fn uniform(seed: u64, index: u64) -> f64 {
    let [a, b, ..] = philox4x32_10(
        [index as u32, (index >> 32) as u32, 0, 0],
        [seed as u32, (seed >> 32) as u32],
    );
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    bits as f64 * (1.0 / (1u64 << 53) as f64)
}

fn penalize(logits: &mut [f32], history: &[u32], penalty: f32) {
    let mut seen = vec![0u64; logits.len().div_ceil(64)];
    for &token in history {
        let token = token as usize;
        let Some(logit) = logits.get_mut(token) else {
            continue;
        };
        let (word, bit) = (&mut seen[token / 64], 1 << (token % 64));
        if *word & bit == 0 {
            *word |= bit;
            *logit = if *logit > 0.0 {
                *logit / penalty
            } else {
                *logit * penalty
            };
        }
    }
}

/// The index of the largest logit, the lowest one on ties; `None` if none is above minus infinity.
fn argmax(logits: &[f32]) -> Option<usize> {
    // Eight running maxima, each over every eighth logit, so that the loop has no chain of dependent comparisons. NaN
    // never wins: `>` is false for it.
    const LANES: usize = 8;
    let mut highest = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (highest, &logit) in highest.iter_mut().zip(chunk) {
            *highest = if logit > *highest { logit } else { *highest };
        }
    }
    let highest = highest
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    if highest == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|&logit| logit == highest)
}

/// Unnormalized probabilities.
#[derive(Clone, Copy)]
struct Weights {
    highest: f32,
    temperature: f64,
}

impl Weights {
    /// 1 for the largest logit, even an infinite one, and less for the others.
    fn of(self, logit: f32) -> f64 {
        if logit == self.highest {
            return 1.0;
        }
        // The one difference that has no quotient, infinity by an infinite temperature, is made 0 by `max`.
        ((f64::from(logit) - f64::from(self.highest)) / self.temperature)
            .exp()
            .max(0.0)
    }
}

/// A token that can be picked, with its logit.
type Candidate = (u32, f32);

/// Larger logits first, then lower ids. There is no NaN among candidates.
fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.1.partial_cmp(&a.1)
        .unwrap_or(Ordering::Equal)
        .then(a.0.cmp(&b.0))
}

struct Candidates {
    kept: Vec<Candidate>,
}

impl Candidates {
    /// The `top_k` best tokens, in no order; 0 keeps all that can be picked at all.
    fn new(logits: &[f32], top_k: usize) -> Self {
        let possible = |(_, logit): &Candidate| *logit > f32::NEG_INFINITY;
        let mut kept: Vec<Candidate> = (0..).zip(logits.iter().copied()).filter(possible).collect();
        if (1..kept.len()).contains(&top_k) {
            kept.select_nth_unstable_by(top_k - 1, by_rank);
            kept.truncate(top_k);
        }
        Self { kept }
    }

    /// Keeps the shortest prefix of the ranking whose share of all weights is at least `top_p`; at least one token.
    fn keep_top_p(&mut self, weights: Weights, top_p: f64) {
        let wanted = top_p
            * self
                .kept
                .iter()
                .map(|&(_, logit)| weights.of(logit))
                .sum::<f64>();
        // The set is mostly small, so the ranking is only sorted as far as it is needed, in growing steps.
        let (mut sorted, mut sum, mut step) = (0, 0.0, 64);
        while sorted < self.kept.len() {
            let rest = &mut self.kept[sorted..];
            let ranked = step.min(rest.len());
            if ranked < rest.len() {
                rest.select_nth_unstable_by(ranked - 1, by_rank);
            }
            rest[..ranked].sort_unstable_by(by_rank);
            for (place, &(_, logit)) in rest[..ranked].iter().enumerate() {
                sum += weights.of(logit);
                if sum >= wanted {
                    self.kept.truncate(sorted + place + 1);
                    return;
                }
            }
            sorted += ranked;
            step *= 4;
        }
    }

    /// What was kept, by id: an order that does not change when rounding swaps two nearly equal logits.
    fn in_order(mut self) -> Vec<Candidate> {
        self.kept.sort_unstable_by_key(|&(token, _)| token);
        self.kept
    }
}

/// The candidate at `random` (in [0, 1)) of the way through the candidates' weights.
fn draw(candidates: &[Candidate], weights: Weights, random: f64) -> u32 {
    let total: f64 = candidates.iter().map(|&(_, logit)| weights.of(logit)).sum();
    let mut left = random * total;
    let mut last = 0;
    for &(token, logit) in candidates {
        let weight = weights.of(logit);
        if weight > 0.0 {
            // Rounding can leave a little of `left` at the end; it falls to the last token that has any weight.
            last = token;
            if left < weight {
                break;
            }
        }
        left -= weight;
    }
    last
}

fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for _ in 0..10 {
        let product = |i: usize| u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]);
        let (p0, p1) = (product(0), product(1));
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::philox4x32_10;

    /// The known answers that the authors publish with Random123 (`kat_vectors`, philox 4x32 10).
    #[test]
    fn philox_gives_its_authors_known_answers() {
        let answers = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in answers {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }
}
