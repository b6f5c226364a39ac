//! The JSON of a model's files, as Python reads it: for Python wrote it.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// What a file begins with that Git LFS has left in the place of another one.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What to say of a pointer.
pub const POINTER_PROBLEM: &str =
    "is a Git LFS pointer and not the file itself: run `git lfs pull` where it was checked out";

/// Whether Git LFS has left this in the place of another file.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(POINTER)
}

/// Reads JSON that may begin with a byte order mark, and may have `NaN` and `Infinity`, which become null.
///
/// # Errors
/// Says what is wrong with it, to stand behind the file's name.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if is_lfs_pointer(bytes) {
        return Err(POINTER_PROBLEM.to_owned());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes)
        .or_else(|error| match without_python_numbers(bytes) {
            Cow::Borrowed(_) => Err(error),
            Cow::Owned(json) => serde_json::from_slice(&json),
        })
        .map_err(|error| error.to_string())
}

/// Null in the place of each number that JSON does not have.
fn without_python_numbers(json: &[u8]) -> Cow<'_, [u8]> {
    const NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut written = Vec::new();
    let (mut at, mut kept, mut in_string) = (0, 0, false);
    while at < json.len() {
        let number = NUMBERS
            .into_iter()
            .find(|number| json[at..].starts_with(number));
        match (json[at], number) {
            (b'\\', _) if in_string => at += 1,
            (b'"', _) => in_string = !in_string,
            (_, Some(number)) if !in_string => {
                written.extend_from_slice(&json[kept..at]);
                written.extend_from_slice(b"null");
                kept = at + number.len();
                at = kept - 1;
            }
            _ => {}
        }
        at += 1;
    }
    if kept == 0 {
        return Cow::Borrowed(json);
    }
    written.extend_from_slice(&json[kept..]);
    Cow::Owned(written)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        parse(text.as_bytes())
    }

    #[test]
    fn what_python_writes_is_read() {
        let cases = [
            ("\u{feff}{\"a\": 1}", json!({"a": 1})),
            ("[NaN, Infinity,-Infinity]", json!([null, null, null])),
            (
                r#"{"NaN": "Infinity \" NaN", "b": NaN}"#,
                json!({"NaN": "Infinity \" NaN", "b": null}),
            ),
            (r#"["\\", NaN]"#, json!(["\\", null])),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_says_where() {
        assert_eq!(
            read("{\"a\": nan}").expect_err("no number"),
            "expected ident at line 1 column 8"
        );
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        assert_eq!(read(pointer), Err(POINTER_PROBLEM.to_owned()));
    }
}
