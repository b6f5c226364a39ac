//! What a file's name, or its first line, tells about its language.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest first line that is looked at.
const FIRST_LINE: u64 = 128;

/// The language of each extension, as the server names it; empty where the extension does not tell.
const EXTENSIONS: &[(&str, &[&str])] = &[
    // Lisp or OpenCL; C or C++ or Objective-C; Objective-C or MATLAB; Verilog or V: the server looks at the code.
    ("", &["cl", "h", "m", "v"]),
    ("ada", &["adb", "ads"]),
    ("assembly", &["asm", "nasm", "s"]),
    ("c", &["c"]),
    ("c#", &["cs", "csx"]),
    (
        "c++",
        &[
            "cc", "cpp", "cu", "cuh", "cxx", "h++", "hh", "hpp", "hxx", "ipp", "tpp",
        ],
    ),
    ("clojure", &["clj", "cljc", "cljs", "edn"]),
    ("crystal", &["cr"]),
    ("dart", &["dart"]),
    ("elixir", &["ex", "exs"]),
    ("erlang", &["erl", "hrl"]),
    ("f#", &["fs", "fsx"]),
    ("fortran", &["f", "f03", "f08", "f77", "f90", "f95", "for"]),
    ("glsl", &["comp", "frag", "glsl", "vert"]),
    ("go", &["go"]),
    ("graphql", &["gql", "graphql"]),
    ("groovy", &["gradle", "groovy", "gvy"]),
    ("haskell", &["hs", "lhs"]),
    ("hcl", &["hcl", "tf", "tfvars"]),
    ("java", &["java"]),
    ("javascript", &["cjs", "es6", "js", "jsx", "mjs"]),
    ("julia", &["jl"]),
    ("kotlin", &["kt", "kts"]),
    ("lisp", &["el", "lisp", "lsp"]),
    ("lua", &["lua"]),
    ("nim", &["nim"]),
    ("nix", &["nix"]),
    ("objective-c", &["mm"]),
    ("ocaml", &["ml", "mli"]),
    ("pascal", &["pas"]),
    ("perl", &["pl", "pm"]),
    ("php", &["php", "php3", "php4", "php5", "phtml"]),
    ("powershell", &["ps1", "psm1"]),
    ("protobuf", &["proto"]),
    ("python", &["py", "pyi", "pyw", "pyx"]),
    ("r", &["r"]),
    ("ruby", &["gemspec", "rake", "rb"]),
    ("rust", &["rs"]),
    ("scala", &["sc", "scala"]),
    ("scheme", &["rkt", "scm", "ss"]),
    ("shell", &["bash", "fish", "ksh", "sh", "zsh"]),
    ("solidity", &["sol"]),
    ("sql", &["ddl", "plsql", "psql", "sql", "tsql"]),
    ("svelte", &["svelte"]),
    ("swift", &["swift"]),
    ("tcl", &["tcl"]),
    ("typescript", &["cts", "mts", "ts", "tsx"]),
    ("verilog", &["sv", "svh", "vh"]),
    ("vhdl", &["vhd", "vhdl"]),
    ("visual basic", &["bas", "vb", "vba"]),
    ("vue", &["vue"]),
    ("wgsl", &["wgsl"]),
    ("zig", &["zig"]),
    ("awk", &["awk"]),
    ("batch", &["bat", "cmd"]),
    ("cmake", &["cmake"]),
    ("cobol", &["cbl", "cob"]),
    ("css", &["css"]),
    ("dockerfile", &["containerfile", "dockerfile"]),
    ("html", &["htm", "html", "xhtml"]),
    ("ini", &["cfg", "ini"]),
    ("makefile", &["mak", "mk"]),
    ("prolog", &["pro"]),
    ("scss", &["less", "sass", "scss"]),
    ("toml", &["toml"]),
    ("yaml", &["yaml", "yml"]),
];

/// The language of files that have a name rather than an extension, in lower case.
const NAMES: &[(&str, &[&str])] = &[
    ("cmake", &["cmakelists.txt"]),
    ("dockerfile", &["containerfile", "dockerfile"]),
    ("groovy", &["jenkinsfile"]),
    ("makefile", &["gnumakefile", "makefile"]),
    ("python", &["sconscript", "sconstruct"]),
    ("ruby", &["gemfile", "rakefile", "vagrantfile"]),
];

/// Extensions that say what a file is, whatever comes before.
const NO_VARIANTS: [&str; 8] = [
    "bak",
    "dockerignore",
    "json",
    "lock",
    "log",
    "md",
    "orig",
    "txt",
];

/// The language of what `#!` names.
const INTERPRETERS: &[(&str, &[&str])] = &[
    ("awk", &["awk", "gawk"]),
    ("groovy", &["groovy"]),
    ("javascript", &["bun", "node", "nodejs"]),
    ("julia", &["julia"]),
    ("lua", &["lua", "luajit"]),
    ("makefile", &["make"]),
    ("perl", &["perl"]),
    ("php", &["php"]),
    ("powershell", &["pwsh"]),
    ("python", &["pypy", "python"]),
    ("r", &["rscript"]),
    ("ruby", &["ruby"]),
    (
        "shell",
        &["ash", "bash", "dash", "fish", "ksh", "sh", "zsh"],
    ),
    ("tcl", &["expect", "tclsh", "wish"]),
    ("typescript", &["deno", "ts-node"]),
];

