//! A document cut into passages that the embedding model can take in, each under the headings that it stands below.

use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
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
    // Editors on Windows begin files with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let chunks: Vec<(usize, &str)> = if markdown {
        let splitter = MarkdownSplitter::new(ChunkConfig::new(PASSAGE_CHARS));
        chunks(text, |piece| splitter.chunk_indices(piece))
    } else {
        let splitter = TextSplitter::new(ChunkConfig::new(PASSAGE_CHARS));
        chunks(text, |piece| splitter.chunk_indices(piece))
    };
    let mut headings = Headings::of(if markdown { text } else { "" });
    let passage = |(at, chunk): (usize, &str)| {
        // A passage that begins with a heading stands below it.
        headings.go_to(at + beginning(chunk));
        Passage {
            title: headings.under(title),
            text: chunk.to_owned(),
        }
    };
    chunks.into_iter().map(passage).collect()
}

/// The length of a passage's first line that says something, and of all before it.
fn beginning(chunk: &str) -> usize {
    let mut length = 0;
    for line in chunk.split_inclusive('\n') {
        length += line.len();
        if line.contains(char::is_alphanumeric) {
            break;
        }
    }
    length
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

/// How long the block of settings is that many tools put before a document, between lines of `---`: no part of CommonMark.
fn front_matter(text: &str) -> usize {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else {
        return 0;
    };
    let mut length = first.len();
    for line in lines {
        length += line.len();
        if matches!(line.trim_end(), "---" | "...") {
            return length;
        }
    }
    0
}

/// The headings of a document as CommonMark has them, and those that are open at a place in it.
struct Headings {
    /// Those that were not reached yet, the last first: where they begin, their level, and what they say.
    to_come: Vec<(usize, HeadingLevel, String)>,
    open: Vec<(HeadingLevel, String)>,
}

impl Headings {
    fn of(text: &str) -> Self {
        let mut found: Vec<(usize, HeadingLevel, String)> = Vec::new();
        // Whether a heading is open, and how many quotes and items of lists are: what stands in these heads nothing else.
        let (mut inside, mut depth) = (false, 0);
        let start = front_matter(text);
        for (event, range) in Parser::new(&text[start..]).into_offset_iter() {
            let part = match event {
                Event::Start(Tag::BlockQuote(_) | Tag::Item) => {
                    depth += 1;
                    continue;
                }
                Event::End(TagEnd::BlockQuote(_) | TagEnd::Item) => {
                    depth -= 1;
                    continue;
                }
                Event::Start(Tag::Heading { level, .. }) if depth == 0 => {
                    inside = true;
                    found.push((start + range.start, level, String::new()));
                    continue;
                }
                Event::End(TagEnd::Heading(_)) => {
                    inside = false;
                    continue;
                }
                Event::Text(part) | Event::Code(part) => part,
                Event::SoftBreak | Event::HardBreak => " ".into(),
                _ => continue,
            };
            if let Some((.., heading)) = found.last_mut().filter(|_| inside) {
                heading.push_str(&part);
            }
        }
        found.reverse();
        Self {
            to_come: found,
            open: Vec::new(),
        }
    }

    /// Opens those that begin before this place, each in the place of those that are no more general.
    fn go_to(&mut self, place: usize) {
        let reached = |next: &mut (usize, HeadingLevel, String)| next.0 < place;
        while let Some((_, level, heading)) = self.to_come.pop_if(reached) {
            self.open.retain(|(above, _)| *above < level);
            let heading = heading.trim();
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

    fn titles(text: &str) -> Vec<String> {
        let found = passages("a.md", "a.md", text);
        found.into_iter().map(|passage| passage.title).collect()
    }

    #[test]
    fn headings_are_those_of_commonmark() {
        let body = "word ".repeat(175);
        for (text, last) in [
            // What is in a fence is none, whatever else looks like one, and only its own kind closes it.
            (
                format!("# Top\n\n````md\n```sh\n# no\n```\n{body}\n````\n\n{body}"),
                "Top",
            ),
            (
                format!("# Top\n\n````md\n```sh\n# no\n```\n````\n\n## Real\n\n{body}"),
                "Top > Real",
            ),
            (
                format!("# Top\n\n~~~\n```\n# no\n~~~\n\n## Real\n\n{body}"),
                "Top > Real",
            ),
            (format!("# Top\n\n    # code\n    x = 1\n\n{body}"), "Top"),
            (
                format!("---\n# note\ntitle: x\n---\n\n# Real\n\n{body}"),
                "Real",
            ),
            (
                format!("Title\n=====\n\nSecond\n------\n\n{body}"),
                "Title > Second",
            ),
            (
                format!("# Top\n\n#hashtag line\n\n####### seven\n\n{body}"),
                "Top",
            ),
            (
                format!("# Top\n\n## Closed `f()` *now* ##\n\n{body}"),
                "Top > Closed f() now",
            ),
            (format!("# Top\n\n{body}\n\n#\n\n{body}"), ""),
            (
                format!("# Top\n\n{body}\n\n---\n## Setup\n\n{body}\n\n---\n"),
                "Top > Setup",
            ),
            (format!("Two\nlines\n===\n\n{body}"), "Two lines"),
            (
                format!("# Top\n\n> ## Note\n> x\n\n- # Item\n\n{body}"),
                "Top",
            ),
        ] {
            let expected = ["a.md", last]
                .map(str::to_owned)
                .into_iter()
                .filter(|part| !part.is_empty());
            let expected = expected.collect::<Vec<_>>().join(" > ");
            assert_eq!(titles(&text).last(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn a_mark_of_byte_order_is_no_text() {
        let found = passages("a.md", "a.md", "\u{feff}# Top\n\nwords");
        assert_eq!(
            (found[0].title.as_str(), found[0].text.as_str()),
            ("a.md > Top", "# Top\n\nwords")
        );
        assert!(passages("a.txt", "a", "\u{feff}").is_empty());
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
