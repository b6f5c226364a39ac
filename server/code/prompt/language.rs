//! Names of programming languages: the outlined ones, their aliases, and what a file's name says.

use super::PromptError;

/// The longest language name that a request may give, in bytes.
pub const MAX_LANGUAGE_BYTES: usize = 64;

/// A language that can be outlined. A request may name any other; the model is then told that name and nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// Python 3.
    Python,
    /// Rust.
    Rust,
    /// JavaScript, JSX included.
    JavaScript,
    /// TypeScript, TSX included.
    TypeScript,
    /// Go.
    Go,
    /// Java.
    Java,
    /// C.
    C,
    /// C++.
    Cpp,
}

impl Language {
    /// All outlined languages, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Python,
        Self::Rust,
        Self::JavaScript,
        Self::TypeScript,
        Self::Go,
        Self::Java,
        Self::C,
        Self::Cpp,
    ];

    /// The name used in requests, prompts and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Rust => "rust",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
            Self::Go => "go",
            Self::Java => "java",
            Self::C => "c",
            Self::Cpp => "c++",
        }
    }

    /// The outlined language with this name or alias, if it is one. Case does not matter.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = canonical(name)?;
        Self::ALL
            .into_iter()
            .find(|language| language.as_str() == name)
    }
}

/// Canonical names of all languages that are known.
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter_map(|names| names.first().copied())
}

/// Canonical names and the other names and file extensions by which each is known.
///
/// The canonical name comes first. Extensions that are claimed by several languages go to the more common one (`.h` to
/// C, `.m` to Objective-C).
const NAMES: &[&[&str]] = &[
    &[
        "python", "py", "python3", "py3", "python2", "pyi", "pyw", "pyx", "cython", "ipython",
    ],
    &["rust", "rs"],
    &[
        "javascript",
        "js",
        "jsx",
        "mjs",
        "cjs",
        "node",
        "nodejs",
        "ecmascript",
        "es6",
    ],
    &["typescript", "ts", "tsx", "mts", "cts", "deno"],
    &["go", "golang"],
    &["java"],
    &["c", "h", "ansi c", "c99", "c11"],
    &[
        "c++",
        "cpp",
        "cc",
        "cxx",
        "hpp",
        "hh",
        "hxx",
        "h++",
        "ipp",
        "tpp",
        "cplusplus",
        "cu",
        "cuda",
    ],
    &["c#", "csharp", "cs", "csx", "c_sharp"],
    &["objective-c", "objc", "objectivec", "m", "mm"],
    &["kotlin", "kt", "kts"],
    &["scala", "sc"],
    &["swift"],
    &["ruby", "rb", "rake", "gemspec"],
    &["php", "php3", "php4", "php5", "phtml"],
    &["perl", "pl", "pm"],
    &[
        "shell",
        "sh",
        "bash",
        "zsh",
        "ksh",
        "dash",
        "fish",
        "shellscript",
        "shell script",
    ],
    &["powershell", "ps1", "psm1", "pwsh"],
    &["batch", "bat", "cmd"],
    &["sql", "psql", "mysql", "sqlite", "plsql", "tsql", "ddl"],
    &["html", "htm", "xhtml"],
    &["css"],
    &["scss", "sass", "less"],
    &["xml", "xsd", "xsl", "xslt", "svg"],
    &["json", "jsonc", "json5", "ndjson", "jsonl"],
    &["yaml", "yml"],
    &["toml"],
    &["ini", "cfg", "properties"],
    &["markdown", "md"],
    &["haskell", "hs", "lhs"],
    &["ocaml", "ml", "mli"],
    &["f#", "fsharp", "fs", "fsx"],
    &["elixir", "ex", "exs"],
    &["erlang", "erl", "hrl"],
    &["clojure", "clj", "cljs", "cljc", "edn"],
    &[
        "lisp",
        "common lisp",
        "lsp",
        "cl",
        "el",
        "emacs lisp",
        "elisp",
    ],
    &["scheme", "scm", "ss", "racket", "rkt"],
    &["lua"],
    &["r"],
    &["julia", "jl"],
    &["matlab", "octave"],
    &["dart"],
    &["zig"],
    &["nim"],
    &["crystal", "cr"],
    &["d"],
    &["v"],
    &["groovy", "gradle", "gvy"],
    &["vue"],
    &["svelte"],
    &["fortran", "f", "f77", "f90", "f95", "f03", "f08"],
    &["pascal", "pas", "delphi"],
    &["ada", "adb", "ads"],
    &["cobol", "cob", "cbl"],
    &["assembly", "asm", "s", "nasm"],
    &["visual basic", "vb", "vba", "vbnet", "bas"],
    &["verilog", "vh", "systemverilog", "sv", "svh"],
    &["vhdl", "vhd"],
    &["solidity", "sol"],
    &["protobuf", "proto"],
    &["graphql", "gql"],
    &["hcl", "terraform", "tf", "tfvars"],
    &["dockerfile", "docker"],
    &["makefile", "make", "mk", "mak"],
    &["cmake"],
    &["nix"],
    &["tcl"],
    &["prolog", "pro"],
    &["awk"],
    &["latex", "tex"],
    &["diff", "patch"],
    &["wgsl"],
    &["glsl", "vert", "frag", "comp"],
];

