//! The output of a batch: lines that are whole or absent, and that a later run goes on from.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use super::exit::Stop;
use super::record::{Kept, Record, line};

/// How every line begins.
const BEGINNING: &[u8] = b"{\"path\":";

/// Where the records of a batch go.
#[derive(Debug)]
pub(crate) struct Journal {
    /// `None`: standard output.
    file: Option<File>,
    done: Done,
}

/// The paths that have an answer, and what was asked for it.
type Done = HashMap<String, Option<String>>;

impl Journal {
    /// Opens or creates the file, reads what is done, and removes a last line that was cut.
    ///
    /// The file is left alone when it is not one of these: the name of a source file in the place of
    /// the output's must not cost the source.
    pub(crate) fn open(path: &Path) -> Result<Self, Stop> {
        if path == Path::new("-") {
            return Ok(Self {
                file: None,
                done: Done::new(),
            });
        }
        let usage =
            |what: &dyn std::fmt::Display| Stop::Usage(format!("{}: {what}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path);
        let mut file = file.map_err(|error| usage(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(usage(&"another batch is writing to it")),
            // Not every file system knows locks.
            Err(TryLockError::Error(_)) => {}
        }
        let done = match read(&mut file).map_err(|error| usage(&error))? {
            Contents::Records(done) => done,
            Contents::Foreign(number) => {
                let what =
                    format!("line {number} is not one that `batch` wrote; name another file");
                return Err(usage(&what));
            }
        };
        Ok(Self {
            file: Some(file),
            done,
        })
    }

    /// Whether there is an answer for the path, whatever was asked.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.done.contains_key(path)
    }

    /// Whether there is an answer to this. One of an older version does not say to what it is, and counts.
    pub(crate) fn answers(&self, path: &str, request_digest: &str) -> bool {
        let asked = self.done.get(path);
        asked.is_some_and(|asked| asked.as_deref().is_none_or(|asked| asked == request_digest))
    }

    /// Appends a record as one line, in one write.
    pub(crate) fn append(&mut self, record: &Record<'_>) -> io::Result<()> {
        let line = line(record);
        match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => {
                let mut out = io::stdout().lock();
                out.write_all(line.as_bytes())?;
                out.flush()
            }
        }
    }
}

enum Contents {
    /// Those whose last record is an answer.
    Records(Done),
    /// The number of a line that is no record.
    Foreign(usize),
}

fn read(file: &mut File) -> io::Result<Contents> {
    let mut done = Done::new();
    let mut reader = BufReader::new(&*file);
    let (mut bytes, mut whole, mut unended) = (Vec::new(), 0, false);
    for number in 1.. {
        bytes.clear();
        let length = reader.read_until(b'\n', &mut bytes)?;
        if length == 0 {
            break;
        }
        let ended = bytes.ends_with(b"\n");
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) => {
                match kept.text {
                    Some(_) => done.insert(kept.path, kept.request_digest),
                    None => done.remove(&kept.path),
                };
                unended = !ended;
            }
            Err(_) if bytes.trim_ascii().is_empty() => {}
            // Cut in the middle of a write.
            Err(_) if !ended && (bytes.starts_with(BEGINNING) || BEGINNING.starts_with(&bytes)) => {
                break;
            }
            Err(_) => return Ok(Contents::Foreign(number)),
        }
        whole += length as u64;
    }
    // Only where something was cut: a device such as /dev/null has no length to set.
    if file.metadata()?.len() > whole {
        file.set_len(whole)?;
    }
    file.seek(SeekFrom::End(0))?;
    if unended {
        file.write_all(b"\n")?;
    }
    Ok(Contents::Records(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(contents: &str) -> (Result<Vec<String>, String>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        std::fs::write(&path, contents).unwrap();
        let journal = Journal::open(&path).map_err(|stop| stop.message().unwrap_or_default());
        let done = journal.map(|journal| {
            let mut done: Vec<String> = journal.done.into_keys().collect();
            done.sort();
            done
        });
        (done, std::fs::read_to_string(&path).unwrap())
    }

    const A: &str = "{\"path\":\"a\",\"text\":\"x\"}\n";

    #[test]
    fn the_last_record_of_a_path_counts() {
        let failed = "{\"path\":\"b\",\"error\":{}}\n";
        let (done, _) = open(&format!("{failed}{A}{failed}"));
        assert_eq!(done, Ok(vec!["a".to_owned()]));
        let (done, _) = open(&format!(
            "{A}{}",
            A.replace("\"text\":\"x\"", "\"error\":{}")
        ));
        assert_eq!(done, Ok(vec![]));
    }

    #[test]
    fn an_answer_counts_for_what_was_asked_or_where_nothing_says_what() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.jsonl");
        let told = A.replace("\"a\"", "\"b\",\"request_digest\":\"1\"");
        std::fs::write(&path, format!("{A}{told}")).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert!(journal.answers("a", "1") && journal.answers("a", "2"));
        assert!(journal.answers("b", "1") && !journal.answers("b", "2"));
        assert!(journal.has("b") && !journal.has("c") && !journal.answers("c", "1"));
    }

    #[test]
    fn a_cut_line_is_removed_and_a_missing_line_end_is_added() {
        for cut in 1..A.len() - 1 {
            let (done, left) = open(&format!("{A}{}", &A.replace("\"a\"", "\"b\"")[..cut]));
            assert_eq!(
                (done, left.as_str()),
                (Ok(vec!["a".to_owned()]), A),
                "cut at {cut}"
            );
        }
        assert_eq!(open(A.trim_end()), (Ok(vec!["a".to_owned()]), A.to_owned()));
    }

    #[test]
    fn a_strangers_file_is_left_alone() {
        for text in [
            "fn main() {}",
            "fn main() {}\n",
            "{\"a\":1}\n",
            &format!("{A}hello\n{A}"),
        ] {
            let (done, left) = open(text);
            assert!(
                done.is_err_and(|message| message.contains("name another file")),
                "{text}"
            );
            assert_eq!(left, text);
        }
    }
}
