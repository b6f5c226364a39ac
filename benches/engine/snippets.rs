//! Real code: this repository's test snippets and functions of its own sources, as prompts of 60 to 600 tokens.

use std::path::{Path, PathBuf};

use code_explainer_code::prompt::{self, Strategy};
use code_explainer_text::Text;

/// Folders of code, from the root.
const SOURCES: [&str; 3] = ["tests/data/snippets", "server/text", "server/cache"];
/// Tokens of a prompt.
const TOKENS: std::ops::RangeInclusive<usize> = 60..=600;

/// What the model is asked to do with a snippet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// To explain it.
    Explain,
    /// To say it again, which a guesser foresees.
    Copy,
}

/// `count` prompts of all lengths, short and long ones mixed, always the same ones.
pub(crate) fn prompts(
    text: &Text,
    count: usize,
    task: Task,
) -> Result<Vec<Vec<u32>>, Box<dyn std::error::Error>> {
    let mut files = Vec::new();
    for folder in SOURCES {
        collect(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut files,
        )?;
    }
    files.sort();
    let mut prompts = Vec::new();
    for file in files {
        let code = std::fs::read_to_string(&file)?;
        for part in parts(&code) {
            let mut parts = prompt::build(Strategy::Vanilla, part, None);
            if task == Task::Copy {
                parts.user = format!("Repeat this code:\n```\n{part}\n```");
            }
            let prompt = text.encode_prompt(parts.system.as_deref(), &parts.user)?;
            if TOKENS.contains(&prompt.tokens.len()) {
                prompts.push(prompt.tokens);
            }
        }
    }
    prompts.sort_by_key(Vec::len);
    if prompts.len() < count {
        return Err(format!("only {} snippets are there", prompts.len()).into());
    }
    // Evenly over the lengths; a stride that shares no factor with the count mixes them.
    let stride = (count * 3 / 8..).find(|s| gcd(*s, count) == 1).unwrap_or(1);
    let pick = |i: usize| prompts[i * stride % count * prompts.len() / count].clone();
    Ok((0..count).map(pick).collect())
}

/// The prompts of at least `tokens` tokens, with as much code cut out before the end as makes them exactly as long.
pub(crate) fn cut(prompts: &[Vec<u32>], tokens: usize) -> Vec<Vec<u32>> {
    /// The end of the code's fence and the template's turn to the assistant.
    const END: usize = 10;
    let cut = |prompt: &&Vec<u32>| {
        let end = prompt
            .len()
            .checked_sub(END)
            .filter(|_| prompt.len() >= tokens)?;
        Some([&prompt[..tokens - END], &prompt[end..]].concat())
    };
    prompts.iter().filter_map(|prompt| cut(&prompt)).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// A short file as it is; of a long one, what stands between two closing braces at the margin.
fn parts(code: &str) -> Vec<&str> {
    if code.len() < 2000 {
        return vec![code];
    }
    let end = |piece: &&str| piece.len() > 200;
    code.split_inclusive("\n}\n").filter(end).collect()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
