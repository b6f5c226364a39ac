//! The arithmetic of `make bench-attacks`: its times and its aims are what they are said to be.

#[path = "../benches/attacks/numbers.rs"]
mod numbers;

use numbers::{Quantile, Times, mean_between, most_p99};

fn times(answered: &[f64], unanswered: &[f64]) -> Times {
    let mut times = Times::default();
    answered.iter().for_each(|ms| times.answered(*ms));
    unanswered.iter().for_each(|ms| times.unanswered(*ms));
    times
}

fn exactly(ms: f64) -> Option<Quantile> {
    let at_least = false;
    Some(Quantile { ms, at_least })
}

#[test]
fn a_quantile_is_the_time_at_the_nearest_rank() {
    let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
    assert_eq!(times(&hundred, &[]).quantile(0.5), exactly(50.0));
    assert_eq!(times(&hundred, &[]).quantile(0.99), exactly(99.0));
    assert_eq!(times(&hundred[..40], &[]).quantile(0.99), exactly(100.0));
    assert_eq!(times(&[7.0], &[]).quantile(0.5), exactly(7.0));
    assert_eq!(times(&[], &[]).quantile(0.5), None);
}

#[test]
fn what_was_not_waited_for_makes_quantiles_above_it_least_values() {
    let times = times(&[1.0, 2.0, 9.0], &[5.0]);
    assert_eq!((times.count(), times.missing()), (4, 1));
    assert_eq!(times.quantile(0.5), exactly(2.0));
    let at_least = |ms| Some(Quantile { ms, at_least: true });
    assert_eq!(times.quantile(0.75), at_least(5.0));
    assert_eq!(times.quantile(0.99), at_least(9.0));
}

#[test]
fn the_aim_is_three_times_the_idle_value_and_a_step() {
    assert_eq!(most_p99(40.0, 25.0), 145.0);
}

#[test]
fn a_mean_is_of_what_came_in_between() {
    assert_eq!(mean_between((10.0, 4.0), (16.0, 7.0)), Some(2.0));
    assert_eq!(mean_between((10.0, 4.0), (10.0, 4.0)), None);
}
