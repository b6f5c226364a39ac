//! `code-explainer explain`: a few files, read by a person as they come.

use std::path::Path;

use futures::stream;

use code_explainer_client::{Answer, Client, Error, Item, Progress, Step, Window};

use super::args::ExplainArgs;
use super::exit::{Exit, Stop};
use super::record::{EventRecord, Name, Record, line};
use super::session::Session;
use super::terminal::{Style, Terminal};
use super::{files, languages, numbers};

pub(crate) async fn run(
    client: &Client,
    args: &ExplainArgs,
    terminal: &Terminal,
) -> Result<Exit, Stop> {
    // Asked before anything is read: without a server there is nothing to wait for at a prompt.
    let limits = terminal
        .attend(client, client.model())
        .await?
        .limits
        .unwrap_or_default();
    let limit = match limits.max_code_bytes {
        0 => u64::MAX,
        bytes => u64::from(bytes),
    };

    let mut failed = false;
    let mut items = Vec::new();
    for path in &args.files {
        let name = path.to_string_lossy();
        match files::read(path, limit) {
            Ok(code) => {
                let options = args
                    .generation
                    .options(languages::language(path), args.show_prompt);
                items.push(Item::new(code).with_id(name).with_options(options));
            }
            Err(unreadable) => {
                failed = true;
                terminal.error(&format!("{}: {}", shown(path), unreadable.message));
                let error = unreadable.into_error();
                if args.json {
                    terminal.print(&line(&Record::failure(Name::Id(&name), &error)))?;
                } else if args.events {
                    terminal.print(&line(&EventRecord::failure(&name, &error)))?;
                }
            }
        }
    }

    let mut output = Output::new(args, terminal, items.iter().map(|item| item.id.clone()));
    let steps = client.explain_all(stream::iter(items), Window::default());
    let mut session = Session::new(steps);
    while let Some(step) = session.next().await {
        match step {
            // What comes after Ctrl-C is the end of what the user no longer wants.
            Ok(_) if session.is_interrupted() => {}
            Ok(step) => output.take(step)?,
            Err(error) => {
                output.break_line();
                return Err(error.into());
            }
        }
    }
    if session.is_interrupted() {
        output.break_line();
        return Ok(Exit::Interrupted);
    }
    Ok(if failed || output.failed {
        Exit::Failed
    } else {
        Exit::Ok
    })
}

/// The file's name as an error tells it.
fn shown(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

struct Output<'a> {
    args: &'a ExplainArgs,
    terminal: &'a Terminal,
    receipts: bool,
    sheets: Vec<Sheet>,
    /// The sheet that is being printed as it comes.
    current: usize,
    /// Whether the last thing printed to standard output was a whole line.
    at_line_start: bool,
    /// Whether a header is above.
    printed: bool,
    failed: bool,
}

/// What has come for a file and is not printed yet.
#[derive(Default)]
struct Sheet {
    name: String,
    text: String,
    prompt: Option<String>,
    /// Whether its header is printed.
    opened: bool,
    result: Option<Result<Box<Answer>, Error>>,
}

impl<'a> Output<'a> {
    fn new(
        args: &'a ExplainArgs,
        terminal: &'a Terminal,
        names: impl Iterator<Item = String>,
    ) -> Self {
        Self {
            args,
            terminal,
            receipts: args.receipt || (terminal.stderr_is_terminal() && !args.no_receipt),
            sheets: names
                .map(|name| Sheet {
                    name,
                    ..Sheet::default()
                })
                .collect(),
            current: 0,
            at_line_start: true,
            printed: false,
            failed: false,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), Stop> {
        let machine = self.args.events || self.args.json;
        if self.args.events {
            self.terminal.print(&line(&EventRecord::of(&step)))?;
        }
        match &step.progress {
            Progress::Retrying { error, .. } => {
                // The answer may go on in the middle of its line: what is no terminal gets it whole.
                if self.terminal.stdout_is_terminal() {
                    self.break_line();
                }
                self.terminal
                    .note(&format!("{}: {error}; trying again", step.id));
            }
            Progress::Finished(result) => {
                if self.args.json {
                    self.terminal
                        .print(&line(&Record::new(Name::Id(&step.id), result)))?;
                }
                if let Err(error) = result {
                    self.failed = true;
                    if machine {
                        self.tell(&step.id, error);
                    }
                }
            }
            _ => {}
        }
        if machine { Ok(()) } else { self.put(step) }
    }

    fn tell(&self, name: &str, error: &Error) {
        self.terminal
            .error(&format!("{}: {error}", shown(Path::new(name))));
    }

    /// Puts the step on its sheet, and prints what may be printed.
    fn put(
        &mut self,
        Step {
            index, progress, ..
        }: Step,
    ) -> Result<(), Stop> {
        let Some(sheet) = self.sheets.get_mut(index) else {
            return Ok(());
        };
        match progress {
            Progress::Accepted(accepted) => {
                sheet.prompt = Some(accepted.prompt).filter(|prompt| !prompt.is_empty());
                if index == self.current {
                    self.open()?;
                }
            }
            Progress::Delta(delta) if index == self.current => self.print(&delta.text)?,
            Progress::Delta(delta) => sheet.text.push_str(&delta.text),
            Progress::Restarted if index == self.current => {
                self.break_line();
                self.terminal.note("the answer starts again");
            }
            Progress::Restarted => sheet.text.clear(),
            Progress::Retrying { .. } => {}
            Progress::Finished(result) => {
                sheet.result = Some(result);
                self.close_finished()?;
            }
        }
        Ok(())
    }

    /// Ends the current sheet if it is finished, and goes on with the next one.
    fn close_finished(&mut self) -> Result<(), Stop> {
        while let Some(sheet) = self.sheets.get_mut(self.current)
            && let Some(result) = sheet.result.take()
        {
            self.break_line();
            match result {
                Ok(answer) if self.receipts => {
                    self.terminal.note(&numbers::receipt(&answer.done));
                }
                Ok(_) => {}
                Err(error) => self.tell(&self.sheets[self.current].name, &error),
            }
            self.current += 1;
            self.open()?;
        }
        Ok(())
    }

    /// Prints what has come of the current sheet: its header, its prompt, its text so far.
    fn open(&mut self) -> Result<(), Stop> {
        let Some(sheet) = self.sheets.get_mut(self.current) else {
            return Ok(());
        };
        let text = std::mem::take(&mut sheet.text);
        let prompt = sheet.prompt.take();
        // A file that failed without a word needs no header over its error.
        let silent = text.is_empty() && matches!(sheet.result, Some(Err(_)));
        if self.args.files.len() > 1 && !sheet.opened && !silent {
            sheet.opened = true;
            let header = format!("==> {} <==", sheet.name);
            if std::mem::replace(&mut self.printed, true) {
                self.terminal.print("\n")?;
            }
            self.terminal.print_line(Style::Bold, &header)?;
        }
        if let Some(prompt) = prompt {
            self.terminal.note(&format!(
                "--- prompt ---\n{}\n--- answer ---",
                prompt.trim_end()
            ));
        }
        self.print(&text)
    }

    fn print(&mut self, text: &str) -> Result<(), Stop> {
        if !text.is_empty() {
            self.terminal.print(text)?;
            self.at_line_start = text.ends_with('\n');
        }
        Ok(())
    }

    /// Ends a line that was begun, before something else is said.
    fn break_line(&mut self) {
        if !self.at_line_start {
            // The next write of the answer meets the same failure and tells of it.
            let _ = self.terminal.print("\n");
            self.at_line_start = true;
        }
    }
}
