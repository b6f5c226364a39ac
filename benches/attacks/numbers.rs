//! Arithmetic of the measurements, for `tests/attack_numbers.rs` too.

/// Times in milliseconds, some of which are only known to be at least so long: nobody waited to their end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Time>);

#[derive(Debug, Clone, Copy)]
struct Time {
    ms: f64,
    ended: bool,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quantile {
    pub(crate) ms: f64,
    /// It may be longer.
    pub(crate) at_least: bool,
}

impl Times {
    /// What was answered after so long.
    pub(crate) fn answered(&mut self, ms: f64) {
        self.0.push(Time { ms, ended: true });
    }

    /// What was not answered for so long.
    pub(crate) fn unanswered(&mut self, ms: f64) {
        self.0.push(Time { ms, ended: false });
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// How many were not answered.
    pub(crate) fn missing(&self) -> usize {
        self.0.iter().filter(|time| !time.ended).count()
    }

    /// By the nearest rank: a time that was measured, never one between two. With fewer than 100 times, the 99th percentile
    /// is the longest. `None`: there are no times.
    pub(crate) fn quantile(&self, q: f64) -> Option<Quantile> {
        let mut sorted = self.0.clone();
        sorted.sort_by(|a, b| a.ms.total_cmp(&b.ms));
        let rank = (q * sorted.len() as f64).ceil() as usize;
        let at = rank.clamp(1, sorted.len().max(1)) - 1;
        let ms = sorted.get(at)?.ms;
        // One below that has not ended would stand higher up, and push this place's own time down to nobody knows where.
        let at_least = sorted[..=at].iter().any(|time| !time.ended);
        Some(Quantile { ms, at_least })
    }
}

/// The longest 99th percentile that a neighbour may see, in milliseconds: three times its own on an idle server, and a step.
pub(crate) fn most_p99(idle_p99_ms: f64, step_ms: f64) -> f64 {
    3.0 * idle_p99_ms + step_ms
}

/// The mean of what a histogram counted between two looks at its sum and count; `None`: nothing.
pub(crate) fn mean_between(before: (f64, f64), after: (f64, f64)) -> Option<f64> {
    let count = after.1 - before.1;
    (count > 0.0).then(|| (after.0 - before.0) / count)
}
