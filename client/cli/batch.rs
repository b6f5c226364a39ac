//! `code-explainer batch`: many files, into a file that a later run goes on from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use prost::Message;
use tokio::sync::mpsc;

use code_explainer_client::proto::{ExplainRequest, OnDeadline};
use code_explainer_client::{
    Answer, Client, Code, Error, Item, Progress as ItemProgress, Retry, Step, Window,
};

use super::args::{BatchArgs, GenerationArgs};
use super::exit::{Exit, Stop};
use super::files::{self, Unreadable};
use super::journal::Journal;
use super::languages;
use super::numbers::{grouped, millis};
use super::progress::Progress;
use super::record::{Name, Record};
use super::session::Session;
use super::terminal::Terminal;
use super::walk::{self, Found};

/// A server that is restarted is waited for this long: it loads its model first.
const PATIENCE: Duration = Duration::from_secs(120);

/// Files that could not be read and are not recorded yet, at most; then reading waits.
const UNREADABLE_BACKLOG: usize = 16;

pub(crate) async fn run(
    client: &Client,
    args: &BatchArgs,
    terminal: &Terminal,
) -> Result<Exit, Stop> {
    let asked = terminal.attend_unless(args.quiet, client, client.model());
    let served = asked.await?;
    let limits = served.limits.unwrap_or_default();
    let model: Arc<str> = served.name.into();
    let limit = args.max_bytes.unwrap_or(match limits.max_code_bytes {
        0 => u64::MAX,
        bytes => bytes.into(),
    });
    let found = walk::find(args, limit)?;
    let Found {
        mut files,
        empty,
        large,
        other,
        unreadable,
    } = found;
    for problem in &unreadable {
        terminal.error(problem);
    }
    if files.is_empty() && empty + large == 0 {
        let hint = match other {
            0 => String::new(),
            _ => format!(
                " ({}): name files, or --include '*.EXTENSION'",
                not_source(other)
            ),
        };
        return Err(Stop::Usage(format!(
            "no source files in {}{hint}",
            args.paths.join(", ")
        )));
    }
    let journal = Journal::open(&args.output)?;
    let (all, mut changed) = (files.len(), 0);
    files.retain(|path| {
        let answered = is_answered(path, &journal, args, limit, &model);
        changed += usize::from(answered == Some(false));
        answered != Some(true)
    });
    let kept = all - files.len();

    let mut batch = Batch {
        terminal,
        progress: Progress::new(terminal, files.len() as u64, args.quiet),
        started: Instant::now(),
        kept,
        changed,
        asked: Asked::default(),
        model,
        files: files.len(),
        skipped: skipped(empty, large, other, limit),
        journal,
        explained: 0,
        failed: 0,
        tokens: 0,
    };
    let outcome = batch.explain(client, args, files, limit).await;
    batch.progress.finish();
    if !args.quiet {
        batch.sum_up(matches!(outcome, Ok(Exit::Interrupted) | Err(_)));
    }
    match outcome {
        Ok(Exit::Ok) if !unreadable.is_empty() => Ok(Exit::Failed),
        outcome => outcome,
    }
}

/// The digests of requests that are under way, by the path.
type Asked = Arc<Mutex<HashMap<String, String>>>;

struct Batch<'a> {
    terminal: &'a Terminal,
    progress: Progress<'a>,
    journal: Journal,
    started: Instant,
    /// Files that had an answer already.
    kept: usize,
    /// Files that had one to something else.
    changed: usize,
    /// What is being asked, by path.
    asked: Asked,
    /// The name of the model that is asked.
    model: Arc<str>,
    /// Files to do.
    files: usize,
    /// What was left out, for the summary.
    skipped: String,
    explained: usize,
    failed: usize,
    tokens: u64,
}

