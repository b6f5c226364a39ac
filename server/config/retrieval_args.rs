//! The part of `serve` about retrieval.

use clap::Args;

use crate::retrieval::config::{MOST_PASSAGES, MOST_TOKENS};
use crate::retrieval::{RetrievalConfig, RetrievalOptions};

#[derive(Debug, Args)]
pub(super) struct RetrievalArgs {
    /// Passages that a prompt of the strategy retrieval_augmented quotes at most, of the documents that `code-explainer
    /// corpus add` has loaded and of kept answers
    #[arg(long, env = "CODE_EXPLAINER_RETRIEVAL_TOP_K", value_name = "N")]
    #[arg(default_value_t = 3)]
    pub(super) retrieval_top_k: usize,

    /// The least cosine of a passage with the code, -1 to 1
    #[arg(
        long,
        env = "CODE_EXPLAINER_RETRIEVAL_THRESHOLD",
        value_name = "COSINE"
    )]
    #[arg(default_value_t = 0.3, allow_negative_numbers = true)]
    pub(super) retrieval_threshold: f32,

    /// How much passages should differ from each other, 0 to 1 (maximal marginal relevance): with 0 only their cosine counts
    #[arg(long, env = "CODE_EXPLAINER_RETRIEVAL_DIVERSITY", value_name = "SHARE")]
    #[arg(default_value_t = 0.3)]
    pub(super) retrieval_diversity: f32,

    /// Tokens of a prompt that passages may take, within what the model's context leaves
    #[arg(long, env = "CODE_EXPLAINER_RETRIEVAL_TOKENS", value_name = "N")]
    #[arg(default_value_t = 512)]
    pub(super) retrieval_tokens: usize,

    /// Answers that are kept, with their code, to be found by later items of the same tenant; the tenant that has most
    /// gives up its oldest first. 0: none are kept. With --data-dir they are on disk
    #[arg(long, env = "CODE_EXPLAINER_RETRIEVAL_ANSWERS", value_name = "N")]
    #[arg(default_value_t = 0)]
    pub(super) retrieval_answers: usize,

    /// Passages that the documents of the corpus may have together. A passage takes about 3 KB of memory
    #[arg(long, env = "CODE_EXPLAINER_CORPUS_PASSAGES", value_name = "N")]
    #[arg(default_value_t = 100_000)]
    pub(super) corpus_passages: usize,

    /// The largest document of the corpus, in bytes
    #[arg(long, env = "CODE_EXPLAINER_CORPUS_DOCUMENT_BYTES", value_name = "N")]
    #[arg(default_value_t = 1 << 20)]
    pub(super) corpus_document_bytes: usize,
}

impl RetrievalArgs {
    pub(super) fn validate(self) -> Result<RetrievalConfig, String> {
        for (flag, value, least, most) in [
            ("retrieval-top-k", self.retrieval_top_k, 0, MOST_PASSAGES),
            ("retrieval-tokens", self.retrieval_tokens, 0, MOST_TOKENS),
            ("retrieval-answers", self.retrieval_answers, 0, 1 << 24),
            ("corpus-passages", self.corpus_passages, 1, 1 << 24),
            (
                "corpus-document-bytes",
                self.corpus_document_bytes,
                1,
                3 << 20,
            ),
        ] {
            if value < least || value > most {
                return Err(format!("--{flag} is {value}, expected {least} to {most}"));
            }
        }
        for (flag, value, least) in [
            ("retrieval-threshold", self.retrieval_threshold, -1.0),
            ("retrieval-diversity", self.retrieval_diversity, 0.0),
        ] {
            if !(least..=1.0).contains(&value) {
                return Err(format!("--{flag} is {value}, expected {least} to 1"));
            }
        }
        Ok(RetrievalConfig {
            options: RetrievalOptions {
                top_k: self.retrieval_top_k,
                threshold: self.retrieval_threshold,
                diversity: self.retrieval_diversity,
                tokens: self.retrieval_tokens,
                documentation: true,
                explanations: true,
            },
            passages: self.corpus_passages,
            document_bytes: self.corpus_document_bytes,
            answers: self.retrieval_answers,
        })
    }
}
