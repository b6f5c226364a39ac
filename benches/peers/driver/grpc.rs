//! A server's clients: items are sent when their time has come, whatever has become of those before.

use std::time::Duration;

use anyhow::bail;
use code_explainer_client::{Client, ExplainOptions, Item, Progress, Retry, Window};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::jobs;

/// Items for one stream.
#[derive(Deserialize)]
struct Job {
    items: Vec<Wanted>,
    /// How many are in flight at most.
    window: usize,
}

#[derive(Deserialize)]
struct Wanted {
    code: String,
    language: String,
    /// Generate exactly this many tokens.
    generate: u32,
    /// When to send it, in seconds from the beginning.
    at: f64,
}

#[derive(Serialize)]
struct Times {
    /// From the beginning until the last item's end.
    seconds: f64,
    items: Vec<ItemTimes>,
}

#[derive(Serialize, Clone, Default)]
struct ItemTimes {
    /// When it should be sent, and when its first text and its end came, in seconds from the beginning.
    at: f64,
    first: f64,
    end: f64,
    prompt_tokens: u32,
    cached_tokens: u32,
    generated_tokens: u32,
    /// Where the answer came from: "computed" by the model, or a cache.
    cache: String,
}

/// Answers each job with its times.
pub(crate) fn work(address: &str) -> anyhow::Result<()> {
    // One thread is enough, and leaves the cores to the server.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    jobs::answer(|job: Job| runtime.block_on(send(address, job)))
}

async fn send(address: &str, job: Job) -> anyhow::Result<Times> {
    // A connection for each job: between jobs nobody would answer the server's keep-alive. It is made before the clock runs.
    let client = Client::connect(address)?;
    client.model().await?;
    let begin = Instant::now();
    let mut items: Vec<ItemTimes> = (job.items.iter())
        .map(|wanted| ItemTimes {
            at: wanted.at,
            ..ItemTimes::default()
        })
        .collect();
    let arriving = stream::iter(job.items).then(move |wanted| async move {
        tokio::time::sleep_until(begin + Duration::from_secs_f64(wanted.at)).await;
        Item::new(wanted.code).with_options(ExplainOptions {
            language: Some(wanted.language),
            max_new_tokens: Some(wanted.generate),
            ignore_eos: true,
            ..ExplainOptions::default()
        })
    });
    let window = Window {
        size: Some(job.window),
        // An item that has to be sent again is not what is measured.
        retry: Retry {
            tries: 1,
            ..Retry::default()
        },
        streams: None,
    };
    let mut steps = client.explain_all(arriving, window);
    while let Some(step) = steps.next().await {
        let step = step?;
        let now = begin.elapsed().as_secs_f64();
        let item = &mut items[step.index];
        match step.progress {
            Progress::Delta(_) if item.first == 0.0 => item.first = now,
            Progress::Finished(Ok(answer)) => {
                item.end = now;
                let usage = answer.done.usage;
                item.prompt_tokens = usage.prompt_tokens;
                item.cached_tokens = usage.cached_tokens;
                item.generated_tokens = usage.generated_tokens;
                item.cache = format!("{:?}", answer.done.receipt.cache).to_lowercase();
                if item.first == 0.0 {
                    item.first = now; // all of its text came with its end
                }
            }
            Progress::Finished(Err(error)) => bail!("item {}: {error}", step.index),
            _ => {}
        }
    }
    Ok(Times {
        seconds: items.iter().map(|item| item.end).fold(0.0, f64::max),
        items,
    })
}
