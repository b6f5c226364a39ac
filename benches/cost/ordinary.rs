//! Code as people write it: the tests' snippets in eight languages, and this project's own sources.

use std::path::Path;

/// Files of one language and folder that are looked at.
const FILES: usize = 24;

/// Language and text of each.
pub(crate) fn texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    let folders = [
        ("python", "tests/data/snippets/python"),
        ("rust", "tests/data/snippets/rust"),
        ("javascript", "tests/data/snippets/javascript"),
        ("typescript", "tests/data/snippets/typescript"),
        ("go", "tests/data/snippets/go"),
        ("java", "tests/data/snippets/java"),
        ("c", "tests/data/snippets/c"),
        ("c++", "tests/data/snippets/cpp"),
        ("rust", "server/scheduler"),
        ("rust", "server/engine-native"),
        ("python", "benches/peers"),
    ];
    for (language, folder) in folders {
        let files = std::fs::read_dir(root.join(folder)).expect("a folder of this project");
        let mut files: Vec<_> = files.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        for path in files.into_iter().take(FILES) {
            if let Ok(text) = std::fs::read_to_string(path) {
                texts.push((language.to_owned(), text));
            }
        }
    }
    texts
}

/// A text as often as it takes to fill so many bytes.
pub(crate) fn sized(text: &str, bytes: usize) -> String {
    let mut whole = text.repeat(bytes / text.len().max(1) + 1);
    whole.truncate(whole.floor_char_boundary(bytes));
    whole
}
