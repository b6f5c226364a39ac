use std::collections::HashMap;
use std::io::{self, BufRead};

/// Counts how often each word occurs, ignoring case and punctuation.
fn count_words(input: impl BufRead) -> io::Result<HashMap<String, usize>> {
    let mut counts = HashMap::new();
    for line in input.lines() {
        for word in line?.split(|c: char| !c.is_alphanumeric()) {
            if !word.is_empty() {
                *counts.entry(word.to_lowercase()).or_insert(0) += 1;
            }
        }
    }
    Ok(counts)
}

fn main() -> io::Result<()> {
    let mut words: Vec<_> = count_words(io::stdin().lock())?.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (word, count) in words.iter().take(10) {
        println!("{count:>6} {word}");
    }
    Ok(())
}
