//! How far a model's answers are from another's.

/// Mean KL divergence of `q` from `p`, and how often their largest logit is the same, over rows of logits.
pub(crate) fn divergence(p: &[f32], q: &[f32], vocabulary: usize) -> (f64, f64) {
    let log_sum = |row: &[f32]| {
        let largest = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        largest + sum.ln()
    };
    let top = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let (mut kl, mut same, mut rows) = (0.0, 0, 0);
    for (p, q) in p.chunks_exact(vocabulary).zip(q.chunks_exact(vocabulary)) {
        let (p_sum, q_sum) = (log_sum(p), log_sum(q));
        for (p, q) in p.iter().zip(q) {
            let p = f64::from(*p) - p_sum;
            kl += p.exp() * (p - (f64::from(*q) - q_sum));
        }
        same += usize::from(top(p) == top(q));
        rows += 1;
    }
    (kl / rows as f64, same as f64 / rows as f64)
}
