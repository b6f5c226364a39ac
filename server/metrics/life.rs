//! The life of the server, of its engines and of its items: phases, restarts, and why items are given up.

use code_explainer_scheduler::RestartCause;
use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};
use crate::explain::CancelReason;
use crate::status::Phase;

const PHASE: &str = "code_explainer_phase";
const RESTARTS: &str = "code_explainer_engine_restarts_total";
const CANCELLATIONS: &str = "code_explainer_cancellations_total";

/// The life of the server, of its engines and of its items.
pub struct Life {
    phases: [Gauge; 5],
    restarts: [Counter; 3],
    cancellations: [Counter; CancelReason::ALL.len()],
}

impl Life {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        let describe = |name, text: &'static str| {
            r.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
        };
        describe(RESTARTS, "engines that were started again, by cause");
        describe(
            CANCELLATIONS,
            "items that were given up before their end, by reason",
        );
        let text = "1 for the phase that the server is in, 0 for the others";
        r.describe_gauge(KeyName::from(PHASE), Some(Unit::Count), text.into());
        Self {
            phases: Phase::ALL.map(|p| gauge(r, PHASE, &[("phase", p.as_str())])),
            restarts: RestartCause::ALL.map(|c| counter(r, RESTARTS, &[("cause", c.as_str())])),
            cancellations: CancelReason::ALL
                .map(|c| counter(r, CANCELLATIONS, &[("reason", c.as_str())])),
        }
    }

    pub(super) fn phase(&self, now: Phase) {
        for (gauge, phase) in self.phases.iter().zip(Phase::ALL) {
            gauge.set(f64::from(u8::from(phase == now)));
        }
    }

    /// An engine is started again.
    pub fn restarted(&self, cause: RestartCause) {
        self.restarts[cause as usize].increment(1);
    }

    /// An item is given up.
    pub fn cancelled(&self, reason: CancelReason) {
        self.cancellations[reason as usize].increment(1);
    }
}
