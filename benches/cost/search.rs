//! Texts that get worse by generation: the costly ones of a population are mutated, and the worst are kept.

use std::fmt;
use std::time::Instant;

use crate::ordinary::sized;
use crate::passes::{Pass, cost};

/// Texts that are kept for the next generation.
const KEPT: usize = 24;
/// Texts that a generation tries.
const TRIED: usize = 8;
/// The longest that is repeated, and that is before it, in bytes: what costs much can be said shortly.
const FRAGMENT_BYTES: usize = 96;

/// The text that is being tried, from where cargo runs benchmarks.
const LAST: &str = "target/fuzz-cost.txt";

/// What hostile texts are made of, in any language.
const PARTS: &[&str] = &[
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "::<",
    "?",
    ":",
    "::",
    ";",
    ",",
    ".",
    "..",
    "=",
    "==",
    "=>",
    "->",
    "*",
    "**",
    "&",
    "&&",
    "|",
    "||",
    "!",
    "~",
    "^",
    "%",
    "@",
    "#",
    "\\",
    "/",
    "//",
    "/*",
    "*/",
    "'",
    "\"",
    "\"\"\"",
    "'''",
    "`",
    "${",
    "r#\"",
    "R\"(",
    "<<",
    ">>",
    "+",
    "++",
    "-",
    "--",
    "0",
    "10",
    "0x",
    "1e9",
    "a",
    "b ",
    "x",
    "_",
    "é",
    "\u{1F680}",
    "\0",
    "\u{200b}",
    "\t",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\n ",
    "\n    ",
    "fn ",
    "fn f() {}",
    "func ",
    "def ",
    "class A",
    "struct ",
    "enum ",
    "impl ",
    "for ",
    "while ",
    "if ",
    "else ",
    "switch ",
    "case ",
    "match ",
    "let x;",
    "var ",
    "const ",
    "int ",
    "int main(){",
    "return ",
    "yield",
    "await ",
    "async ",
    "lambda ",
    "throw ",
    "try ",
    "catch ",
    "import ",
    "from ",
    "package ",
    "#include <",
    "#define ",
    "#if",
    "#endif",
    "template<",
    "typename ",
    "operator",
    "new ",
    "delete ",
    "void ",
    "public ",
    "static ",
    "interface ",
    "extends ",
    "type ",
    "as ",
    "in ",
    "of ",
    "is ",
    "not ",
    "and ",
    "where ",
    "unsafe ",
    "macro_rules! ",
    "<div>",
    "</div>",
    "<a ",
    "/>",
    "password",
    "token",
    "secret",
    "api_key",
    "aws",
    "AKIA",
    "-----BEGIN ",
    "PRIVATE KEY",
    "-----",
    "eyJ",
    "://",
    "authorization: bearer ",
    "sk-",
    "\"aaaaaaaa\"",
    "= '",
    "# ",
    "- ",
    "> ",
    "1. ",
    "```",
    "~~~",
    "| ",
    "![",
    "](",
    "&amp;",
    "<!--",
    "-->",
    "select ",
    "begin",
    "end",
];

/// A text, said shortly.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    prefix: String,
    repeated: String,
}

impl Said {
    fn text(&self, bytes: usize) -> String {
        let rest = bytes.saturating_sub(self.prefix.len());
        format!("{}{}", self.prefix, sized(&self.repeated, rest))
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:?}, {:?})", self.prefix, self.repeated)
    }
}

/// The search for one pass's worst text.
pub(crate) struct Search {
    pub(crate) pass: Pass,
    pub(crate) median: f64,
    /// The worst first.
    population: Vec<(f64, Said)>,
    ordinary: Vec<String>,
    random: Random,
}

impl Search {
    pub(crate) fn new(pass: Pass, median: f64, ordinary: &[(String, String)]) -> Self {
        let ours = |language: &str| {
            pass.language
                .is_none_or(|wanted| wanted.as_str() == language)
        };
        let ordinary = ordinary.iter().filter(|(language, _)| ours(language));
        let ordinary = ordinary.map(|(_, text)| text.clone()).collect();
        let random = Random(pass.name.bytes().map(u64::from).sum());
        let mut search = Self {
            pass,
            median,
            population: Vec::new(),
            ordinary,
            random,
        };
        for (prefix, repeated) in SEEDS {
            search.try_text(Said {
                prefix: (*prefix).to_owned(),
                repeated: (*repeated).to_owned(),
            });
        }
        search
    }

