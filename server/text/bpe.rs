//! Byte-level BPE tokenizers built from their parts: tokens, merges, a family.

use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, Tokenizer};

use super::family::Family;

/// The parts of a byte-level BPE tokenizer, as a GGUF file or `vocab.json` and `merges.txt` give
/// them.
pub(super) struct ByteLevelBpe {
    pub(super) vocabulary: Vocab,
    /// In order of priority.
    pub(super) merges: Merges,
    pub(super) family: Family,
    /// Tokens that are looked for in the text itself, before it is cut into words.
    pub(super) added: Vec<AddedToken>,
}

impl ByteLevelBpe {
    /// Puts the parts together. The message of an error says what is wrong with the merges.
    pub(super) fn build(self) -> Result<Tokenizer, String> {
        check_merges(&self.vocabulary, &self.merges)?;
        let model = BPE::builder()
            .vocab_and_merges(self.vocabulary, self.merges)
            .ignore_merges(self.family.ignores_merges())
            .build()
            .map_err(|error| error.to_string())?;
        let mut tokenizer = Tokenizer::new(model);
        let pre_tokenizer = self
            .family
            .pre_tokenizer()
            .map_err(|error| error.to_string())?;
        tokenizer
            .with_normalizer(self.family.normalizer())
            .map_err(|error| error.to_string())?
            .with_pre_tokenizer(Some(pre_tokenizer))
            .with_decoder(Some(ByteLevel::default()));
        tokenizer
            .add_tokens(self.added)
            .map_err(|error| error.to_string())?;
        Ok(tokenizer)
    }
}

/// Checks that both halves of every merge, and what they make, are tokens.
///
/// The BPE builder checks this too, but runs out of its buffer on a merge that makes something
/// longer than every token.
pub(super) fn check_merges(vocabulary: &Vocab, merges: &Merges) -> Result<(), String> {
    let mut merged = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        merged.clear();
        merged.push_str(left);
        merged.push_str(right);
        for token in [left, right, &merged] {
            if !vocabulary.contains_key(token.as_str()) {
                return Err(format!(
                    "merge {index} ({left:?} with {right:?}) needs {token:?}, which is no token"
                ));
            }
        }
    }
    Ok(())
}
