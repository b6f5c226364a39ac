//! How the supported families of byte-level BPE cut a text into words before merging.
//!
//! Each is the pipeline that the family's own `tokenizer.json` on the Hugging Face Hub describes. A
//! GGUF file carries only the family's name, as `tokenizer.ggml.pre`.

use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

/// Words of Llama 3: contractions, a word with the one sign before it, up to three digits, signs
/// with the line ends after them, line ends, spaces.
const LLAMA3_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// Words of Qwen 2: those of Llama 3, but every digit stands alone.
const QWEN2_WORDS: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);

/// A family of byte-level BPE tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// SmolLM and SmolLM2: every digit alone, then the words of GPT-2.
    SmolLm,
    /// GPT-2.
    Gpt2,
    /// Llama 3.
    Llama3,
    /// Qwen2 and Qwen2.5; composes characters first (NFC).
    Qwen2,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::SmolLm, Self::Gpt2, Self::Llama3, Self::Qwen2];

    /// Its name in `tokenizer.ggml.pre`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SmolLm => "smollm",
            Self::Gpt2 => "gpt-2",
            Self::Llama3 => "llama-bpe",
            Self::Qwen2 => "qwen2",
        }
    }

    /// The family of this name, or of another that llama.cpp treats alike.
    pub fn from_name(name: &str) -> Option<Self> {
        // `llm_tokenizer_bpe` in its llama-vocab.cpp has the same words for those of a line.
        match name {
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone"
            | "minerva-7b" => Some(Self::SmolLm),
            "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de"
            | "gigachat" | "a.x-4.0" | "mellum" | "modern-bert" | "exaone4" | "mpt" | "olmo"
            | "jais" | "trillion" | "granite-docling" => Some(Self::Gpt2),
            "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "falcon-h1" | "pixtral"
            | "midm-2.0" | "lfm2" | "jina-v5-nano" => Some(Self::Llama3),
            "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" => Some(Self::Qwen2),
            _ => None,
        }
    }

    /// The names of all families, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// Whether prompts begin with the begin-of-sequence token where the file does not say.
    pub(super) fn adds_bos(self) -> bool {
        self == Self::Llama3
    }

    /// Whether a word that is a token as a whole is that token, whatever the merges would give.
    pub(super) fn ignores_merges(self) -> bool {
        self == Self::Llama3
    }

    pub(super) fn normalizer(self) -> Option<NormalizerWrapper> {
        (self == Self::Qwen2).then(|| NFC.into())
    }

    pub(super) fn pre_tokenizer(self) -> tokenizers::Result<PreTokenizerWrapper> {
        let byte_level = |use_regex| ByteLevel::new(false, true, use_regex).into();
        let words = |pattern: &str| {
            Split::new(
                SplitPattern::Regex(pattern.to_owned()),
                SplitDelimiterBehavior::Isolated,
                false,
            )
        };
        let parts: Vec<PreTokenizerWrapper> = match self {
            Self::Gpt2 => return Ok(byte_level(true)),
            Self::SmolLm => vec![Digits::new(true).into(), byte_level(true)],
            Self::Llama3 => vec![words(LLAMA3_WORDS)?.into(), byte_level(false)],
            Self::Qwen2 => vec![words(QWEN2_WORDS)?.into(), byte_level(false)],
        };
        Ok(Sequence::new(parts).into())
    }
}
