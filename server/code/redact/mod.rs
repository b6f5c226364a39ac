//! Secrets in code, made unreadable before a model, a cache or a trace sees them.
//!
//! - `rules`: what a secret looks like: formats that say so themselves, and values given to names such as `password`.
//! - `anchors`: where in a text rules can hold at all. `literal`: what values are no secrets.
//! - `entropy`: literals that are too random to be anything else.
//!
//! It is a net, not a wall: what looks like any other word goes through. What it takes for a secret is replaced by
//! `[REDACTED:kind]`, so that the code around it can still be explained.

mod anchors;
mod entropy;
mod literal;
mod rules;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// A text without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    /// The text, with markers where secrets were.
    pub text: String,
    /// How many there were, by kind.
    pub found: BTreeMap<&'static str, usize>,
}

impl Redacted {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.found.values().sum()
    }

    /// For a person, in a receipt.
    pub fn note(&self) -> String {
        let kinds = self
            .found
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        format!("secrets were redacted before the model saw the code: {kinds}")
    }
}

/// Makes what is made once per process.
pub fn warm_up() {
    rules::warm_up();
}

/// Takes the secrets out of a text; `None` if it has none. Linear in the text.
pub fn redact(text: &str) -> Option<Redacted> {
    let mut secrets: Vec<(Range<usize>, &'static str)> = rules::find(text);
    secrets.extend(entropy::find(text).map(|range| (range, "high-entropy string")));
    if secrets.is_empty() {
        return None;
    }
    // Of those that overlap, the first is as good a name as any; of those that begin together, the rules' own.
    secrets.sort_by_key(|(range, _)| range.start);
    let mut found = BTreeMap::new();
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for (range, kind) in secrets {
        if range.start < at {
            // The rest of one that reaches further goes as well.
            at = at.max(range.end);
            continue;
        }
        out.push_str(&text[at..range.start]);
        let _ = write!(out, "[REDACTED:{kind}]");
        *found.entry(kind).or_insert(0) += 1;
        at = range.end;
    }
    out.push_str(&text[at..]);
    Some(Redacted { text: out, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_secrets_go_whole_and_count_once() {
        let code = r#"url = "https://bot:ghp_0123456789abcdefghijABCDEFGHIJ012345@example.org/x""#;
        let redacted = redact(code).expect("a secret");
        assert_eq!(redacted.count(), 1, "{redacted:?}");
        assert!(!redacted.text.contains("ghp_") && redacted.text.ends_with("@example.org/x\""));
    }

    #[test]
    fn the_note_counts_by_kind_and_says_no_secret() {
        let code = "a = 'AKIAIOSFODNN7EXAMPLA'\nb = 'AKIAIOSFODNN7EXAMPLB'\npassword = 'hunter2!'";
        let redacted = redact(code).expect("secrets");
        assert_eq!(
            redacted.note(),
            "secrets were redacted before the model saw the code: 2 aws-key, 1 password"
        );
    }

    #[test]
    fn unicode_around_a_secret_stays_whole() {
        let redacted = redact("é='AKIAIOSFODNN7EXAMPLA'é").expect("a secret");
        assert_eq!(redacted.text, "é='[REDACTED:aws-key]'é");
    }
}
