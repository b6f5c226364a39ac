//! `code-explainer model`: what is being served.

use code_explainer_client::{Client, Model};

use super::exit::{Exit, Stop};
use super::numbers::{grouped, parameters};
use super::record::line;
use super::terminal::Terminal;

pub(crate) async fn run(client: &Client, json: bool, terminal: &Terminal) -> Result<Exit, Stop> {
    let model = terminal.attend(client, client.model()).await?;
    terminal.print(&if json { line(&model) } else { table(&model) })?;
    Ok(Exit::Ok)
}

fn table(model: &Model) -> String {
    let limits = model.limits.unwrap_or_default();
    let rows = [
        ("Model", model.name.clone()),
        ("Architecture", model.architecture.clone()),
        ("Parameters", parameters(model.parameters)),
        (
            "Context",
            format!("{} tokens", grouped(model.context_length.into())),
        ),
        (
            "Vocabulary",
            format!("{} tokens", grouped(model.vocabulary.into())),
        ),
        ("Precision", model.precision.clone()),
        ("Device", model.device.clone()),
        ("Strategies", model.strategies.join(", ")),
        ("Outlined", model.outlined_languages.join(", ")),
        (
            "Server",
            format!("{} {}", model.replica, model.version)
                .trim()
                .to_owned(),
        ),
    ];
    let count = |n: u32| grouped(n.into());
    let limit_rows = [
        ("Code", format!("{} bytes", count(limits.max_code_bytes))),
        (
            "New tokens",
            format!(
                "{} ({} when not asked for)",
                count(limits.max_new_tokens),
                count(limits.default_max_new_tokens)
            ),
        ),
        (
            "On one stream",
            format!("{} items", count(limits.stream_items)),
        ),
        ("Waiting", format!("{} items", count(limits.queue_items))),
        (
            "In a step",
            format!(
                "{} sequences, {} tokens",
                count(limits.batch_size),
                count(limits.step_tokens)
            ),
        ),
        (
            "KV cache",
            format!("{} tokens", grouped(limits.kv_cache_tokens)),
        ),
        (
            "Stop strings",
            format!(
                "{} of {} bytes",
                count(limits.max_stop_strings),
                count(limits.max_stop_bytes)
            ),
        ),
        ("Ids", format!("{} bytes", count(limits.max_id_bytes))),
    ];
    let mut out = String::new();
    // A server need not know everything about its model.
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("{name:<17}{value}\n"));
    }
    out.push_str("\nAt most\n");
    for (name, value) in limit_rows {
        out.push_str(&format!("  {name:<15}{value}\n"));
    }
    out
}
