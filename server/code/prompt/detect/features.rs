//! Features of lines: how they are tested and counted.

/// The most lines of one feature that count.
const MAX_COUNT: usize = 3;

/// A property that a line of code can have. Lines come trimmed, and with the contents of their strings removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Test {
    /// It starts so.
    Starts(&'static str),
    /// It ends so.
    Ends(&'static str),
    /// It is just this.
    Is(&'static str),
    /// This occurs in it.
    Has(&'static str),
    /// This occurs in it, with no letter, digit or underscore right before or after.
    Word(&'static str),
    /// It starts with the first and ends with the second.
    Wraps(&'static str, &'static str),
    /// It starts with the first and has the second further on.
    StartsHas(&'static str, &'static str),
    /// It starts with the first and does not have the second.
    StartsLacks(&'static str, &'static str),
    /// It starts with the first, ends with the second, and does not have the third.
    WrapsLacks(&'static str, &'static str, &'static str),
    /// Both occur in it, in this order.
    Then(&'static str, &'static str),
    /// Anything else.
    That(fn(&str) -> bool),
}

/// A feature: how much a line that has it tells, and the test.
pub(super) type Feature = (u32, Test);

/// The sum of the weights of the features that the lines have.
pub(super) fn score(features: &[Feature], lines: &[Line]) -> u32 {
    features
        .iter()
        .map(|(weight, test)| {
            let count = lines
                .iter()
                .filter(|line| test.holds(&line.text))
                .take(MAX_COUNT)
                .count();
            weight * count as u32
        })
        .sum()
}

impl Test {
    fn holds(self, line: &str) -> bool {
        match self {
            Self::Starts(start) => line.starts_with(start),
            Self::Ends(end) => line.ends_with(end),
            Self::Is(all) => line == all,
            Self::Has(part) => line.contains(part),
            Self::Word(word) => has_word(line, word),
            Self::Wraps(start, end) => line.starts_with(start) && line.ends_with(end),
            Self::StartsHas(start, part) => line
                .strip_prefix(start)
                .is_some_and(|rest| rest.contains(part)),
            Self::StartsLacks(start, part) => line
                .strip_prefix(start)
                .is_some_and(|rest| !rest.contains(part)),
            Self::WrapsLacks(start, end, part) => {
                line.ends_with(end)
                    && line
                        .strip_prefix(start)
                        .is_some_and(|rest| !rest.contains(part))
            }
            Self::Then(first, second) => line
                .split_once(first)
                .is_some_and(|(_, rest)| rest.contains(second)),
            Self::That(test) => test(line),
        }
    }
}

/// Whether the line starts with any of these.
pub(super) fn starts_any(line: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| line.starts_with(start))
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word)
    })
}

/// A line of code as the tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Trimmed, without the contents of double-quoted strings.
    pub text: String,
}

/// The lines of a sample that hold code: neither blank nor, as far as that can be told without knowing the language,
/// comments or documentation strings. Comments are prose, or code that was thrown away.
pub(super) fn code_lines(sample: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut closing: Option<&str> = None;
    for line in sample.lines().map(str::trim) {
        if let Some(end) = closing {
            if line.contains(end) {
                closing = None;
            }
            continue;
        }
        let opening = [
            ("/*", "*/"),
            ("\"\"\"", "\"\"\""),
            ("'''", "'''"),
            ("<!--", "-->"),
            ("=begin", "=end"),
        ]
        .into_iter()
        .find(|(start, _)| line.starts_with(start));
        if let Some((start, end)) = opening {
            if !line[start.len()..].contains(end) {
                closing = Some(end);
            }
            continue;
        }
        let comment = line.starts_with("//")
            || line.starts_with("# ")
            || line.starts_with("-- ")
            || line == "#";
        if !line.is_empty() && !comment {
            lines.push(Line {
                text: without_strings(line),
            });
        }
    }
    lines
}

/// A line without what stands between its double quotes, save where that is the name of a file or module.
fn without_strings(line: &str) -> String {
    let names_module = ["#include", "import ", "} from ", "export ", "from "]
        .iter()
        .any(|start| line.starts_with(start));
    if names_module || !line.contains('"') {
        return line.to_owned();
    }
    let mut kept = String::with_capacity(line.len());
    let (mut inside, mut escaped) = (false, false);
    for c in line.chars() {
        let quote = c == '"' && !escaped;
        if quote {
            inside = !inside;
        }
        if quote || !inside {
            kept.push(c);
        }
        escaped = inside && c == '\\' && !escaped;
    }
    kept
}
