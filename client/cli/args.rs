//! The arguments, whose doc comments are the help that the program prints.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};

use code_explainer_client::proto::{CacheMode, Replay, Retrieval};
use code_explainer_client::{ExplainOptions, Priority};

use super::cache::CacheArgs;
use super::credentials::AccessArgs;

const AFTER_HELP: &str = "\
Examples:
  code-explainer explain src/main.rs
  code-explainer explain a.py b.py c.py --receipt
  git show HEAD:lib/queue.c | code-explainer explain - --language c
  code-explainer batch src -o explanations.jsonl
  code-explainer --server gpu-box:50051 model

Exit codes:
  0    all went well
  1    something could not be read, explained or written; the rest was done
  2    the command line or an address is wrong, or there is nothing to do it on
  69   the server is not there or not ready
  130  interrupted with Ctrl-C";

/// Explains code with a language model that a Code Explainer server runs.
#[derive(Debug, Parser)]
#[command(name = "code-explainer", version, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Args {
    /// The server: HOST:PORT, http://HOST:PORT or https://HOST:PORT.
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        env = "CODE_EXPLAINER_SERVER",
        default_value = "http://127.0.0.1:50051"
    )]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Explain(ExplainArgs),
    Batch(BatchArgs),
    Corpus(super::corpus::CorpusArgs),
    /// Show the model that the server runs, and its limits.
    Model(JsonArg),
    Cache(CacheArgs),
    /// Show what the server has done since it started, and how it is.
    Report(JsonArg),
}

/// Explain files, and print the answers as the model writes them.
///
/// Several files are explained together over one stream. Their answers are printed in the order of the
/// files: the first one as it comes, the others as soon as it is their turn.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  code-explainer explain src/main.rs
  code-explainer explain *.py --strategy ast_augmented --max-new-tokens 200
  code-explainer explain a.go --temperature 0.7 --top-p 0.9 --seed 1
  code-explainer explain a.go --stop '\\n\\n' --json | jq -r .text
  pbpaste | code-explainer explain -")]
