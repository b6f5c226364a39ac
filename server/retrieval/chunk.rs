//! A document cut into passages that the embedding model can take in, each under the headings that it stands below.

use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter};

/// Most characters of a passage: about the 256 tokens that all-MiniLM-L6-v2 reads.
pub const PASSAGE_CHARS: usize = 900;
/// Most bytes of a line that the splitter is given at once. It looks for the ends of sentences and words in all of a line
/// again and again: a text of 64 KiB that is one line took it 35 times as long as other texts, one that is one word 80 times.
const LINE_BYTES: usize = 4 * PASSAGE_CHARS;
/// Most characters of a title.
const TITLE_CHARS: usize = 160;

/// A part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The document's title and the headings above the passage, joined by ` > `.
    pub title: String,
    /// Not empty, and not longer than [`PASSAGE_CHARS`].
    pub text: String,
}

/// Cuts a text at its headings, paragraphs and sentences, in this order of preference. A name that ends like one of a
/// Markdown file has its text read as such. All that is not white space comes back, in order.
pub fn passages(name: &str, title: &str, text: &str) -> Vec<Passage> {
    let markdown = [".md", ".mdx", ".markdown"]
        .iter()
        .any(|end| name.ends_with(end));
    let chunks: Vec<(usize, &str)> = if markdown {
        let splitter = MarkdownSplitter::new(ChunkConfig::new(PASSAGE_CHARS));
        chunks(text, |piece| splitter.chunk_indices(piece))
    } else {
        let splitter = TextSplitter::new(ChunkConfig::new(PASSAGE_CHARS));
        chunks(text, |piece| splitter.chunk_indices(piece))
    };
    let mut headings = Headings::default();
    let mut seen = 0;
    let passage = |(at, chunk): (usize, &str)| {
        // A passage that begins with a heading stands below it.
        let until = at + chunk.lines().next().map_or(0, str::len);
        if markdown && until > seen {
            headings.read(&text[seen..until]);
            seen = until;
        }
        Passage {
            title: headings.under(title),
            text: chunk.to_owned(),
        }
    };
    chunks.into_iter().map(passage).collect()
}

/// Has every piece of the text cut; each chunk comes with where it is in the text.
fn chunks<'a, C: Iterator<Item = (usize, &'a str)>>(
    text: &'a str,
    cut: impl Fn(&'a str) -> C,
) -> Vec<(usize, &'a str)> {
    let moved = |(start, piece)| cut(piece).map(move |(at, chunk)| (start + at, chunk));
    pieces(text).into_iter().flat_map(moved).collect()
}

/// The text; a line that is longer than [`LINE_BYTES`] in pieces, cut at white space where there is any. Most often one.
fn pieces(text: &str) -> Vec<(usize, &str)> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    // Where the line begins, or what is left of it, and where in it the last white space ends.
    let (mut line, mut space) = (0, 0);
    for (at, c) in text.char_indices() {
        if at - line >= LINE_BYTES {
            let cut = if space > line { space } else { at };
            pieces.push((start, &text[start..cut]));
            (start, line) = (cut, cut);
        }
        if c.is_whitespace() {
            space = at + c.len_utf8();
        }
        if c == '\n' {
            line = space;
        }
    }
    pieces.push((start, &text[start..]));
    pieces
}

/// The headings that are open, by their level.
#[derive(Default)]
struct Headings {
    open: Vec<(usize, String)>,
    fenced: bool,
}

impl Headings {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.trim();
            if line.starts_with("```") || line.starts_with("~~~") {
                self.fenced = !self.fenced;
            }
            let level = line.bytes().take_while(|b| *b == b'#').count();
            let heading = line[level..].trim().trim_end_matches('#').trim();
            if self.fenced || !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
                continue;
            }
            self.open.retain(|(above, _)| *above < level);
            if !heading.is_empty() {
                self.open.push((level, heading.to_owned()));
            }
        }
    }

    fn under(&self, title: &str) -> String {
        let mut parts = vec![title];
        // A document's first heading is often its title once more.
        parts.extend(
            self.open
                .iter()
                .map(|(_, h)| h.as_str())
                .filter(|h| *h != title),
        );
        let whole = parts.join(" > ");
        whole.chars().take(TITLE_CHARS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passages_stand_under_their_headings() {
        let body = "word ".repeat(120);
        let text = format!(
            "# Queue\n\n{body}\n\n## Bounds\n\n{body}\n\n```\n# no heading\n```\n\n# Other\n\n{body}"
        );
        let passages = passages("docs/queue.md", "Queue", &text);
        let titles: Vec<&str> = passages.iter().map(|p| p.title.as_str()).collect();
        assert_eq!(titles.first(), Some(&"Queue"));
        assert!(titles.contains(&"Queue > Bounds"), "{titles:?}");
        assert_eq!(titles.last(), Some(&"Queue > Other"));
        assert!(!titles.iter().any(|title| title.contains("no heading")));
    }

    #[test]
    fn blank_text_has_no_passages() {
        assert!(passages("a.txt", "a", " \n\t ").is_empty());
    }

    #[test]
    fn a_long_line_is_cut_at_white_space_where_there_is_any() {
        let lengths = |text: &str| -> Vec<usize> {
            let pieces = pieces(text);
            let together: String = pieces.iter().map(|(_, piece)| *piece).collect();
            assert_eq!(together, text);
            pieces.iter().map(|(_, piece)| piece.len()).collect()
        };
        let word = "é".repeat(LINE_BYTES);
        assert_eq!(lengths(&word), [LINE_BYTES, LINE_BYTES]);
        let line = "abcdefg ".repeat(LINE_BYTES / 8 + 1);
        assert_eq!(lengths(&line), [LINE_BYTES, 8]);
        let odd = format!("x{line}");
        assert_eq!(lengths(&odd), [LINE_BYTES - 7, 16]);
        assert_eq!(lengths(&"a b c\n".repeat(LINE_BYTES)), [6 * LINE_BYTES]);
        assert_eq!(lengths(""), [0]);
    }

    fn visible(text: &str) -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn nothing_is_lost_and_no_passage_is_too_long(
            text in prop_oneof![
                "(#{0,7} ?[a-zé`*\\-\u{1F680}]{0,40}[ \n.\r]{0,3}){0,200}",
                "[a-z]{0,4000}",
                "[a-zé]{3000,9000}",
                "([a-z]{1,40} ){200,600}",
                "\\PC{0,600}",
            ],
            markdown: bool,
        ) {
            let name = if markdown { "a.md" } else { "a.txt" };
            let passages = passages(name, "title", &text);
            for passage in &passages {
                prop_assert!(!passage.text.trim().is_empty());
                prop_assert!(passage.text.chars().count() <= PASSAGE_CHARS);
                prop_assert!(passage.title.chars().count() <= TITLE_CHARS);
            }
            let together: String = passages.iter().map(|p| p.text.as_str()).collect();
            prop_assert_eq!(visible(&together), visible(&text));
        }
    }
}
