//! Where a rule can hold at all: one pass over the text finds the words that secrets stand beside, and rules are only
//! tried around them. Code without any of these words costs that pass alone.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::rules::RULES;

/// Looked at before an anchor: a name goes on to its left, and a URL's scheme.
const BEFORE: usize = 256;
/// And from its beginning on: a rule's longest match with its surroundings.
const AFTER: usize = 1024;

/// Every rule's anchors, all in one automaton.
struct Anchors {
    automaton: AhoCorasick,
    /// Of each pattern: its rule, and how it is spelled.
    of: Vec<(usize, &'static str)>,
}

static ANCHORS: LazyLock<Anchors> = LazyLock::new(|| {
    let of: Vec<(usize, &'static str)> = (RULES.iter().enumerate())
        .flat_map(|(rule, about)| about.anchors.iter().map(move |anchor| (rule, *anchor)))
        .collect();
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .kind(Some(AhoCorasickKind::DFA))
        .build(of.iter().map(|(_, anchor)| anchor));
    Anchors {
        automaton: automaton.expect("fixed anchors"),
        of,
    }
});

/// For each rule the parts of the text that it is to be tried on, in order and apart from each other.
pub(super) fn windows(text: &str) -> Vec<Vec<Range<usize>>> {
    let mut windows: Vec<Vec<Range<usize>>> = vec![Vec::new(); RULES.len()];
    for hit in ANCHORS.automaton.find_overlapping_iter(text) {
        let (rule, anchor) = ANCHORS.of[hit.pattern().as_usize()];
        let about = &RULES[rule];
        if about.exact && text[hit.range()] != *anchor {
            continue;
        }
        let start = floor(text, hit.start().saturating_sub(BEFORE));
        let end = if about.reaches_on {
            text.len()
        } else {
            floor(text, hit.start().saturating_add(AFTER).min(text.len()))
        };
        match windows[rule].last_mut() {
            Some(last) if last.end >= start => *last = last.start.min(start)..last.end.max(end),
            _ => windows[rule].push(start..end),
        }
    }
    windows
}

/// The next boundary of a character to the left.
fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