impl Batch<'_> {
    async fn explain(
        &mut self,
        client: &Client,
        args: &BatchArgs,
        files: Vec<PathBuf>,
        limit: u64,
    ) -> Result<Exit, Stop> {
        let (unreadable, mut unreadables) = mpsc::channel(UNREADABLE_BACKLOG);
        let generation = Arc::new(args.generation.clone());
        let (asked, model) = (self.asked.clone(), self.model.clone());
        // Files are read when there is room for them, one at a time.
        let items = stream::iter(files).filter_map(move |path| {
            let (unreadable, generation) = (unreadable.clone(), generation.clone());
            let (asked, model) = (asked.clone(), model.clone());
            async move {
                let name = name_of(&path);
                let read = move || item(&path, &generation, limit);
                match tokio::task::spawn_blocking(read).await.ok()? {
                    Ok(item) => {
                        let digest = digest(&item, &model);
                        lock(&asked).insert(name.clone(), digest);
                        Some(item.with_id(name))
                    }
                    Err(error) => {
                        // Refused only when the batch is at its end.
                        let _ = unreadable.send((name, error.into_error())).await;
                        None
                    }
                }
            }
        });

        let window = Window {
            size: args.window.map(usize::from),
            retry: Retry {
                patience: PATIENCE,
                ..Retry::default()
            },
            ..Window::default()
        };
        let mut session = Session::new(client.explain_all(items, window));
        loop {
            tokio::select! {
                biased;
                Some((name, error)) = unreadables.recv() => self.fail(&name, &error)?,
                step = session.next() => match step {
                    Some(step) => self.take(step?, session.is_interrupted())?,
                    None => break,
                },
            }
        }
        while let Ok((name, error)) = unreadables.try_recv() {
            self.fail(&name, &error)?;
        }
        Ok(match (session.is_interrupted(), self.failed) {
            (true, _) => Exit::Interrupted,
            (false, 0) => Exit::Ok,
            (false, _) => Exit::Failed,
        })
    }

    fn take(&mut self, step: Step, interrupted: bool) -> Result<(), Stop> {
        let ItemProgress::Finished(result) = step.progress else {
            return Ok(());
        };
        match result {
            Ok(answer) => self.keep(&step.id, answer),
            // What the user interrupted has not failed, and is not recorded.
            Err(error) if interrupted && error.code() == Code::Cancelled => Ok(()),
            Err(error) => self.fail(&step.id, &error),
        }
    }

    fn keep(&mut self, path: &str, answer: Box<Answer>) -> Result<(), Stop> {
        self.tokens += u64::from(answer.done.usage.generated_tokens);
        let asked = lock(&self.asked).remove(path);
        let answer = Ok(answer);
        let record = Record::new(Name::Path(path), &answer).to(asked.as_deref());
        self.journal.append(&record)?;
        self.explained += 1;
        self.progress.advance(false);
        Ok(())
    }

    fn fail(&mut self, path: &str, error: &Error) -> Result<(), Stop> {
        let asked = lock(&self.asked).remove(path);
        let record = Record::failure(Name::Path(path), error).to(asked.as_deref());
        self.journal.append(&record)?;
        self.failed += 1;
        self.progress.error(&format!("{path}: {error}"));
        self.progress.advance(true);
        Ok(())
    }

    fn sum_up(&self, cut: bool) {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut parts = vec![format!("{} explained", grouped(self.explained as u64))];
        if self.failed > 0 {
            parts.push(format!("{} failed", grouped(self.failed as u64)));
        }
        if self.kept > 0 {
            parts.push(format!("{} done before", grouped(self.kept as u64)));
        }
        if self.changed > 0 {
            let changed = grouped(self.changed as u64);
            parts.push(format!(
                "{changed} again: the file, the options or the model changed"
            ));
        }
        if !self.skipped.is_empty() {
            parts.push(self.skipped.clone());
        }
        let left = self.files.saturating_sub(self.explained + self.failed);
        if cut && left > 0 {
            parts.push(format!(
                "{} left: run the same command to go on",
                grouped(left as u64)
            ));
        }
        let mut summary = parts.join(", ");
        if self.explained > 0 {
            let rate = self.tokens as f64 / seconds.max(1e-3);
            let (tokens, time) = (grouped(self.tokens), millis(seconds * 1e3));
            summary.push_str(&format!(" · {tokens} tokens in {time} ({rate:.1} tok/s)"));
        }
        self.terminal.note(&summary);
    }
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What is asked of the server about a file.
fn item(path: &Path, generation: &GenerationArgs, limit: u64) -> Result<Item, Unreadable> {
    let code = files::read(path, limit)?;
    let options = generation.options(languages::language(path), false);
    Ok(Item::new(code).with_options(options))
}