    /// Tries some texts more, and says how many.
    pub(crate) fn generation(&mut self, until: Instant) -> usize {
        let mut tried = 0;
        while tried < TRIED && Instant::now() < until {
            // The worse a text, the more descendants it has.
            let at = self.random.below(KEPT).min(self.random.below(KEPT));
            let parent = self.population.get(at).map(|(_, said)| said.clone());
            let mut said = parent.unwrap_or_else(|| self.new_text());
            if self.random.below(8) == 0 {
                said = self.new_text();
            }
            for _ in 0..=self.random.below(3) {
                self.mutate(&mut said);
            }
            if !said.repeated.is_empty() {
                self.try_text(said);
                tried += 1;
            }
        }
        tried
    }

    pub(crate) fn worst(&self) -> (String, &Said) {
        let (_, said) = &self.population[0];
        (said.text(self.pass.bytes), said)
    }

    fn try_text(&mut self, said: Said) {
        let text = said.text(self.pass.bytes);
        // Where a parser ends the process, this is what is left to look at.
        if let Err(error) = std::fs::write(LAST, format!("{}\n{said}\n", self.pass.name)) {
            eprintln!("warning: {LAST}: {error}");
        }
        let mut found = cost(&self.pass, &text);
        if self
            .population
            .first()
            .is_none_or(|(worst, _)| found > *worst)
        {
            // The first measurement may have been disturbed.
            found = found.min(cost(&self.pass, &text));
        }
        let alike = |(_, other): &(f64, Said)| other.repeated == said.repeated;
        if let Some(at) = self.population.iter().position(alike) {
            if self.population[at].0 >= found {
                return;
            }
            self.population.remove(at);
        }
        let at = self.population.partition_point(|(cost, _)| *cost > found);
        self.population.insert(at, (found, said));
        self.population.truncate(KEPT);
    }

    fn new_text(&mut self) -> Said {
        let parts = 1 + self.random.below(4);
        let repeated = (0..parts).map(|_| self.part()).collect();
        let (prefix, _) = SEEDS[self.random.below(SEEDS.len())];
        Said {
            prefix: prefix.to_owned(),
            repeated,
        }
    }

    /// A word of hostile texts, a piece of ordinary code, or any character.
    fn part(&mut self) -> String {
        match self.random.below(8) {
            0 => {
                let text = self.random.below(self.ordinary.len().max(1));
                let Some(text) = self.ordinary.get(text) else {
                    return " ".to_owned();
                };
                let at = text.floor_char_boundary(self.random.below(text.len()));
                let end =
                    text.floor_char_boundary((at + 1 + self.random.below(24)).min(text.len()));
                text[at..end].to_owned()
            }
            1 => char::from(self.random.below(128) as u8).to_string(),
            _ => PARTS[self.random.below(PARTS.len())].to_owned(),
        }
    }

    fn mutate(&mut self, said: &mut Said) {
        let part = self.part();
        let other = self.random.below(self.population.len().max(1));
        let other = self.population.get(other).map(|(_, said)| said.clone());
        let text = match self.random.below(5) {
            0 => &mut said.prefix,
            _ => &mut said.repeated,
        };
        let at = text.floor_char_boundary(self.random.below(text.len() + 1));
        let end = text.floor_char_boundary(at + self.random.below(text.len() - at + 1));
        match self.random.below(6) {
            0 | 1 => text.insert_str(at, &part),
            2 => text.replace_range(at..end, ""),
            3 => text.replace_range(at..end, &part),
            4 => {
                let twice = text[at..end].to_owned();
                text.insert_str(end, &twice);
            }
            _ => {
                if let Some(other) = other {
                    text.insert_str(at, &other.repeated);
                }
            }
        }
        text.truncate(text.floor_char_boundary(FRAGMENT_BYTES));
    }
}

/// What texts begin with and repeat where the search begins: what was found to cost much before.
const SEEDS: &[(&str, &str)] = &[
    ("impl ", "<ab  "),
    ("int main(){ let x; fn f() {} ", "*<<"),
    ("int main(){ let x; fn f() {} ", "yield10^;,"),
    ("int main(){ let x; fn f() {} ", "?::<"),
    (
        "int main(){ let x; fn f() {} ",
        "t+![y 🚀throw yield10^`>imeld1S0^;,",
    ),
    ("", "("),
    ("", "[{"),
    ("", "/*"),
    ("", "a"),
    ("", " "),
    ("", "\n"),
    ("", "a\n"),
    ("", "password="),
    ("", "if x {"),
    ("", "<a "),
    ("", "# a\n"),
];

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}
