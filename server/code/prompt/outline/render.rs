//! An outline as text for the model: one line per definition, bounded in lines and bytes.

use super::{Facts, Item, Outline};
use std::fmt::{self, Display, Formatter};

/// The most lines of an outline, the one that counts what is left out included.
pub const MAX_OUTLINE_LINES: usize = 40;

/// The most bytes of an outline.
pub const MAX_OUTLINE_BYTES: usize = 2048;

/// Room kept for the line that counts what is left out.
const REST_BYTES: usize = 40;

/// The most bytes of one line.
const MAX_LINE_BYTES: usize = 240;

/// Entries of a list that are named; the rest is counted.
const MAX_NAMED: usize = 8;

impl Display for Outline {
    /// The outline's lines, the last without a line break.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        if !self.imports.is_empty() {
            lines.push(format!("imports: {}", list(&self.imports)));
        }
        let top_level = facts(&self.top_level, true);
        let definitions = self.items.iter().map(line);
        lines.extend(definitions);
        if !top_level.is_empty() {
            lines.push(format!("top level: {top_level}"));
        }
        let mut text = String::new();
        let mut shown = 0;
        for line in &lines {
            let line = cut(line, MAX_LINE_BYTES);
            if shown + 1 >= MAX_OUTLINE_LINES
                || text.len() + line.len() + 1 + REST_BYTES > MAX_OUTLINE_BYTES
            {
                break;
            }
            if shown > 0 {
                text.push('\n');
            }
            text.push_str(&line);
            shown += 1;
        }
        let rest = lines.len() - shown + self.omitted;
        if rest > 0 {
            if shown > 0 {
                text.push('\n');
            }
            text.push_str(&format!("… and {rest} more"));
        }
        f.write_str(&text)
    }
}

/// `function fib(n) -> int: recursive; raises ValueError`, indented by its depth.
fn line(item: &Item) -> String {
    let mut line = format!("{}{} {}", "  ".repeat(item.depth), item.word, item.name);
    if item.is_function || !item.parameters.is_empty() {
        line.push_str(&format!("({})", item.parameters));
    }
    if !item.returns.is_empty() {
        line.push_str(&format!(" -> {}", item.returns));
    }
    let mut parts = Vec::new();
    if !item.members.is_empty() {
        let word = if item.word == "enum" {
            "variants"
        } else {
            "fields"
        };
        parts.push(format!("{word} {}", list(&item.members)));
    }
    let facts = facts(&item.facts, item.is_function);
    if !facts.is_empty() {
        parts.push(facts);
    }
    if !parts.is_empty() {
        line.push_str(&format!(": {}", parts.join("; ")));
    }
    line
}

fn facts(facts: &Facts, with_calls: bool) -> String {
    let mut parts: Vec<String> = facts.marks.iter().map(|mark| (*mark).to_owned()).collect();
    if facts.recursive {
        parts.push("recursive".to_owned());
    }
    if !facts.mutual.is_empty() {
        parts.push(format!("mutually recursive with {}", list(&facts.mutual)));
    }
    parts.extend(loops(facts));
    if !facts.raises.is_empty() {
        // "throws RangeError" names what is thrown, "may panic (unwrap)" what may do it.
        parts.push(match facts.raise_word.strip_prefix("may ") {
            Some(does) if facts.raises == [does] => facts.raise_word.to_owned(),
            Some(_) => format!("{} ({})", facts.raise_word, list(&facts.raises)),
            None => format!("{} {}", facts.raise_word, list(&facts.raises)),
        });
    }
    if !facts.catches.is_empty() {
        parts.push(format!("catches {}", list(&facts.catches)));
    }
    let calls: Vec<String> = facts
        .calls
        .iter()
        .filter(|call| !facts.mutual.contains(call))
        .cloned()
        .collect();
    if with_calls && !calls.is_empty() {
        parts.push(format!("calls {}", list(&calls)));
    }
    parts.join("; ")
}

/// "for loop", "2 while loops", "3 nested for loops", "nested loops while > for".
fn loops(facts: &Facts) -> Vec<String> {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for chain in &facts.loops {
        match counted.iter_mut().find(|(known, _)| known == chain) {
            Some((_, count)) => *count += 1,
            None => counted.push((chain, 1)),
        }
    }
    let one_chain = counted.len() == 1;
    counted
        .into_iter()
        .take(MAX_NAMED)
        .map(|(chain, count)| {
            let mut words = chain.split(" > ");
            let word = words.next().unwrap_or(chain);
            match (words.clone().count() + 1, count, word) {
                (1, 1, "comprehension") => "comprehension".to_owned(),
                (1, count, "comprehension") => format!("{count} comprehensions"),
                (1, 1, word) => format!("{word} loop"),
                (1, count, word) => format!("{count} {word} loops"),
                // The depth counts loops beyond those that a chain names.
                (_, _, word) if one_chain && words.all(|other| other == word || other == "…") => {
                    format!("{} nested {word} loops", facts.loop_depth)
                }
                _ => format!("nested loops {chain}"),
            }
        })
        .collect()
}

/// Names with commas between them, the first [`MAX_NAMED`] of them.
fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(MAX_NAMED)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(MAX_NAMED) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}

fn cut(line: &str, limit: usize) -> String {
    if line.len() <= limit {
        return line.to_owned();
    }
    format!(
        "{}…",
        &line[..line.floor_char_boundary(limit - '…'.len_utf8())]
    )
}
