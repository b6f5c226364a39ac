//! What is said of an attack: a verdict, rows of a table, and JSON.

use serde_json::{Value, json};

use crate::campaign::{Attack, Outcome};
use crate::numbers::{Quantile, Times, most_p99};
use crate::probes::{Probe, Probed};

/// The longest that a probe may take, in milliseconds.
const MOST_PROBE_MS: f64 = 1000.0;
const MIB: f64 = (1 << 20) as f64;

/// The aims that an attack has made the server miss.
pub(crate) fn missed(attack: &Attack, outcome: &Outcome) -> Vec<String> {
    let mut missed: Vec<String> = outcome.failure.iter().cloned().collect();
    match (p99(&outcome.idle.times), p99(&outcome.attacked.times)) {
        (Some(idle), Some(attacked)) => {
            let most = most_p99(idle.ms, outcome.step_ms);
            // What is only known to be at least so long has not been seen to be short enough.
            if attacked.ms > most || attacked.at_least {
                missed.push(format!(
                    "p99 {} of at most {most:.0} ms",
                    text(Some(attacked))
                ));
            }
        }
        _ => missed.push("no times of the neighbour".into()),
    }
    for (probe, probed) in Probe::ALL.iter().zip(&outcome.probes) {
        let name = probe.name();
        if probed.failed > 0 {
            missed.push(format!(
                "{name} failed {} of {}",
                probed.failed, probed.asked
            ));
        }
        if probed.slowest_ms > MOST_PROBE_MS {
            missed.push(format!(
                "{name} {:.0} of at most {MOST_PROBE_MS:.0} ms",
                probed.slowest_ms
            ));
        }
    }
    if outcome.memory.more > attack.memory {
        let (more, most) = (outcome.memory.more as f64 / MIB, attack.memory as f64 / MIB);
        missed.push(format!("{more:.0} MiB of at most {most:.0}"));
    }
    for check in outcome.told.checks.iter().filter(|check| !check.holds()) {
        missed.push(format!(
            "{}: {:.1} of at most {}",
            check.what, check.value, check.most
        ));
    }
    missed
}

/// The heads of the columns.
pub(crate) fn heads() -> String {
    format!(
        "{:<30}{:<9}{:>19}{:>23}{:>8}{:>10}{:>10}{:>10}{:>8}{:>9}{:>14}",
        "attack",
        "server",
        "TTFT idle p50/p99",
        "attacked p50/p99 (n)",
        "p99 x",
        "healthz",
        "readyz",
        "health",
        "CPU s",
        "RSS +MiB",
        "idle/RSS after"
    )
}

/// A row, and below it what was missed and what the attacker got.
pub(crate) fn row(attack: &Attack, server: &str, outcome: &Outcome) -> String {
    let (idle, attacked) = (&outcome.idle.times, &outcome.attacked.times);
    let missing = attacked.missing();
    let count = match missing {
        0 => format!("({})", attacked.count()),
        _ => format!("({}, {missing} unanswered)", attacked.count()),
    };
    let [healthz, readyz, health] = outcome.probes.map(slowest);
    let mut row = format!(
        "{:<30}{server:<9}{:>19}{:>23}{:>8}{healthz:>10}{readyz:>10}{health:>10}{:>8.1}{:>9.0}{:>14}",
        attack.name,
        format!("{} / {}", text(idle.quantile(0.5)), text(p99(idle))),
        format!(
            "{} / {} {count}",
            text(attacked.quantile(0.5)),
            text(p99(attacked))
        ),
        ratio(p99(attacked).map(|q| q.ms), p99(idle).map(|q| q.ms)),
        outcome.cpu.0,
        outcome.memory.more as f64 / MIB,
        format!(
            "{} / {}",
            seconds(outcome.idle_after),
            seconds(outcome.memory_after)
        ),
    );
    let missed = missed(attack, outcome);
    let verdict = match missed.is_empty() {
        true => "holds".to_owned(),
        false => format!("MISSED: {}", missed.join("; ")),
    };
    row += &format!("\n  {verdict}");
    for check in outcome.told.checks.iter().filter(|check| check.holds()) {
        row += &format!("; {}: {:.1}", check.what, check.value);
    }
    let got: Vec<String> = (outcome.told.got.iter())
        .map(|(what, times)| format!("{what} x{times}"))
        .collect();
    row += &format!("\n  the attacker got: {}", got.join(", "));
    if let Some(error) = &outcome.attacked.error {
        row += &format!("\n  the neighbour was told: {error}");
    }
    row
}

