//! Reading source files, and what a file's name tells about its language.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use code_explainer_client::{Code, Error, Failure};

/// The language of each extension, as the server names it; empty where the extension does not tell.
const EXTENSIONS: &[(&str, &[&str])] = &[
    // C or C++ or Objective-C: the server looks at the code.
    ("", &["h"]),
    ("ada", &["adb", "ads"]),
    ("assembly", &["asm", "s"]),
    ("c", &["c"]),
    ("c#", &["cs", "csx"]),
    (
        "c++",
        &[
            "cc", "cpp", "cu", "cuh", "cxx", "h++", "hh", "hpp", "hxx", "ipp", "tpp",
        ],
    ),
    ("clojure", &["clj", "cljc", "cljs"]),
    ("crystal", &["cr"]),
    ("dart", &["dart"]),
    ("elixir", &["ex", "exs"]),
    ("erlang", &["erl", "hrl"]),
    ("f#", &["fs", "fsx"]),
    ("fortran", &["f03", "f08", "f77", "f90", "f95"]),
    ("glsl", &["comp", "frag", "glsl", "vert"]),
    ("go", &["go"]),
    ("graphql", &["gql", "graphql"]),
    ("groovy", &["gradle", "groovy"]),
    ("haskell", &["hs", "lhs"]),
    ("hcl", &["hcl", "tf"]),
    ("java", &["java"]),
    ("javascript", &["cjs", "js", "jsx", "mjs"]),
    ("julia", &["jl"]),
    ("kotlin", &["kt", "kts"]),
    ("lisp", &["el", "lisp", "lsp"]),
    ("lua", &["lua"]),
    ("nim", &["nim"]),
    ("nix", &["nix"]),
    ("objective-c", &["m", "mm"]),
    ("ocaml", &["ml", "mli"]),
    ("pascal", &["pas"]),
    ("perl", &["pl", "pm"]),
    ("php", &["php", "phtml"]),
    ("powershell", &["ps1", "psm1"]),
    ("protobuf", &["proto"]),
    ("python", &["py", "pyi", "pyw", "pyx"]),
    ("r", &["r"]),
    ("ruby", &["gemspec", "rake", "rb"]),
    ("rust", &["rs"]),
    ("scala", &["sc", "scala"]),
    ("scheme", &["rkt", "scm"]),
    ("shell", &["bash", "fish", "ksh", "sh", "zsh"]),
    ("solidity", &["sol"]),
    ("sql", &["sql"]),
    ("svelte", &["svelte"]),
    ("swift", &["swift"]),
    ("tcl", &["tcl"]),
    ("typescript", &["cts", "mts", "ts", "tsx"]),
    ("verilog", &["sv", "svh", "vh"]),
    ("vhdl", &["vhd", "vhdl"]),
    ("visual basic", &["vb"]),
    ("vue", &["vue"]),
    ("wgsl", &["wgsl"]),
    ("zig", &["zig"]),
];

/// The language that the file's extension tells.
pub(crate) fn language(path: &Path) -> Option<&'static str> {
    known(path).filter(|language| !language.is_empty())
}

/// Whether the file's extension is one of source code.
pub(crate) fn is_source(path: &Path) -> bool {
    known(path).is_some()
}

/// Why a file cannot be explained.
#[derive(Debug)]
pub(crate) struct Unreadable {
    code: Code,
    pub(crate) message: String,
}

impl Unreadable {
    /// The same in the shape of the server's errors, for records.
    pub(crate) fn into_error(self) -> Error {
        Error::Server(Failure {
            code: self.code,
            message: self.message,
            retryable: false,
            retry_delay: None,
            field: None,
        })
    }
}

/// Reads a file of at most `limit` bytes; `-` is standard input.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String, Unreadable> {
    if path == Path::new("-") {
        return text(io::stdin().lock(), limit);
    }
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        let message = "it is a directory; `code-explainer batch` explains directories".to_owned();
        return Err(Unreadable {
            code: Code::InvalidArgument,
            message,
        });
    }
    text(file, limit)
}

fn text(source: impl Read, limit: u64) -> Result<String, Unreadable> {
    let invalid = |message: String| {
        Err(Unreadable {
            code: Code::InvalidArgument,
            message,
        })
    };
    let mut bytes = Vec::new();
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return invalid(format!(
            "it is larger than {limit} bytes, the most that is taken"
        ));
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let place = error.utf8_error().valid_up_to();
            return invalid(format!("it is not UTF-8 text (see byte {place})"));
        }
    };
    // A byte order mark is no code.
    let text = text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text);
    if text.trim().is_empty() {
        return invalid("it is empty".to_owned());
    }
    Ok(text)
}

fn unreadable(error: io::Error) -> Unreadable {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::Unknown,
    };
    Unreadable {
        code,
        message: error.to_string(),
    }
}

fn known(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    // By convention these are C++, unlike `.c` and `.h`.
    if matches!(extension, "C" | "H") {
        return Some("c++");
    }
    let extension = extension.to_ascii_lowercase();
    let of = |(_, extensions): &&(&str, &[&str])| extensions.contains(&extension.as_str());
    EXTENSIONS.iter().find(of).map(|(language, _)| *language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_tell_languages() {
        let of = |name| language(Path::new(name));
        assert_eq!(of("a/b.PY"), Some("python"));
        assert_eq!(of("x.hpp"), Some("c++"));
        assert_eq!(of("x.C"), Some("c++"));
        assert_eq!([of("x.h"), of("x"), of(".rs"), of("x.txt")], [None; 4]);
        assert!(is_source(Path::new("x.h")) && !is_source(Path::new("x.txt")));
    }

    #[test]
    fn what_is_no_text_is_refused_by_name() {
        let message = |bytes: &[u8]| text(bytes, 8).map_err(|error| error.message);
        assert_eq!(message(b"\xef\xbb\xbfab").as_deref(), Ok("ab"));
        assert_eq!(
            message(b"ab\xff"),
            Err("it is not UTF-8 text (see byte 2)".into())
        );
        assert_eq!(message(b" \n"), Err("it is empty".into()));
        assert!(message(b"123456789").is_err_and(|message| message.contains("8 bytes")));
    }
}
