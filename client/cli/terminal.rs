//! The two output streams: colours only on a terminal, and nothing that a model says can command it.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use code_explainer_client::Client;

/// An answer that takes longer is said to be waited for.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// Where the program writes to.
pub(crate) struct Terminal {
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    colour: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Style {
    Bold,
    Dim,
    Red,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
        }
    }
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal: io::stderr().is_terminal(),
            // https://no-color.org
            colour: !set("NO_COLOR") && !dumb,
        }
    }

    pub(crate) fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    pub(crate) fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Writes text to standard output at once.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let text = if self.stdout_is_terminal {
            visible(text)
        } else {
            Cow::Borrowed(text)
        };
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Writes a styled line to standard output.
    pub(crate) fn print_line(&self, style: Style, line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.styled(self.stdout_is_terminal, style, line).as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Writes an error to standard error, after the program's name as Unix tools do.
    pub(crate) fn error(&self, message: &str) {
        let name = self.styled(self.stderr_is_terminal, Style::Red, "code-explainer:");
        self.write_stderr(&format!("{name} {}\n", self.for_stderr(message)));
    }

    /// Writes a line of lesser weight to standard error.
    pub(crate) fn note(&self, message: &str) {
        self.write_stderr(&format!(
            "{}\n",
            self.styled(self.stderr_is_terminal, Style::Dim, message)
        ));
    }

    /// Waits for the server's answer. Where none comes for a while, says whose is waited for.
    pub(crate) async fn attend<T>(&self, client: &Client, answer: impl Future<Output = T>) -> T {
        self.attend_unless(false, client, answer).await
    }

    /// As [`attend`](Self::attend), without a word where that is `unwanted`.
    pub(crate) async fn attend_unless<T>(
        &self,
        unwanted: bool,
        client: &Client,
        answer: impl Future<Output = T>,
    ) -> T {
        let mut answer = pin!(answer);
        if unwanted {
            return answer.await;
        }
        tokio::select! {
            answer = &mut answer => return answer,
            () = sleep(LONG_WAIT) => {}
        }
        self.note(&format!(
            "{} has not answered yet: waiting",
            client.address()
        ));
        answer.await
    }

    fn for_stderr<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.stderr_is_terminal {
            visible(text)
        } else {
            Cow::Borrowed(text)
        }
    }

    fn styled<'a>(&self, is_terminal: bool, style: Style, text: &'a str) -> Cow<'a, str> {
        match (is_terminal, self.colour) {
            (false, _) => Cow::Borrowed(text),
            (true, false) => visible(text),
            (true, true) => format!("\x1b[{}m{}\x1b[0m", style.code(), visible(text)).into(),
        }
    }

    fn write_stderr(&self, text: &str) {
        // With standard error gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The text with control characters made visible: a model, or a file's name, that writes an escape
/// sequence must not reach the terminal's controls.
fn visible(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let show = |c: char| match c {
        c if harmless(c) => c,
        // The block "Control Pictures".
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        _ => '\u{fffd}',
    };
    text.chars().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(visible("a\n\tb é"), "a\n\tb é");
        assert_eq!(visible("\x1b[2J\r\u{9b}x\x7f"), "␛[2J␍\u{fffd}x␡");
    }
}
