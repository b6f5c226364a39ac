//! How the disks under the server's databases fare.

use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};
use crate::disk::DiskHealth;

const FAILING: &str = "code_explainer_disk_failing";
const ERRORS: &str = "code_explainer_disk_errors_total";

/// Of one database.
pub(super) struct DiskMetrics {
    failing: Gauge,
    errors: Counter,
}

impl DiskMetrics {
    pub(super) fn new(r: &PrometheusRecorder, store: &'static str) -> Self {
        let text = "1 while the disk under a database fails or is full: embeddings (not cached meanwhile) or corpus (takes no changes)";
        r.describe_gauge(KeyName::from(FAILING), Some(Unit::Count), text.into());
        let text = "failures of the disk under a database, attempts to open it again included";
        r.describe_counter(KeyName::from(ERRORS), Some(Unit::Count), text.into());
        Self {
            failing: gauge(r, FAILING, &[("store", store)]),
            errors: counter(r, ERRORS, &[("store", store)]),
        }
    }

    pub(super) fn scrape(&self, health: &DiskHealth) {
        self.failing.set(f64::from(u8::from(health.away)));
        self.errors.absolute(health.errors);
    }
}
