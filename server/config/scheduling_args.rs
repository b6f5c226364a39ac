//! Settings of the queue's order, and of how engines are looked after.

use std::time::Duration;

use clap::Args;

use code_explainer_scheduler::{QueueOptions, SupervisorOptions, Weights};

/// Whose turn it is, and how long anything may take.
#[derive(Debug, Args)]
pub(super) struct SchedulingArgs {
    /// Prompt tokens that wait at most, over all items in the queue; more are refused with RESOURCE_EXHAUSTED and the time
    /// to wait. A prompt that is longer than this waits alone
    #[arg(long, env = "CODE_EXPLAINER_QUEUE_TOKENS", value_name = "N")]
    #[arg(default_value_t = 1 << 20)]
    pub(super) queue_tokens: usize,

    /// Interactive items go before normal ones and those before bulk, each beside the others of its tenant. After this much
    /// longer in the queue an item counts as one of the next class, so that nobody starves
    #[arg(long, env = "CODE_EXPLAINER_PRIORITY_AGING", value_name = "TIME")]
    #[arg(default_value = "10s")]
    pub(super) priority_aging: humantime::Duration,

    /// How many times as many tokens as others a tenant gets while several want more than there is: NAME=WEIGHT, several
    /// times or separated by commas. A tenant that is not named has 1
    #[arg(long, env = "CODE_EXPLAINER_TENANT_WEIGHT", value_name = "NAME=WEIGHT")]
    #[arg(value_delimiter = ',', value_parser = weight)]
    pub(super) tenant_weight: Vec<(String, f64)>,

    /// A step that takes longer hangs: its engine is given up and started again, its items fail as retryable. More than any
    /// step of this model can take on this machine
    #[arg(long, env = "CODE_EXPLAINER_STEP_TIMEOUT", value_name = "TIME")]
    #[arg(default_value = "60s")]
    pub(super) step_timeout: humantime::Duration,

    /// Ready is a server with an engine that has run a step within this time. One with nothing to do runs a step of one token
    /// in time for it
    #[arg(long, env = "CODE_EXPLAINER_READY_MAX_AGE", value_name = "TIME")]
    #[arg(default_value = "30s")]
    pub(super) ready_max_age: humantime::Duration,

    /// Restarts of an engine in ten minutes at most; one more ends the server with code 1, for whoever runs it to see to. The
    /// memory of an engine that hangs is lost until it comes back or the server ends
    #[arg(long, env = "CODE_EXPLAINER_ENGINE_RESTARTS", value_name = "N")]
    #[arg(default_value_t = 3)]
    pub(super) engine_restarts: usize,

    /// /healthz fails when the threads that serve calls have not moved for this long, so that whoever watches the process
    /// starts it again. Longer than the machine may be suspended or overloaded. 0s: it never does
    #[arg(long, env = "CODE_EXPLAINER_HANG_TIMEOUT", value_name = "TIME")]
    #[arg(default_value = "30s")]
    pub(super) hang_timeout: humantime::Duration,

    /// After SIGTERM, the time for which the server still takes items while it says that it is not ready: until every
    /// balancer has heard of it. Then it drains. 0s: no time
    #[arg(long, env = "CODE_EXPLAINER_SHUTDOWN_GRACE", value_name = "TIME")]
    #[arg(default_value = "3s")]
    pub(super) shutdown_grace: humantime::Duration,
}

/// `NAME=WEIGHT`.
fn weight(text: &str) -> Result<(String, f64), String> {
    let (name, weight) = text.rsplit_once('=').ok_or("expected NAME=WEIGHT")?;
    let weight: f64 = weight.parse().map_err(|_| "the weight is no number")?;
    if !(0.001..=1000.0).contains(&weight) {
        return Err(format!("the weight is {weight}, expected 0.001 to 1000"));
    }
    Ok((name.to_owned(), weight))
}

impl SchedulingArgs {
    pub(super) fn queue(&self, items: usize) -> Result<QueueOptions, String> {
        if !(1..=1 << 30).contains(&self.queue_tokens) {
            let got = self.queue_tokens;
            return Err(format!(
                "--queue-tokens is {got}, expected 1 to {}",
                1 << 30
            ));
        }
        Ok(QueueOptions {
            items,
            tokens: self.queue_tokens,
            aging: at_most_a_day("priority-aging", self.priority_aging)?,
            weights: Weights(self.tenant_weight.iter().cloned().collect()),
        })
    }

    pub(super) fn supervisor(&self) -> Result<SupervisorOptions, String> {
        let options = SupervisorOptions {
            step_timeout: at_most_a_day("step-timeout", self.step_timeout)?,
            ready_max_age: at_most_a_day("ready-max-age", self.ready_max_age)?,
            restarts: self.engine_restarts,
        };
        for (flag, time) in [
            ("step-timeout", options.step_timeout),
            ("ready-max-age", options.ready_max_age),
        ] {
            if time < Duration::from_millis(10) {
                return Err(format!("--{flag} is {time:?}, expected at least 10ms"));
            }
        }
        Ok(options)
    }

    /// `None`: nobody asks.
    pub(super) fn hang(&self) -> Result<Option<Duration>, String> {
        let time = at_most_a_day("hang-timeout", self.hang_timeout)?;
        if !time.is_zero() && time < Duration::from_millis(100) {
            return Err(format!(
                "--hang-timeout is {time:?}, expected 0s or at least 100ms"
            ));
        }
        Ok((!time.is_zero()).then_some(time))
    }

    pub(super) fn grace(&self) -> Result<Duration, String> {
        at_most_a_day("shutdown-grace", self.shutdown_grace)
    }
}

/// Longer times are mistakes, and would overflow a clock.
fn at_most_a_day(flag: &str, time: humantime::Duration) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(86_400);
    let time = Duration::from(time);
    if time > DAY {
        return Err(format!("--{flag} is {time:?}, expected at most a day"));
    }
    Ok(time)
}
