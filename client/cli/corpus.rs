//! `code-explainer corpus`: the documents that the strategy "retrieval_augmented" quotes from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use code_explainer_client::proto::DocumentOutcome;
use code_explainer_client::{Client, NewDocument};
use futures::StreamExt;
use ignore::WalkBuilder;

use super::exit::{Exit, Stop};
use super::numbers::grouped;
use super::record::line;
use super::terminal::Terminal;

/// Files of documentation, by their extensions.
const DOCUMENTS: [&str; 8] = [
    "md", "mdx", "markdown", "txt", "rst", "adoc", "asciidoc", "org",
];

/// Load, list and remove the documents that --strategy retrieval_augmented quotes from.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  code-explainer corpus add docs README.md
  code-explainer corpus list
  code-explainer corpus remove docs/old.md
  code-explainer explain src/queue.rs --strategy retrieval_augmented")]
pub(crate) struct CorpusArgs {
    #[command(subcommand)]
    command: CorpusCommand,
}

#[derive(Debug, Subcommand)]
enum CorpusCommand {
    /// Load files, and those of directories that are documentation (.md, .txt, .rst, .adoc, .org). A file that has not
    /// changed is left as it is; one that has takes the place of what was loaded before.
    Add {
        /// Directories to search, leaving out what .gitignore names, or files.
        #[arg(required = true, value_name = "DIR|FILE")]
        paths: Vec<PathBuf>,
    },
    /// Show the documents that are loaded.
    List {
        /// Only those whose names begin so.
        #[arg(value_name = "PREFIX", default_value = "")]
        prefix: String,
        /// Print one JSON object per document.
        #[arg(long)]
        json: bool,
    },
    /// Remove documents.
    #[command(group(ArgGroup::new("which").required(true).multiple(true).args(["names", "prefix", "all"])))]
    Remove {
        /// Names, as `list` shows them.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Remove those whose names begin so.
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// Remove all of them.
        #[arg(long, conflicts_with_all = ["names", "prefix"])]
        all: bool,
    },
}

pub(crate) async fn run(
    client: &Client,
    args: &CorpusArgs,
    terminal: &Terminal,
) -> Result<Exit, Stop> {
    match &args.command {
        CorpusCommand::Add { paths } => add(client, paths, terminal).await,
        CorpusCommand::List { prefix, json } => list(client, prefix, *json, terminal).await,
        CorpusCommand::Remove { names, prefix, all } => {
            let prefix = if *all {
                Some(String::new())
            } else {
                prefix.clone()
            };
            let removed = terminal
                .attend(client, client.remove_documents(names.clone(), prefix))
                .await?;
            let (documents, passages) = (grouped(removed.documents), grouped(removed.passages));
            terminal.print(&format!(
                "removed {documents} documents, {passages} passages\n"
            ))?;
            Ok(Exit::Ok)
        }
    }
}

async fn add(client: &Client, paths: &[PathBuf], terminal: &Terminal) -> Result<Exit, Stop> {
    let mut files = BTreeSet::new();
    for path in paths {
        find(path, &mut files)?;
    }
    if files.is_empty() {
        return Err(Stop::Usage(format!(
            "there is no documentation (.{})",
            DOCUMENTS.join(", .")
        )));
    }
    let mut failed = false;
    let mut documents = Vec::new();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => documents.push(NewDocument {
                id: name(&file),
                title: String::new(),
                text,
            }),
            Err(error) => {
                failed = true;
                terminal.error(&format!("{}: {error}", file.display()));
            }
        }
    }
    let results = client.add_documents(futures::stream::iter(documents));
    let mut results = Box::pin(terminal.attend(client, results).await?);
    let (mut counts, mut passages) = ([0_u64; 3], 0);
    while let Some(result) = results.next().await {
        let result = result?;
        let place = match result.outcome() {
            DocumentOutcome::Added => 0,
            DocumentOutcome::Replaced => 1,
            DocumentOutcome::Unchanged => 2,
            DocumentOutcome::Refused | DocumentOutcome::Unspecified => {
                failed = true;
                terminal.error(&format!("{}: {}", result.id, result.error));
                continue;
            }
        };
        counts[place] += 1;
        passages += u64::from(result.passages);
    }
    let [added, replaced, unchanged] = counts.map(grouped);
    let passages = grouped(passages);
    terminal.print(&format!(
        "{added} added, {replaced} replaced, {unchanged} unchanged; {passages} passages\n"
    ))?;
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

async fn list(
    client: &Client,
    prefix: &str,
    json: bool,
    terminal: &Terminal,
) -> Result<Exit, Stop> {
    let mut token = String::new();
    loop {
        let page = terminal
            .attend(client, client.list_documents(prefix, &token))
            .await?;
        for document in &page.documents {
            if json {
                terminal.print(&line(document))?;
            } else {
                let (passages, bytes) =
                    (grouped(document.passages.into()), grouped(document.bytes));
                let name = &document.id;
                terminal.print(&format!(
                    "{name:<48} {passages:>6} passages {bytes:>11} bytes\n"
                ))?;
            }
        }
        if page.next_page_token.is_empty() {
            if !json {
                terminal.note(&format!(
                    "in all {} documents, {} passages; {} kept answers",
                    grouped(page.total_documents),
                    grouped(page.total_passages),
                    grouped(page.kept_answers)
                ));
            }
            return Ok(Exit::Ok);
        }
        token = page.next_page_token;
    }
}

/// A path as a document's name: the same from wherever `./` it is written.
fn name(path: &Path) -> String {
    let name = path.display().to_string();
    name.strip_prefix("./").unwrap_or(&name).to_owned()
}

fn find(path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), Stop> {
    if path.is_file() {
        files.insert(path.to_owned());
        return Ok(());
    }
    if !path.exists() {
        return Err(Stop::Usage(format!(
            "{}: no such file or directory",
            path.display()
        )));
    }
    for entry in WalkBuilder::new(path).require_git(false).build() {
        let entry = entry.map_err(|error| Stop::Usage(error.to_string()))?;
        let document = entry.path().extension().is_some_and(|extension| {
            DOCUMENTS
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known))
        });
        if document && entry.file_type().is_some_and(|kind| kind.is_file()) {
            files.insert(entry.into_path());
        }
    }
    Ok(())
}
