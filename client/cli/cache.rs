//! `code-explainer cache`: what the server's caches hold, clearing them, and warming them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use futures::{StreamExt, stream};
use serde::Serialize;

use code_explainer_client::proto::{CacheLevelStats, CacheStore, WarmOutcome};
use code_explainer_client::{CacheClear, CacheStats, Client, Item};

use super::args::{GenerationArgs, JsonArg};
use super::exit::{Exit, Stop};
use super::files;
use super::languages;
use super::numbers::{evictions, grouped, micros, size};
use super::progress::Progress;
use super::record::line;
use super::terminal::Terminal;

/// Show, clear or warm the server's caches.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  code-explainer cache stats
  code-explainer cache clear --language 'c*'
  code-explainer cache clear --level memory --strategy ast_augmented
  code-explainer cache warm src/*.rs --strategy ast_augmented")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what each level holds, how often it was asked and how fast it answered.
    Stats(JsonArg),
    Clear(ClearArgs),
    Warm(WarmArgs),
}

/// Remove answers: all of them, or those that agree in all that is given.
#[derive(Debug, Args)]
struct ClearArgs {
    /// From this level alone. Repeatable.
    #[arg(long, value_name = "LEVEL")]
    level: Vec<ClearLevel>,
    /// Those of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Those of these languages, given or detected: a name, or a pattern with * and ?.
    #[arg(long, value_name = "PATTERN")]
    language: Option<String>,
    /// Those of these strategies: a name, or a pattern with * and ?.
    #[arg(long, value_name = "PATTERN")]
    strategy: Option<String>,
    /// Print what was removed as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ClearLevel {
    Memory,
    Redis,
}

/// Have files explained, so that their answers are there when somebody asks for them.
#[derive(Debug, Args)]
struct WarmArgs {
    /// Files to explain.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object per file, as each is done: id, outcome and error.
    #[arg(long)]
    json: bool,
    /// Show no progress and no summary; failures are still told.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    generation: GenerationArgs,
}

pub(crate) async fn run(
    client: &Client,
    args: &CacheArgs,
    terminal: &Terminal,
) -> Result<Exit, Stop> {
    match &args.command {
        Command::Stats(args) => {
            let stats = terminal.attend(client, client.cache_stats()).await?;
            terminal.print(&if args.json {
                line(&stats)
            } else {
                text(&stats)
            })?;
            Ok(Exit::Ok)
        }
        Command::Clear(args) => clear(client, args, terminal).await,
        Command::Warm(args) => warm(client, args, terminal).await,
    }
}

async fn clear(client: &Client, args: &ClearArgs, terminal: &Terminal) -> Result<Exit, Stop> {
    #[derive(Serialize)]
    struct Cleared<'a> {
        level: &'a str,
        entries: u64,
        error: &'a str,
    }
    let store = |level: &ClearLevel| match level {
        ClearLevel::Memory => CacheStore::Memory,
        ClearLevel::Redis => CacheStore::Redis,
    };
    let what = CacheClear {
        stores: args.level.iter().map(store).collect(),
        tenant: args.tenant.clone(),
        language: args.language.clone(),
        strategy: args.strategy.clone(),
    };
    let levels = terminal.attend(client, client.clear_cache(what)).await?;
    if levels.is_empty() {
        terminal.note("there is no such level: nothing to clear");
    }
    let mut exit = Exit::Ok;
    for level in &levels {
        let (name, entries) = (store_name(level.store()), level.entries);
        if args.json {
            terminal.print(&line(&Cleared {
                level: name,
                entries,
                error: &level.error,
            }))?;
        } else {
            terminal.print(&format!("{name}: {} removed\n", grouped(entries)))?;
        }
        if !level.error.is_empty() {
            terminal.error(&format!("{name}: {}", level.error));
            exit = Exit::Failed;
        }
    }
    Ok(exit)
}

async fn warm(client: &Client, args: &WarmArgs, terminal: &Terminal) -> Result<Exit, Stop> {
    let limits = terminal
        .attend_unless(args.quiet, client, client.model())
        .await?
        .limits
        .unwrap_or_default();
    let limit = match limits.max_code_bytes {
        0 => u64::MAX,
        bytes => bytes.into(),
    };
    let mut progress = Progress::new(terminal, args.files.len() as u64, args.quiet || args.json);
    let mut counts = Counts::default();
    let mut items = Vec::new();
    for path in &args.files {
        let name = path.to_string_lossy();
        match files::read(path, limit) {
            Ok(code) => {
                let options = args.generation.options(languages::language(path), false);
                items.push(Item::new(code).with_id(name).with_options(options));
            }
            Err(error) => {
                progress.error(&format!("{name}: {}", error.message));
                counts.take(&name, WarmOutcome::Failed, &error.message, args, terminal)?;
                progress.advance(true);
            }
        }
    }
    let warming = client.warm_cache(stream::iter(items));
    // A bar on a terminal says itself that it waits.
    let unwanted = args.quiet || (!args.json && terminal.stderr_is_terminal());
    let warming = terminal.attend_unless(unwanted, client, warming);
    let mut warming = warming.await?;
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        let ended = tokio::select! {
            _ = &mut interrupt => {
                progress.finish();
                return Ok(Exit::Interrupted);
            }
            ended = warming.next() => match ended {
                Some(ended) => ended?,
                None => break,
            },
        };
        let failed = ended.outcome() == WarmOutcome::Failed;
        if failed {
            progress.error(&format!("{}: {}", ended.id, ended.error));
        }
        counts.take(&ended.id, ended.outcome(), &ended.error, args, terminal)?;
        progress.advance(failed);
    }
    progress.finish();
    if !args.quiet && !args.json {
        terminal.note(&counts.summary());
    }
    Ok(if counts.failed > 0 {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

#[derive(Default)]
struct Counts {
    warmed: u64,
    present: u64,
    not_cacheable: u64,
    failed: u64,
}

impl Counts {
    fn take(
        &mut self,
        id: &str,
        outcome: WarmOutcome,
        error: &str,
        args: &WarmArgs,
        terminal: &Terminal,
    ) -> Result<(), Stop> {
        #[derive(Serialize)]
        struct Warmed<'a> {
            id: &'a str,
            outcome: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            error: &'a str,
        }
        let (count, outcome) = match outcome {
            WarmOutcome::Warmed => (&mut self.warmed, "warmed"),
            WarmOutcome::Present => (&mut self.present, "present"),
            WarmOutcome::NotCacheable => (&mut self.not_cacheable, "not_cacheable"),
            WarmOutcome::Failed | WarmOutcome::Unspecified => (&mut self.failed, "failed"),
        };
        *count += 1;
        if args.json {
            terminal.print(&line(&Warmed { id, outcome, error }))?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let parts = [
            (self.warmed, "warmed"),
            (self.present, "there before"),
            (self.not_cacheable, "not to be cached"),
            (self.failed, "failed"),
        ];
        let told = parts.iter().filter(|(n, what)| *n > 0 || *what == "warmed");
        let told: Vec<_> = told
            .map(|(n, what)| format!("{} {what}", grouped(*n)))
            .collect();
        told.join(", ")
    }
}

fn text(stats: &CacheStats) -> String {
    let mut out = String::new();
    for level in &stats.levels {
        let name = store_name(level.store());
        out.push_str(&format!("{name}\n"));
        for (name, value) in rows(level) {
            out.push_str(&format!("  {name:<12}{value}\n"));
        }
        if level.store() == CacheStore::Memory {
            let adaptive = stats.policy != stats.policy_in_force;
            let now = if adaptive {
                format!(", now {}", stats.policy_in_force)
            } else {
                String::new()
            };
            out.push_str(&format!("  {:<12}{}{now}\n", "policy", stats.policy));
        }
    }
    if out.is_empty() {
        out.push_str("the server keeps no answers\n");
    }
    out
}

fn rows(level: &CacheLevelStats) -> Vec<(&'static str, String)> {
    let of = |value: Option<u64>, most: Option<u64>, write: fn(u64) -> String| {
        let most = most.map(|most| format!(" of {}", write(most)));
        value.map(|value| write(value) + &most.unwrap_or_default())
    };
    let (entries, asked) = match level.store() {
        CacheStore::PrefixKv => ("blocks", "tokens"),
        CacheStore::Redis => ("keys", "look-ups"),
        _ => ("entries", "look-ups"),
    };
    let rate = (level.lookups_per_second).map(|rate| format!(", {rate:.1}/s"));
    let rate = rate.unwrap_or_default();
    let lookups = format!(
        "{} hits, {} misses ({:.1}% hit rate){rate}",
        grouped(level.hits),
        grouped(level.misses),
        level.hit_rate * 100.0
    );
    let times = (level.mean_access_us.zip(level.p99_access_us))
        .map(|(mean, p99)| format!("{} mean, {} p99", micros(mean), micros(p99)));
    let left = (level.evictions.iter().any(|e| e.count > 0)).then(|| evictions(&level.evictions));
    let errors = (level.errors > 0).then(|| grouped(level.errors));
    let rows = [
        (entries, of(level.entries, level.max_entries, grouped)),
        ("size", of(level.bytes, level.max_bytes, size)),
        (asked, Some(lookups)),
        ("access time", times),
        ("left", left),
        ("errors", errors),
    ];
    let told = rows
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    told.collect()
}

fn store_name(store: CacheStore) -> &'static str {
    match store {
        CacheStore::Memory => "memory",
        CacheStore::Redis => "redis",
        CacheStore::PrefixKv => "prefix KV cache",
        CacheStore::Embeddings => "embeddings",
        CacheStore::Unspecified => "another level",
    }
}
