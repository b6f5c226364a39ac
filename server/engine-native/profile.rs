//! Where a step's time goes, by operator. Off unless asked for, and then one clock reading per operator.

use std::time::{Duration, Instant};

/// What the pass is made of, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// Tokens to the residual stream.
    Embed,
    /// All norms, and their results in bytes.
    Norm,
    /// Queries, keys and values.
    Qkv,
    /// New keys, rotated, and values into the pool.
    KvWrite,
    /// Scores, softmax and weighted values, with the queries' rotation.
    Attention,
    /// Attention's output projection.
    Out,
    /// Gate, up and activation, and its result in bytes.
    Up,
    /// Back into the residual stream.
    Down,
    /// The vocabulary head.
    Head,
    /// Picking tokens from logits.
    Sample,
}

impl Operator {
    /// All of them, in the order of a pass.
    pub const ALL: [Self; 10] = [
        Self::Embed,
        Self::Norm,
        Self::Qkv,
        Self::KvWrite,
        Self::Attention,
        Self::Out,
        Self::Up,
        Self::Down,
        Self::Head,
        Self::Sample,
    ];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Norm => "norm",
            Self::Qkv => "qkv",
            Self::KvWrite => "rope + kv write",
            Self::Attention => "attention",
            Self::Out => "out",
            Self::Up => "up",
            Self::Down => "down",
            Self::Head => "head",
            Self::Sample => "sample",
        }
    }
}

/// Times by operator, if they are kept.
#[derive(Debug, Default)]
pub struct Profile(Option<Laps>);

#[derive(Debug)]
struct Laps {
    since: Instant,
    times: [Duration; Operator::ALL.len()],
}

impl Profile {
    /// Keeps times from now on, from zero; or stops to.
    pub fn set(&mut self, on: bool) {
        self.0 = on.then(|| Laps {
            since: Instant::now(),
            times: Default::default(),
        });
    }

    /// A pass begins: what came before belongs to no operator.
    pub fn start(&mut self) {
        if let Some(laps) = &mut self.0 {
            laps.since = Instant::now();
        }
    }

    /// The time since the last lap, or the start, was this operator's.
    pub fn lap(&mut self, operator: Operator) {
        if let Some(laps) = &mut self.0 {
            let now = Instant::now();
            laps.times[operator as usize] += now - laps.since;
            laps.since = now;
        }
    }

    /// The times so far, in the order of a pass, which start again from zero; empty if they are not kept.
    pub fn take(&mut self) -> Vec<(&'static str, Duration)> {
        let times = self.0.as_mut().map(|laps| std::mem::take(&mut laps.times));
        (Operator::ALL.iter())
            .zip(times.into_iter().flatten())
            .map(|(operator, time)| (operator.name(), time))
            .collect()
    }
}