/// Whether the journal's answer is one to what would be asked now. `None`: it has none, or the file cannot be read, and
/// fails by its name later.
fn is_answered(
    path: &Path,
    journal: &Journal,
    args: &BatchArgs,
    limit: u64,
    model: &str,
) -> Option<bool> {
    let name = name_of(path);
    if !journal.has(&name) {
        return None;
    }
    let item = item(path, &args.generation, limit).ok()?;
    Some(journal.answers(&name, &digest(&item, model)))
}

/// Of the model's name, the code, and the options that decide what the answer may be.
fn digest(item: &Item, model: &str) -> String {
    let mut request = ExplainRequest::from(item.clone());
    // When it is answered, how fast, and out of which cache.
    request.priority = 0;
    request.replay = 0;
    request.cache_mode = 0;
    if request.on_deadline != OnDeadline::Keep as i32 {
        request.timeout = None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(model.len() as u64).to_le_bytes());
    hasher.update(model.as_bytes());
    hasher.update(&request.encode_to_vec());
    hasher.finalize().to_hex()[..32].to_owned()
}

fn lock(asked: &Asked) -> MutexGuard<'_, HashMap<String, String>> {
    // Each operation leaves the map whole.
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_source(other: usize) -> String {
    format!("{} not known as source code", grouped(other as u64))
}

fn skipped(empty: usize, large: usize, other: usize, limit: u64) -> String {
    let mut parts = Vec::new();
    if empty > 0 {
        parts.push(format!("{} empty", grouped(empty as u64)));
    }
    if large > 0 {
        parts.push(format!("{} over {limit} bytes", grouped(large as u64)));
    }
    if other > 0 {
        parts.push(not_source(other));
    }
    let last = parts.pop();
    match last {
        None => String::new(),
        Some(last) if parts.is_empty() => format!("{last} left out"),
        Some(last) => format!("{} and {last} left out", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use code_explainer_client::proto::{CacheMode, Replay};
    use code_explainer_client::{ExplainOptions, Priority};

    use super::*;

    #[test]
    fn a_digest_is_of_the_code_and_the_model() {
        let digest = |code: &str, model| digest(&Item::new(code), model);
        assert_eq!(digest("x", "a"), digest("x", "a"));
        assert_ne!(digest("x", "a"), digest("y", "a"));
        assert_ne!(digest("x", "a"), digest("x", "b"));
    }

    #[test]
    fn a_digest_is_of_the_options_that_decide_the_answer() {
        let digest = |options| digest(&Item::new("x").with_options(options), "a");
        let plain = ExplainOptions::default();
        let timeout = Some(Duration::from_secs(1));
        let same = ExplainOptions {
            priority: Some(Priority::Bulk),
            replay: Replay::Paced,
            cache_mode: CacheMode::Refresh,
            timeout,
            ..ExplainOptions::default()
        };
        assert_eq!(digest(plain.clone()), digest(same));
        let kept = |timeout| ExplainOptions {
            timeout,
            keep_at_deadline: true,
            ..ExplainOptions::default()
        };
        assert_ne!(digest(plain), digest(kept(timeout)));
        assert_ne!(digest(kept(None)), digest(kept(timeout)));
    }
}