/// Names that are no file extension although they stand in [`NAMES`]: `report.v` and `list.d` are rarely code, and `f.m`
/// is as often MATLAB as Objective-C.
const NOT_EXTENSIONS: &[&str] = &["v", "m", "node", "make", "docker", "python", "fish"];

/// Names of files, without their directories and in lower case, that tell the language without an extension.
const FILE_NAMES: &[(&str, &str)] = &[
    ("makefile", "makefile"),
    ("gnumakefile", "makefile"),
    ("dockerfile", "dockerfile"),
    ("containerfile", "dockerfile"),
    ("cmakelists.txt", "cmake"),
    ("rakefile", "ruby"),
    ("gemfile", "ruby"),
    ("vagrantfile", "ruby"),
    ("jenkinsfile", "groovy"),
    ("sconstruct", "python"),
    (".bashrc", "shell"),
    (".profile", "shell"),
    (".zshrc", "shell"),
];

/// The canonical name of a language known by `name`, whatever its case: "c++" for "CPP".
pub fn canonical(name: &str) -> Option<&'static str> {
    let name = name.trim();
    NAMES
        .iter()
        .find(|names| names.iter().any(|known| known.eq_ignore_ascii_case(name)))
        .map(|names| names[0])
}

/// The language that a file's name tells, by its extension or as a whole ("Makefile"); `None` when it tells none.
pub fn from_path(path: &str) -> Option<&'static str> {
    let file = path.rsplit(['/', '\\']).next().unwrap_or(path);
    if let Some((_, language)) = FILE_NAMES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(file))
    {
        return Some(language);
    }
    let (stem, extension) = file.rsplit_once('.')?;
    if stem.is_empty() {
        return None;
    }
    // By convention an upper-case `.C` or `.H` is C++.
    if matches!(extension, "C" | "H") {
        return Some(Language::Cpp.as_str());
    }
    let extension = extension.to_ascii_lowercase();
    // An extension is one plain word; the other names only people use.
    let plain = !extension.is_empty()
        && extension
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+');
    if !plain || NOT_EXTENSIONS.contains(&extension.as_str()) {
        return None;
    }
    canonical(&extension)
}

/// The language that a request names, in canonical form where it is a known one and in lower case otherwise; `None`
/// for an empty name, which asks for detection.
///
/// # Errors
/// A name over [`MAX_LANGUAGE_BYTES`], and one with characters that are not printable or that would break out of the
/// fence of a code block.
pub fn parse_language(name: &str) -> Result<Option<String>, PromptError> {
    if name.len() > MAX_LANGUAGE_BYTES {
        return Err(PromptError::LanguageTooLong { bytes: name.len() });
    }
    if name
        .chars()
        .any(|c| c.is_control() || c == '`' || !is_printable(c))
    {
        return Err(PromptError::LanguageNotPrintable);
    }
    let name = name.trim();
    if name.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        canonical(name).map_or_else(|| name.to_lowercase(), str::to_owned),
    ))
}

/// Whether a character shows: neither a line or paragraph separator nor one that changes the direction of text or is
/// invisible.
fn is_printable(c: char) -> bool {
    !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
