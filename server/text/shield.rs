//! Keeps what a client writes apart from what a chat template writes, through the template.
//!
//! A template mixes its own text, where `<|im_end|>` is a control token, with the client's, where
//! it is nine characters of code. It may trim the client's text or look into it, so the text must
//! go through the template. In it, every character that a special token can begin with is swapped
//! for a stand-in that occurs nowhere else; when the stand-ins are swapped back, where they are is
//! where no special token may be.

/// Stand-ins for the first characters of a vocabulary's special tokens.
#[derive(Debug)]
pub(super) struct Shield {
    /// Character and stand-in.
    pairs: Vec<(char, char)>,
}

/// A text with its stand-ins swapped back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uncovered {
    pub(super) text: String,
    /// Byte offsets of the characters that had a stand-in, ascending.
    pub(super) literal: Vec<usize>,
}

impl Shield {
    /// Picks stand-ins for `firsts` that occur in none of `texts`: from the end of the last private
    /// use area, where there are more than enough.
    pub(super) fn new(firsts: &[char], texts: &[&str]) -> Self {
        let mut taken: Vec<char> = texts
            .iter()
            .flat_map(|text| text.chars().filter(|&c| c >= '\u{100000}'))
            .collect();
        taken.sort_unstable();
        let free = ('\u{100000}'..='\u{10FFFD}')
            .rev()
            .filter(|c| taken.binary_search(c).is_err());
        Self {
            pairs: firsts.iter().copied().zip(free).collect(),
        }
    }

    pub(super) fn cover(&self, text: &str) -> String {
        let cover = |c| {
            self.pairs
                .iter()
                .find(|(first, _)| *first == c)
                .map_or(c, |pair| pair.1)
        };
        text.chars().map(cover).collect()
    }

    pub(super) fn uncover(&self, covered: &str) -> Uncovered {
        let mut uncovered = Uncovered {
            text: String::with_capacity(covered.len()),
            literal: Vec::new(),
        };
        for c in covered.chars() {
            match self.pairs.iter().find(|(_, stand_in)| *stand_in == c) {
                Some(&(first, _)) => {
                    uncovered.literal.push(uncovered.text.len());
                    uncovered.text.push(first);
                }
                None => uncovered.text.push(c),
            }
        }
        uncovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covered_text_comes_back_with_its_places() {
        let client = "a < b [\u{10FFFD}]";
        let shield = Shield::new(&['<', '['], &[client, "<x>"]);
        let covered = shield.cover(client);
        assert!(!covered.contains(['<', '[']));
        assert_eq!(
            shield.uncover(&format!("<x>{covered}")),
            Uncovered {
                text: format!("<x>{client}"),
                literal: vec![5, 9]
            }
        );
    }
}
