use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

fn longest_line<P: AsRef<Path>>(path: P) -> io::Result<Option<String>> {
    let reader = BufReader::new(File::open(path)?);
    let mut best: Option<String> = None;
    for line in reader.lines() {
        let line = line?;
        if best.as_ref().map_or(true, |b| line.len() > b.len()) {
            best = Some(line);
        }
    }
    Ok(best)
}
