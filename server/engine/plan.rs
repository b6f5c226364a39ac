//! What a plan must hold to before an engine turns it into memory addresses.

use std::collections::HashSet;

use super::{BackendInfo, EngineError, SequenceStep, StepPlan};

impl SequenceStep<'_> {
    /// The tokens, by index, after which a token is sampled: the last, and one more for each draft.
    pub fn sampled(&self) -> std::ops::Range<usize> {
        let count = self.sample.map_or(0, |sample| sample.drafts + 1);
        self.tokens.len() - count..self.tokens.len()
    }
}

impl StepPlan<'_> {
    /// Number of tokens that the step runs through the model, over all sequences.
    pub fn rows(&self) -> usize {
        self.sequences
            .iter()
            .map(|sequence| sequence.tokens.len())
            .sum()
    }

    /// Checks the plan against the loaded model and its KV pool: an engine calls it before it computes with the numbers.
    ///
    /// # Errors
    /// [`EngineError::Plan`] for a sequence without tokens or with nothing but drafts, a token outside the vocabulary, a position outside the
    /// context, too few blocks, a block outside the pool, or two sequences that would write to one block.
    pub fn check(&self, info: &BackendInfo) -> Result<(), EngineError> {
        let mut written = HashSet::new();
        for (number, sequence) in self.sequences.iter().enumerate() {
            let error = |what: String| Err(EngineError::Plan(format!("sequence {number}: {what}")));
            if sequence.tokens.is_empty() {
                return error("it has no tokens".to_owned());
            }
            if let Some(sample) = &sequence.sample
                && (sample.drafts >= sequence.tokens.len() || sample.drafts > sample.history.len())
            {
                return error(format!(
                    "{} drafts, but {} tokens and a history of {}",
                    sample.drafts,
                    sequence.tokens.len(),
                    sample.history.len()
                ));
            }
            let wrong = |&&token: &&u32| token as usize >= info.vocabulary;
            if let Some(token) = sequence.tokens.iter().find(wrong) {
                return error(format!(
                    "token {token} is outside the vocabulary of {}",
                    info.vocabulary
                ));
            }
            let (past, new) = (sequence.past, sequence.tokens.len());
            let Some(end) = past
                .checked_add(new)
                .filter(|&end| end <= info.context_length)
            else {
                return error(format!(
                    "{past} + {new} tokens do not fit into the context of {}",
                    info.context_length
                ));
            };
            let needed = end.div_ceil(info.block_tokens);
            if sequence.blocks.len() < needed {
                return error(format!(
                    "{end} tokens need {needed} KV blocks, it has {}",
                    sequence.blocks.len()
                ));
            }
            let blocks = &sequence.blocks[..needed];
            if let Some(block) = blocks.iter().find(|&&block| block as usize >= info.blocks) {
                return error(format!(
                    "KV block {block} is outside the pool of {}",
                    info.blocks
                ));
            }
            let first_written = past / info.block_tokens;
            if let Some(block) = blocks[first_written..]
                .iter()
                .find(|&&block| !written.insert(block))
            {
                return error(format!("KV block {block} would be written to twice"));
            }
        }
        Ok(())
    }
}
