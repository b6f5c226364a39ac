//! How long a step takes, by its rows.
//!
//! A straight line, as memory sets the least time of a step and every row adds its own work. Its height is that of the
//! last steps. Its slope comes from how steps differ from those right before them, so that answers that grow longer, or a
//! machine that gets slower, do not look like dear rows; it is kept far longer than the height, since where no drafts
//! are tried nothing teaches it.

use std::time::Duration;

/// How long a step without prefill takes, by its rows.
#[derive(Debug, Clone, Default)]
pub struct StepCosts {
    /// Seconds and rows of the last steps, on average; `None` before the first.
    last: Option<(f64, f64)>,
    /// Sums over steps of their difference from the last: rows squared, rows times seconds.
    squares: f64,
    products: f64,
    /// Seconds a row of the cheapest prefill.
    cheapest: Option<f64>,
    #[cfg(test)]
    free: bool,
}

impl StepCosts {
    /// Weight of a new step in the average of the last.
    const SMOOTHING: f64 = 0.1;
    /// What a step leaves of the weight of older ones in the slope.
    const MEMORY: f64 = 0.999;
    /// What is believed of the slope weighs as much as a step with so many rows more, squared.
    const PRIOR: f64 = 4.0;
    /// A step that takes so many times as long as expected tells of something else that took the machine's time.
    const OUTLIER: f64 = 1.5;
    /// Prefill of at least so many rows shows what a row costs.
    const MANY: usize = 32;
    /// By so much the price of the cheapest row rises with every prefill.
    const DEARER: f64 = 1.002;

    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rows cost nothing, and no step teaches otherwise: every draft is worth its row.
    #[cfg(test)]
    pub fn free() -> Self {
        Self {
            last: Some((1.0, 1.0)),
            free: true,
            ..Self::default()
        }
    }

    /// A step of `rows` rows, each of which was sampled, took this long.
    pub fn observe(&mut self, rows: usize, took: Duration) {
        #[cfg(test)]
        if self.free {
            return;
        }
        let (rows, took) = (rows as f64, took.as_secs_f64());
        let Some((mean_took, mean_rows)) = self.last else {
            self.last = Some((took, rows));
            return;
        };
        let expected = self.expected(mean_took, rows - mean_rows);
        let took = took.min(expected * Self::OUTLIER);
        let (more_rows, more_time) = (rows - mean_rows, took - mean_took);
        self.squares = self.squares * Self::MEMORY + more_rows * more_rows;
        self.products = self.products * Self::MEMORY + more_rows * more_time;
        self.last = Some((
            mean_took + more_time * Self::SMOOTHING,
            mean_rows + more_rows * Self::SMOOTHING,
        ));
    }

    /// A step of `rows` rows that computed prompts took this long.
    pub fn observe_prefill(&mut self, rows: usize, took: Duration) {
        if rows >= Self::MANY {
            let each = took.as_secs_f64() / rows as f64;
            let known = self.cheapest.map_or(each, |known| known * Self::DEARER);
            self.cheapest = Some(known.min(each));
        }
    }

    /// Seconds of a step of `rows` rows; `None` before anything is known.
    pub fn of(&self, rows: usize) -> Option<f64> {
        let (took, mean_rows) = self.last?;
        Some(self.expected(took, rows as f64 - mean_rows))
    }

    /// Seconds that a row more takes.
    pub fn row(&self) -> f64 {
        #[cfg(test)]
        if self.free {
            return 0.0;
        }
        let Some((took, rows)) = self.last else {
            return 0.0;
        };
        // Nowhere are rows cheaper than in a large prefill, so this errs towards trying, which then teaches.
        let most = took / rows.max(1.0);
        let believed = self
            .cheapest
            .map_or(most / 4.0, |cheapest| cheapest.min(most));
        let slope = (self.products + believed * Self::PRIOR) / (self.squares + Self::PRIOR);
        slope.max(0.0)
    }

    /// Never less than a part of what steps take now: the line is one for some rows more or less.
    fn expected(&self, took: f64, more_rows: f64) -> f64 {
        (took + more_rows * self.row()).max(took / 8.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(costs: &mut StepCosts, rows: impl Iterator<Item = (usize, f64)>) {
        for (rows, milliseconds) in rows {
            costs.observe(rows, Duration::from_secs_f64(milliseconds / 1e3));
        }
    }

    #[test]
    fn a_row_costs_what_steps_with_more_rows_take_longer() {
        let mut costs = StepCosts::new();
        assert_eq!(costs.of(1), None);
        steps(
            &mut costs,
            (0..400).map(|i| {
                let rows = 4 + [0, 0, 3, 0, 5][i % 5];
                (rows, 3.0 + 0.4 * rows as f64)
            }),
        );
        assert!((costs.row() * 1e3 - 0.4).abs() < 0.03, "{}", costs.row());
        let of_8 = costs.of(8).expect("known") * 1e3;
        assert!((of_8 - 6.2).abs() < 0.2, "{of_8}");
    }

    #[test]
    fn answers_that_grow_and_a_machine_that_stumbles_do_not_make_rows_dear() {
        let mut costs = StepCosts::new();
        // Every step takes a little longer than the one before, one in ten has drafts, one in fifty is interrupted.
        steps(
            &mut costs,
            (0..2000).map(|i| {
                let rows = 8 + if i % 10 == 0 { 4 } else { 0 };
                let interrupted = if i % 50 == 7 { 30.0 } else { 0.0 };
                (
                    rows,
                    5.0 + 0.1 * rows as f64 + 0.002 * i as f64 + interrupted,
                )
            }),
        );
        let row = costs.row() * 1e3;
        assert!((0.05..0.2).contains(&row), "{row}");
    }

    #[test]
    fn before_drafts_were_tried_prefill_says_what_a_row_costs_at_least() {
        let mut costs = StepCosts::new();
        costs.observe_prefill(256, Duration::from_millis(64));
        costs.observe_prefill(2, Duration::from_millis(4));
        steps(&mut costs, (0..100).map(|_| (1, 3.0)));
        assert!((costs.row() * 1e3 - 0.25).abs() < 0.01);
        // What is seen counts for more.
        steps(&mut costs, (0..3).map(|_| (9, 9.0)));
        assert!(costs.row() * 1e3 > 0.6);
    }
}
