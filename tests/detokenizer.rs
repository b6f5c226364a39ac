//! An answer comes out token by token, whole characters only, cut where a stop string begins.

use std::sync::Arc;

use code_explainer_text::{Detokenizer, Text, Tokenizer};
use proptest::prelude::*;

use crate::common::smollm::text;

fn tokenizer() -> &'static Arc<Tokenizer> {
    text().tokenizer()
}

/// All pieces of an answer, with stop strings from token `min` on, and whether one was found.
fn pieces(ids: &[u32], stops: &[&str], min: usize) -> (Vec<String>, bool) {
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer()), stops);
    let mut pieces = Vec::new();
    for (index, &id) in ids.iter().enumerate() {
        let step = detokenizer.push(id, index >= min);
        pieces.push(step.text);
        if step.stopped {
            assert_eq!(detokenizer.finish(), "", "nothing comes after a stop");
            return (pieces, true);
        }
    }
    let held = detokenizer.finish();
    pieces.push(held);
    (pieces, false)
}

/// `text` up to the stop string that is complete first, and whether there is one.
fn cut<'a>(text: &'a str, stops: &[&str]) -> (&'a str, bool) {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    for end in ends {
        let found = stops
            .iter()
            .filter(|stop| !stop.is_empty() && text[..end].ends_with(**stop));
        if let Some(longest) = found.map(|stop| stop.len()).max() {
            return (&text[..end - longest], true);
        }
    }
    (text, false)
}

#[track_caller]
fn check_stop(text: &str, stops: &[&str], expected: &str) {
    let ids = tokenizer()
        .encode(text, false)
        .expect("byte-level BPE takes all");
    let (pieces, stopped) = pieces(&ids, stops, 0);
    assert_eq!(pieces.concat(), expected);
    assert_eq!(stopped, expected != text);
}

#[test]
fn characters_come_whole() {
    let text = "naïve 😀👩\u{200d}👩\u{200d}👧 你好 한글 e\u{301}";
    let ids = tokenizer()
        .encode(text, false)
        .expect("byte-level BPE takes all");
    let (pieces, _) = pieces(&ids, &[], 0);
    assert_eq!(pieces.concat(), text);
    assert!(
        pieces.iter().any(String::is_empty),
        "some token is not a whole character"
    );
    assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')));
}

#[test]
fn bytes_that_never_become_a_character_are_replaced() {
    let ids = tokenizer()
        .encode("😀", false)
        .expect("byte-level BPE takes all");
    assert!(ids.len() > 1);
    let (mut broken, _) = pieces(&ids[..ids.len() - 1], &[], 0);
    assert_eq!(
        broken.pop().as_deref(),
        Some("\u{FFFD}"),
        "given out by finish"
    );
    assert_eq!(broken.concat(), "");
    // An unfinished character in the middle does not swallow what follows.
    let mut middle = ids[..ids.len() - 1].to_vec();
    middle.extend(tokenizer().encode("ok", false).expect("takes all"));
    assert_eq!(pieces(&middle, &[], 0).0.concat(), "\u{FFFD}ok");
}

#[test]
fn special_and_unknown_tokens_are_no_text() {
    let mut ids = tokenizer()
        .encode("<|im_start|>a<|im_end|>b", true)
        .expect("takes all");
    ids.extend([49_152, 1_000_000, u32::MAX]);
    assert_eq!(pieces(&ids, &["<|im_end|>"], 0), pieces(&ids, &[], 0));
    assert_eq!(pieces(&ids, &[], 0).0.concat(), "ab");
}

#[test]
fn the_stop_string_that_is_complete_first_wins() {
    check_stop("one two three", &["three", "two"], "one ");
    check_stop("one two three", &["two three", "wo"], "one t");
    check_stop("aabaabaab!", &["aabaab!", "nothing"], "aab");
    check_stop("aabaabaab!", &["baabaab!"], "aa");
    check_stop("xabcd", &["abcd", "bcd", "cd"], "x");
    check_stop("```python\nx\n```\nmore", &["\n```"], "```python\nx");
    check_stop("à la 你好 😀.", &["好 😀"], "à la 你");
    check_stop("never", &[""], "never");
    check_stop(
        "ends with a beginning ##",
        &["###"],
        "ends with a beginning ##",
    );
}

#[test]
fn stop_strings_wait_for_the_shortest_length() {
    let ids = tokenizer()
        .encode("stop and stop and go", false)
        .expect("takes all");
    let (pieces, stopped) = pieces(&ids, &["stop"], 1);
    assert_eq!((pieces.concat().as_str(), stopped), ("stop and ", true));
}

#[test]
fn text_and_detokenizer_can_be_shared_and_sent() {
    fn shared<T: Send + Sync>() {}
    shared::<Text>();
    shared::<Detokenizer>();
}

/// Ids of whole words, of single bytes, of anything: as a model might give them.
fn ids() -> impl Strategy<Value = Vec<u32>> {
    let written = any::<String>().prop_map(|s| tokenizer().encode(&s, true).expect("takes all"));
    let chunks = prop::collection::vec("[a-c \n]{1,4}|\\PC{1,3}", 0..12).prop_map(|chunks| {
        chunks
            .iter()
            .flat_map(|s| tokenizer().encode(s, false).expect("takes all"))
            .collect()
    });
    let random = prop::collection::vec(prop_oneof![0..300u32, 0..49_200u32], 0..40);
    prop_oneof![written, chunks, random]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pieces_are_the_whole_text(ids in ids()) {
        let whole = tokenizer().decode(&ids);
        let (pieces, stopped) = pieces(&ids, &[], 0);
        prop_assert_eq!(pieces.concat(), whole);
        prop_assert!(!stopped);
    }

    #[test]
    fn pieces_end_where_a_stop_string_begins(
        ids in ids(),
        places in prop::collection::vec((any::<prop::sample::Index>(), 1..6usize), 0..4),
        others in prop::collection::vec("[a-c \n]{0,3}", 0..3),
        min in 0..4usize,
    ) {
        // Stop strings that do occur, and some that may.
        let whole: Vec<char> = tokenizer().decode(&ids).chars().collect();
        let mut stops = others;
        for (place, length) in places.iter().filter(|_| !whole.is_empty()) {
            let at = place.index(whole.len());
            stops.push(whole[at..(at + length).min(whole.len())].iter().collect());
        }
        // Where an answer ends within a character, there is no token left to stop at.
        stops.retain(|stop| !stop.contains('\u{FFFD}'));
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();

        let mut plain = Detokenizer::new(Arc::clone(tokenizer()), &[""; 0]);
        let free: String =
            ids.iter().take(min).map(|&id| plain.push(id, true).text).collect();
        let whole: String = whole.into_iter().collect();
        let (rest, stop) = cut(&whole[free.len()..], &stops);

        let (pieces, stopped) = pieces(&ids, &stops, min);
        prop_assert_eq!(pieces.concat(), format!("{free}{rest}"));
        prop_assert_eq!(stopped, stop);
    }
}