/// How the one server fares beside the other: before over after.
pub(crate) fn ratios(before: &Outcome, after: &Outcome) -> String {
    let slowest = |outcome: &Outcome, at: usize| Some(outcome.probes[at].slowest_ms);
    let p99 = |outcome: &Outcome| p99(&outcome.attacked.times).map(|q| q.ms);
    format!(
        "  before / after: p99 {}, healthz {}, readyz {}, health {}, CPU {}, memory {}",
        ratio(p99(before), p99(after)),
        ratio(slowest(before, 0), slowest(after, 0)),
        ratio(slowest(before, 1), slowest(after, 1)),
        ratio(slowest(before, 2), slowest(after, 2)),
        ratio(Some(before.cpu.0), Some(after.cpu.0)),
        ratio(
            Some(before.memory.more as f64),
            Some(after.memory.more as f64)
        ),
    )
}

/// All that was measured.
pub(crate) fn json(attack: &Attack, outcome: &Outcome) -> Value {
    let times = |times: &Times| {
        let quantile = |q| {
            times
                .quantile(q)
                .map(|q| json!({"ms": q.ms, "at_least": q.at_least}))
        };
        json!({
            "n": times.count(),
            "unanswered": times.missing(),
            "p50": quantile(0.5),
            "p99": quantile(0.99),
        })
    };
    let probes: serde_json::Map<String, Value> = Probe::ALL
        .iter()
        .zip(&outcome.probes)
        .map(|(probe, probed)| {
            let said = json!({
                "asked": probed.asked, "failed": probed.failed, "slowest_ms": probed.slowest_ms,
            });
            (probe.name().to_owned(), said)
        })
        .collect();
    let checks: Vec<Value> = (outcome.told.checks.iter())
        .map(|check| json!({"what": check.what, "value": check.value, "most": check.most}))
        .collect();
    json!({
        "idle": times(&outcome.idle.times),
        "attacked": times(&outcome.attacked.times),
        "step_ms": outcome.step_ms,
        "probes": probes,
        "cpu_seconds": outcome.cpu.0,
        "seconds": outcome.cpu.1,
        "memory_before_bytes": outcome.memory.before,
        "memory_more_bytes": outcome.memory.more,
        "memory_left_bytes": outcome.memory.left,
        "memory_most_bytes": attack.memory,
        "idle_after_seconds": outcome.idle_after,
        "memory_after_seconds": outcome.memory_after,
        "checks": checks,
        "attacker_got": outcome.told.got,
        "missed": missed(attack, outcome),
    })
}

fn p99(times: &Times) -> Option<Quantile> {
    times.quantile(0.99)
}

fn text(quantile: Option<Quantile>) -> String {
    match quantile {
        Some(Quantile { ms, at_least }) => format!("{}{ms:.0}", if at_least { ">" } else { "" }),
        None => "-".into(),
    }
}

fn slowest(probed: Probed) -> String {
    match probed {
        Probed { asked: 0, .. } => "-".into(),
        Probed {
            failed: 0,
            slowest_ms,
            ..
        } => format!("{slowest_ms:.0}"),
        Probed {
            failed, slowest_ms, ..
        } => format!("{slowest_ms:.0} ({failed}!)"),
    }
}

fn seconds(after: Option<f64>) -> String {
    after.map_or("no".into(), |seconds| format!("{seconds:.1}"))
}

fn ratio(of: Option<f64>, to: Option<f64>) -> String {
    match of.zip(to) {
        Some((of, to)) if to > 0.0 => format!("{:.1}", of / to),
        _ => "-".into(),
    }
}