/// The language that the file's name tells, or its first line.
pub(crate) fn language(path: &Path) -> Option<&'static str> {
    by_name(path)
        .or_else(|| by_first_line(path))
        .filter(|language| !language.is_empty())
}

/// Whether the file's name, or its first line, is one of source code. Data (JSON, XML) and documents are not.
pub(crate) fn is_source(path: &Path) -> bool {
    by_name(path).is_some() || by_first_line(path).is_some()
}

fn by_name(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    find(NAMES, &name)
        .or_else(|| by_extension(path))
        .or_else(|| variant(&name))
}

/// `Dockerfile.dev` and `Makefile.am` are as much of their kind as `Dockerfile` and `Makefile`; `Makefile.py`,
/// `Dockerfile.md` and `Gemfile.lock` are not.
fn variant(name: &str) -> Option<&'static str> {
    let (stem, rest) = name.split_once('.')?;
    let has_variants = ["containerfile", "dockerfile", "jenkinsfile", "makefile"].contains(&stem);
    let is_other = rest
        .rsplit('.')
        .next()
        .is_some_and(|end| NO_VARIANTS.contains(&end));
    find(NAMES, stem).filter(|_| has_variants && !is_other)
}

fn by_extension(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?;
    // By convention these are C++, unlike `.c` and `.h`.
    if matches!(extension, "C" | "H") {
        return Some("c++");
    }
    find(EXTENSIONS, &extension.to_ascii_lowercase())
}

/// Of a file that has no extension, the interpreter that its first line names.
fn by_first_line(path: &Path) -> Option<&'static str> {
    if path.extension().is_some() {
        return None;
    }
    // To open a pipe is to wait for who writes it, and what is read of it is lost.
    std::fs::metadata(path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(FIRST_LINE).read_to_end(&mut bytes).ok()?;
    interpreter(std::str::from_utf8(bytes.split(|b| *b == b'\n').next()?).ok()?)
}

/// `#!/usr/bin/env -S VAR=x python3.12 -u` is Python.
fn interpreter(line: &str) -> Option<&'static str> {
    let mut words = line.strip_prefix("#!")?.split_whitespace();
    let program = |word: &str| {
        word.rsplit('/')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase()
    };
    let mut name = program(words.next()?);
    if name == "env" {
        let is_program = |word: &&str| !word.starts_with('-') && !word.contains('=');
        name = program(words.find(is_program)?);
    }
    let without_version = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    find(INTERPRETERS, without_version)
}

fn find(table: &[(&'static str, &[&str])], wanted: &str) -> Option<&'static str> {
    let found = table.iter().find(|(_, names)| names.contains(&wanted));
    found.map(|(language, _)| *language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_languages() {
        for (name, expected) in [
            ("a/b.PY", Some("python")),
            ("x.hpp", Some("c++")),
            ("x.C", Some("c++")),
            ("Dockerfile", Some("dockerfile")),
            ("Dockerfile.dev", Some("dockerfile")),
            ("Dockerfile.catalog", Some("dockerfile")),
            ("Dockerfile.dockerignore", None),
            ("Dockerfile.dev.bak", None),
            ("Makefile.am", Some("makefile")),
            ("Makefile.txt", None),
            ("Gemfile.lock", None),
            ("web.dockerfile", Some("dockerfile")),
            ("a/Makefile", Some("makefile")),
            ("CMakeLists.txt", Some("cmake")),
            ("x.yml", Some("yaml")),
            ("x.css", Some("css")),
            ("makefile.py", Some("python")),
            ("x.for", Some("fortran")),
            ("x.h", None),
            ("f.m", None),
            (".rs", None),
            ("x.txt", None),
            ("x.json", None),
        ] {
            assert_eq!(language(Path::new(name)), expected, "{name}");
        }
        assert!(is_source(Path::new("x.h")) && is_source(Path::new("f.m")));
        assert!(!is_source(Path::new("x.txt")) && !is_source(Path::new("nowhere")));
    }

    #[test]
    fn first_lines_tell_languages() {
        for (line, expected) in [
            ("#!/bin/sh", Some("shell")),
            ("#! /usr/bin/env bash", Some("shell")),
            ("#!/usr/bin/env -S A=b python3.12 -u\r", Some("python")),
            ("#!/usr/local/bin/Rscript", Some("r")),
            ("#!/usr/bin/make -f", Some("makefile")),
            ("#!/opt/thing", None),
            ("#!", None),
            ("echo", None),
        ] {
            assert_eq!(interpreter(line), expected, "{line}");
        }
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::write(&run, "#!/bin/sh\necho\n").unwrap();
        assert_eq!(language(&run), Some("shell"));
        std::fs::write(&run, b"\x7fELF\0").unwrap();
        assert_eq!(language(&run), None);
        // Nobody writes it: to open it would be to wait for ever.
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert_eq!(language(&pipe), None);
    }
}
