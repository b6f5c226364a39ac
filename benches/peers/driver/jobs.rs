//! Jobs in, results out.

use std::io::{BufRead, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Says that the worker is ready, and answers jobs until its input ends.
///
/// # Errors
/// The first job that cannot be read or done; whoever gave it sees the worker end.
pub(crate) fn answer<J: DeserializeOwned, R: Serialize>(
    mut work: impl FnMut(J) -> anyhow::Result<R>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut tell = |line: String| writeln!(out, "{line}").and_then(|()| out.flush());
    tell(r#"{"ready":true}"#.to_owned())?;
    for line in std::io::stdin().lock().lines() {
        let result = work(serde_json::from_str(&line?)?)?;
        tell(serde_json::to_string(&result)?)?;
    }
    Ok(())
}
