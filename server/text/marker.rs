//! Which added tokens steer a model although its tokenizer does not call them special.
//!
//! Files of models for code list `<|fim_middle|>` and `<|file_sep|>` beside words that are merely kept whole. Between a
//! model's own texts they mark where one begins or ends; what a client writes must not become one of them.

/// Of files and of gaps that a model is to fill, in the spellings that are in use.
const NAMES: [&str; 14] = [
    "fim", "file", "filename", "repo", "reponame", "pre", "suf", "mid", "eot", "eod", "eos", "bos",
    "pad", "mask",
];

/// Whether this is the text of a token that marks something. `<|...|>` is always one, as in DeepSeek's wide letters; other
/// things in angle brackets are where their name says so, for `<div>` is code.
pub(super) fn is_marker(text: &str) -> bool {
    let within = |open: &str, close: &str| {
        let inner = text.strip_prefix(open)?.strip_suffix(close)?;
        Some(inner).filter(|inner| !inner.is_empty() && !inner.contains(char::is_whitespace))
    };
    if within("<|", "|>")
        .or_else(|| within("<｜", "｜>"))
        .is_some()
    {
        return true;
    }
    let Some(name) = within("<", ">") else {
        return false;
    };
    NAMES.contains(&first_word(name).as_str())
}

/// Beside those, names of what belongs to a conversation: it is shown in answers, and no client may write it.
const OF_CONVERSATIONS: [&str; 14] = [
    "think",
    "thinking",
    "tool",
    "tools",
    "function",
    "functions",
    "image",
    "video",
    "audio",
    "start",
    "begin",
    "end",
    "s",
    "unk",
];

/// Whether a client's text must not become this token.
pub(super) fn steers(text: &str) -> bool {
    let name = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'));
    is_marker(text)
        || name.is_some_and(|name| OF_CONVERSATIONS.contains(&first_word(name).as_str()))
}

/// Of a name such as `/tool_call`, `tool`.
fn first_word(name: &str) -> String {
    let name = name.trim_matches(['/', '_', '▁']).to_lowercase();
    let first = name.split(['_', '-', '▁']).next();
    first.unwrap_or_default().to_owned()
}

/// Whether an answer ends where a model says this: another text begins.
pub(super) fn ends_answer(text: &str) -> bool {
    // As llama.cpp has them.
    [
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<end_of_turn>",
        "<end_of_utterance>",
        "<|fim_pad|>",
        "<fim_pad>",
        "<fim-pad>",
        "<PAD>",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim_repo>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
        "<|file_separator|>",
        "<file_sep>",
        "<EOT>",
        "_<EOT>",
        "<｜end▁of▁sentence｜>",
    ]
    .contains(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_code_and_from_words() {
        for marker in [
            "<|fim_middle|>",
            "<|file_sep|>",
            "<｜fim▁hole｜>",
            "<fim_prefix>",
            "<fim-suffix>",
            "<filename>",
            "<file_sep>",
            "<PRE>",
            "<MID>",
            "</fim>",
        ] {
            assert!(is_marker(marker), "{marker}");
        }
        for word in [
            "<div>", "<T>", "<|>", "<||>", "<| |>", "->", "    ", "ü", "<a|b>", "<table>",
            "<think>",
        ] {
            assert!(!is_marker(word), "{word}");
        }
        for theirs in [
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "<fim_pad>",
            "<|x|>",
        ] {
            assert!(steers(theirs), "{theirs}");
        }
        for word in ["<div>", "<T>", "->", "    ", "<table>", "think", "<>"] {
            assert!(!steers(word), "{word}");
        }
    }
}
