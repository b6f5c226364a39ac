//! How far a batch is: a bar on a terminal, a line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::numbers::{grouped, seconds};
use super::terminal::Terminal;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Progress<'a> {
    terminal: &'a Terminal,
    view: View,
    started: Instant,
    total: u64,
    done: u64,
    failed: u64,
}

enum View {
    Bar(ProgressBar),
    Lines { last: Instant },
    Nothing,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(terminal: &'a Terminal, total: u64, quiet: bool) -> Self {
        let view = match (quiet || total == 0, terminal.stderr_is_terminal()) {
            (true, _) => View::Nothing,
            (false, true) => View::Bar(bar(total)),
            (false, false) => View::Lines {
                last: Instant::now(),
            },
        };
        Self {
            terminal,
            view,
            started: Instant::now(),
            total,
            done: 0,
            failed: 0,
        }
    }

    /// One more file is done.
    pub(crate) fn advance(&mut self, failed: bool) {
        self.done += 1;
        self.failed += u64::from(failed);
        let left = self.left();
        match &mut self.view {
            View::Bar(bar) => {
                bar.set_message(left);
                bar.inc(1);
            }
            View::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let (done, total) = (grouped(self.done), grouped(self.total));
                self.terminal
                    .note(&format!("{done}/{total} files · {left}"));
            }
            View::Lines { .. } | View::Nothing => {}
        }
    }

    /// Tells of a failure, above the bar.
    pub(crate) fn error(&self, message: &str) {
        match &self.view {
            View::Bar(bar) => bar.suspend(|| self.terminal.error(message)),
            View::Lines { .. } | View::Nothing => self.terminal.error(message),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let View::Bar(bar) = &self.view {
            bar.finish_and_clear();
        }
    }

    /// What the bar says beside its numbers.
    fn left(&self) -> String {
        let passed = self.started.elapsed().as_secs_f64();
        let rate = self.done as f64 / passed.max(1e-3);
        let left = self.total.saturating_sub(self.done) as f64 / rate;
        format!(
            "{} failed · {rate:.1} files/s · {} left",
            grouped(self.failed),
            seconds(left)
        )
    }
}

fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{bar:20} {human_pos}/{human_len} files · {wide_msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message("waiting for the first answer");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
