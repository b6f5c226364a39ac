//! `code-explainer report`: what the server has done, and how it is.

use code_explainer_client::{Client, Report};

use super::exit::{Exit, Stop};
use super::numbers::{evictions, grouped, micros, millis, parameters, seconds, size};
use super::record::line;
use super::terminal::Terminal;

pub(crate) async fn run(client: &Client, json: bool, terminal: &Terminal) -> Result<Exit, Stop> {
    let report = terminal.attend(client, client.report()).await?;
    terminal.print(&if json { line(&report) } else { text(&report) })?;
    Ok(Exit::Ok)
}

fn text(report: &Report) -> String {
    let title = "Code Explainer Performance Report";
    let mut out = format!("{title}\n{}\n", "=".repeat(title.len() + 1));
    let sections = [
        ("Model Information", model(report)),
        ("Memory Usage", memory(report)),
        ("Cache Statistics", cache(report)),
        ("Request Statistics", requests(report)),
        ("Batch Processing", batches(report)),
    ];
    for (title, rows) in sections {
        out.push_str(&format!("\n{title}:\n"));
        for (name, value) in rows {
            out.push_str(&format!("  {name}: {value}\n"));
        }
    }
    out
}

type Rows = Vec<(&'static str, String)>;

fn model(report: &Report) -> Rows {
    let model = report.model.clone().unwrap_or_default();
    vec![
        ("Model", model.name),
        ("Device", model.device),
        ("Precision", model.precision),
        ("Parameters", parameters(model.parameters)),
        ("Uptime", seconds(report.uptime_seconds)),
    ]
}

fn memory(report: &Report) -> Rows {
    let memory = report.memory.unwrap_or_default();
    let part = ratio(memory.resident_bytes, memory.total_bytes);
    let (used, blocks) = (memory.kv_blocks_used, memory.kv_blocks_total);
    vec![
        (
            "CPU Memory",
            format!("{} ({part} used)", size(memory.resident_bytes)),
        ),
        ("Total Memory", size(memory.total_bytes)),
        ("Model Weights", size(memory.weights_bytes)),
        (
            "KV Cache Pool",
            format!(
                "{} ({} of {} blocks, {} utilized)",
                size(memory.kv_pool_bytes),
                grouped(used),
                grouped(blocks),
                ratio(used, blocks)
            ),
        ),
    ]
}

fn cache(report: &Report) -> Rows {
    let cache = report.cache.clone().unwrap_or_default();
    let redis = match (cache.redis_configured, cache.redis_errors) {
        (false, _) => "not configured".to_owned(),
        (true, 0) => "configured, no errors".to_owned(),
        (true, errors) => format!("configured, {} errors", grouped(errors)),
    };
    vec![
        (
            "Explanation Cache",
            format!(
                "{} entries ({} hit rate)",
                grouped(cache.memory_entries),
                percent(cache.hit_ratio)
            ),
        ),
        (
            "Hits",
            format!(
                "{} from memory, {} from Redis",
                grouped(cache.memory_hits),
                grouped(cache.redis_hits)
            ),
        ),
        ("Misses", grouped(cache.misses)),
        (
            "Access Time",
            format!(
                "{} mean, {} p99",
                micros(cache.memory_mean_access_us),
                micros(cache.memory_p99_access_us)
            ),
        ),
        ("Evictions", evictions(&cache.memory_evictions)),
        ("Redis", redis),
        ("Total Cache Size", size(cache.memory_bytes)),
    ]
}

fn requests(report: &Report) -> Rows {
    let requests = report.requests.unwrap_or_default();
    vec![
        ("Total Requests", grouped(requests.total)),
        ("Answered", grouped(requests.answered)),
        ("Failed", grouped(requests.failed)),
        ("Cancelled", grouped(requests.cancelled)),
        ("Average Response Time", millis(requests.mean_ms)),
        ("Median", millis(requests.p50_ms)),
        ("95th Percentile", millis(requests.p95_ms)),
        ("99th Percentile", millis(requests.p99_ms)),
        (
            "Median Time to First Token",
            millis(requests.time_to_first_token_p50_ms),
        ),
        (
            "Error Rate",
            format!("{:.2}%", 100.0 * requests.error_ratio),
        ),
        (
            "Now",
            format!(
                "{} running, {} queued",
                grouped(requests.running),
                grouped(requests.queued)
            ),
        ),
    ]
}

fn batches(report: &Report) -> Rows {
    let batches = report.batches.unwrap_or_default();
    vec![
        (
            "Average Batch Size",
            format!("{:.1} of {}", batches.mean_size, batches.max_size),
        ),
        ("Batch Efficiency", percent(batches.efficiency)),
        ("Parallel Workers", batches.engines.to_string()),
        ("Steps", grouped(batches.steps)),
        ("Generated Tokens", grouped(batches.generated_tokens)),
        ("Prefill Tokens", grouped(batches.prefill_tokens)),
        (
            "Tokens per Second",
            format!("{:.1}", batches.tokens_per_second),
        ),
    ]
}

fn percent(ratio: f64) -> String {
    format!("{:.1}%", 100.0 * ratio)
}

fn ratio(part: u64, whole: u64) -> String {
    percent(if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    })
}
