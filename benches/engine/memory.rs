//! Memory of a process with the model loaded and a step run: a process for each precision, because what one frees
//! another would seem to need no more.

use std::process::Command;

use code_explainer_engine::Precision;
use code_explainer_weights::Checkpoint;
use serde_json::{Value, json};

use crate::steps::{Engine, Shape};

/// What the child is called with, before the precision.
pub(crate) const FLAG: &str = "--memory-of";
const MIB: f64 = (1 << 20) as f64;

/// Asks a process of its own.
pub(crate) fn of(precision: Precision) -> Result<Value, Box<dyn std::error::Error>> {
    let output = Command::new(std::env::current_exe()?)
        .args([FLAG, precision.as_str()])
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The child: loads, runs a step, says what it has.
pub(crate) fn report(
    checkpoint: &Checkpoint,
    precision: Precision,
) -> Result<Value, Box<dyn std::error::Error>> {
    let mut engine = Engine::load(checkpoint, precision)?;
    engine.step(Shape::prefill(256))?;
    Ok(json!({
        "weights_mib": engine.weights_bytes() as f64 / MIB,
        "kv_pool_mib": engine.kv_pool_bytes() as f64 / MIB,
        "resident_mib": status("VmRSS:")? / MIB,
        "peak_mib": status("VmHWM:")? / MIB,
        "anonymous_mib": status("RssAnon:")? / MIB,
    }))
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib
        .ok_or("no such line in /proc/self/status")?
        .parse::<f64>()?
        * 1024.0)
}