pub(crate) struct ExplainArgs {
    /// Files to explain; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Print one JSON object per file, when its answer is complete: id, language, text, finish_reason,
    /// usage, receipt and tries, or id and error.
    #[arg(long, conflicts_with = "events")]
    pub(crate) json: bool,
    /// Print every event as a JSON object as it comes: accepted, delta, retrying, restarted, done, error.
    #[arg(long)]
    pub(crate) events: bool,
    /// Show the exact prompt that the model was given (on standard error, or in the JSON).
    #[arg(long)]
    pub(crate) show_prompt: bool,
    /// After each answer, tell on standard error how it was made. The default on a terminal.
    #[arg(long, overrides_with = "no_receipt")]
    pub(crate) receipt: bool,
    /// Do not tell how the answers were made.
    #[arg(long, overrides_with = "receipt")]
    pub(crate) no_receipt: bool,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

/// Explain many files into a file of JSON lines.
///
/// Directories are searched for source files, which are told by name or by their first line (#!); hidden ones and
/// what .gitignore names are left out, and how many others are is told at the end. Each line has the path,
/// request_digest, language, text, finish_reason, usage and receipt of a file, or its path and error.
///
/// It can be interrupted and run again: files that OUT has an answer for are skipped, unless they, the options or
/// the model have changed since; files that failed are tried again (the last line of a path counts), and a last
/// line that was cut is removed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  code-explainer batch . -o explanations.jsonl
  code-explainer batch 'src/**/*.rs' -o rust.jsonl --max-new-tokens 120
  code-explainer batch src lib --exclude '*_test.go' --exclude 'vendor/**' -o out.jsonl
  code-explainer batch src -o - | jq -r '.path + \": \" + .text'")]
pub(crate) struct BatchArgs {
    /// Directories to search, files, or patterns such as 'src/**/*.py'.
    #[arg(required = true, value_name = "DIR|GLOB|FILE")]
    pub(crate) paths: Vec<String>,
    /// Where the lines go; `-` is standard output, which cannot be resumed.
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// In directories, take the files that match this pattern instead of those whose name or first line is known.
    /// Repeatable. A pattern without a slash matches in every directory.
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// In directories and patterns, leave out the files that match this pattern. Repeatable.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Leave out files of more bytes [default: what the server takes].
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// Files in flight at most [default: what the server takes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) window: Option<u16>,
    /// Show no progress and no summary; failures are still told.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) generation: GenerationArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct JsonArg {
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How the answers are generated. What is not given is left to the server.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArgs {
    /// The programming language [default: by the file's name or first line, or else as the server detects it].
    #[arg(short, long, value_name = "NAME")]
    language: Option<String>,
    /// How the prompt is made: vanilla, ast_augmented (with an outline of the syntax tree), or retrieval_augmented (with
    /// passages of the corpus that are near).
    #[arg(short, long, value_name = "NAME")]
    strategy: Option<String>,
    /// With retrieval_augmented: quote at most this many passages.
    #[arg(long, value_name = "K")]
    retrieval_top_k: Option<u32>,
    /// With retrieval_augmented: the least cosine of a passage with the code.
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true)]
    retrieval_threshold: Option<f32>,
    /// With retrieval_augmented: how much passages should differ from each other, 0 to 1.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    retrieval_diversity: Option<f32>,
    /// Generate at most this many tokens; 0, like none, is the server's default.
    #[arg(short = 'n', long, value_name = "N")]
    max_new_tokens: Option<u32>,
    /// Do not let the answer end before this many tokens.
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<u32>,
    /// Sampling temperature; 0 always takes the most likely token [default: 0].
    #[arg(short, long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Sample from the fewest tokens whose probabilities sum to this, in (0, 1].
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Sample from this many most likely tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Divide the scores of tokens that occurred already by this; 1 is off.
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Seed of the sampling: the same seed gives the same answer.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// End the answer at this text, which is not printed. Repeatable; \n, \t, \r and \\ are understood.
    #[arg(long, value_name = "TEXT", action = ArgAction::Append, value_parser = unescape)]
    stop: Vec<String>,
    /// Go on to --max-new-tokens even when the model says that it has finished.
    #[arg(long)]
    ignore_eos: bool,
    /// How urgent it is beside other items of yours: interactive, normal or bulk.
    #[arg(long, value_name = "CLASS", value_parser = priority)]
    priority: Option<Priority>,
    /// The most seconds for an item on the server, in its queue and in its engine.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    item_timeout: Option<Duration>,
    /// When --item-timeout is up, keep what there is of the answer; without it the item fails.
    #[arg(long, requires = "item_timeout")]
    keep_at_deadline: bool,
    /// What the server's caches are for: refresh computes the answer and keeps it in place of the one that is there, bypass
    /// computes it and keeps nothing, only computes nothing.
    #[arg(long, value_name = "MODE", value_enum, default_value = "default")]
    cache: CacheArg,
    /// Show an answer from a cache at the pace at which it was made.
    #[arg(long)]
    paced: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum CacheArg {
    Default,
    Refresh,
    Bypass,
    Only,
}

impl GenerationArgs {
    /// Nothing where none of it is given, which leaves it to the server.
    fn retrieval(&self) -> Option<Retrieval> {
        let wish = Retrieval {
            top_k: self.retrieval_top_k,
            threshold: self.retrieval_threshold,
            diversity: self.retrieval_diversity,
            ..Retrieval::default()
        };
        (wish != Retrieval::default()).then_some(wish)
    }

    /// The options for a file whose name or first line tells the language `detected`.
    pub(crate) fn options(&self, detected: Option<&str>, include_prompt: bool) -> ExplainOptions {
        ExplainOptions {
            language: self
                .language
                .clone()
                .or_else(|| detected.map(str::to_owned)),
            strategy: self.strategy.clone(),
            retrieval: self.retrieval(),
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            include_full_text: false,
            include_prompt,
            priority: self.priority,
            timeout: self.item_timeout,
            keep_at_deadline: self.keep_at_deadline,
            cache_mode: match self.cache {
                CacheArg::Default => CacheMode::Unspecified,
                CacheArg::Refresh => CacheMode::Refresh,
                CacheArg::Bypass => CacheMode::Bypass,
                CacheArg::Only => CacheMode::Only,
            },
            replay: if self.paced {
                Replay::Paced
            } else {
                Replay::Unspecified
            },
        }
    }
}

fn priority(text: &str) -> Result<Priority, String> {
    match text {
        "interactive" => Ok(Priority::Interactive),
        "normal" => Ok(Priority::Normal),
        "bulk" => Ok(Priority::Bulk),
        _ => Err("expected interactive, normal or bulk".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "expected a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('\\') => out.push('\\'),
            Some(other) => {
                return Err(format!(
                    "\\{other} is no escape; write \\\\ for a backslash"
                ));
            }
            None => return Err("it ends in a single backslash; write \\\\".to_owned()),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn stop_strings_know_escapes() {
        assert_eq!(unescape(r"a\n\t\\n").as_deref(), Ok("a\n\t\\n"));
        assert!(unescape(r"\q").is_err());
        assert!(unescape(r"\").is_err());
    }
}
