//! Reading source files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use code_explainer_client::{Code, Error, Failure};

/// Why a file cannot be explained.
#[derive(Debug)]
pub(crate) struct Unreadable {
    code: Code,
    pub(crate) message: String,
}

impl Unreadable {
    /// The same in the shape of the server's errors, for records.
    pub(crate) fn into_error(self) -> Error {
        Error::Server(Failure {
            code: self.code,
            message: self.message,
            retryable: false,
            retry_delay: None,
            field: None,
        })
    }
}

/// Reads a file of at most `limit` bytes; `-` is standard input.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String, Unreadable> {
    if path == Path::new("-") {
        return text(io::stdin().lock(), limit);
    }
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        let message = "it is a directory; `code-explainer batch` explains directories".to_owned();
        return Err(Unreadable {
            code: Code::InvalidArgument,
            message,
        });
    }
    text(file, limit)
}

fn text(source: impl Read, limit: u64) -> Result<String, Unreadable> {
    let invalid = |message: String| {
        Err(Unreadable {
            code: Code::InvalidArgument,
            message,
        })
    };
    let mut bytes = Vec::new();
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return invalid(format!(
            "it is larger than {limit} bytes, the most that is taken"
        ));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let place = error.utf8_error().valid_up_to();
            return invalid(format!("it is not UTF-8 text (see byte {place})"));
        }
    };
    // A byte order mark is no code.
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    if text.trim().is_empty() {
        return invalid("it is empty".to_owned());
    }
    Ok(text)
}

fn unreadable(error: io::Error) -> Unreadable {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::Unknown,
    };
    Unreadable {
        code,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let message = |bytes: &[u8]| text(bytes, 8).map_err(|error| error.message);
        assert_eq!(message(b"\xef\xbb\xbfab").as_deref(), Ok("ab"));
        assert_eq!(
            message(b"ab\xff"),
            Err("it is not UTF-8 text (see byte 2)".into())
        );
        assert_eq!(message(b" \n"), Err("it is empty".into()));
        assert!(message(b"123456789").is_err_and(|message| message.contains("8 bytes")));
    }
}
