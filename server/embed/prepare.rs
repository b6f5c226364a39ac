//! A request's texts: looked up in the cache, and those that are not there tokenized, a turn at a time.

use std::collections::HashMap;

use super::Embedding;
use super::cache::{VectorCache, VectorKey};
use super::tokens::{TextTokenizer, Tokenized};

/// Bytes of text that are looked at in a turn, or one text: some 10 ms.
const TURN_BYTES: usize = 64 << 10;

/// Texts as far as they have been looked at.
pub(super) struct Prepared {
    salt: Box<[u8]>,
    texts: Vec<String>,
    /// Of those that have been looked at.
    found: Vec<Option<Embedding>>,
    missing: Vec<Missing>,
    /// Where in `missing` a text is.
    seen: HashMap<VectorKey, usize>,
}

/// A text to compute.
pub(super) struct Missing {
    pub(super) key: VectorKey,
    pub(super) text: Tokenized,
    /// Where in the request it is; more than one where texts are equal.
    pub(super) places: Vec<usize>,
}

impl Prepared {
    pub(super) fn new(salt: &[u8], texts: Vec<String>) -> Self {
        Self {
            salt: salt.into(),
            texts,
            found: Vec::new(),
            missing: Vec::new(),
            seen: HashMap::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.found.len() == self.texts.len()
    }

    /// Looks at some more of the texts.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub(super) fn turn(
        &mut self,
        model_digest: &str,
        cache: &VectorCache,
        tokenizer: &TextTokenizer,
    ) -> Result<(), String> {
        let first = self.found.len();
        let mut bytes = 0;
        let rest = self.texts[first..].iter().take_while(|text| {
            let more = bytes < TURN_BYTES;
            bytes += text.len();
            more
        });
        let keys: Vec<VectorKey> = rest
            .map(|text| VectorKey::new(&self.salt, model_digest, text))
            .collect();
        self.found.extend(cache.get(&keys));
        for (place, key) in (first..).zip(keys) {
            if self.found[place].is_some() {
                continue;
            }
            if let Some(&first) = self.seen.get(&key) {
                self.missing[first].places.push(place);
                continue;
            }
            self.seen.insert(key, self.missing.len());
            self.missing.push(Missing {
                key,
                text: tokenizer.encode(&self.texts[place])?,
                places: vec![place],
            });
        }
        Ok(())
    }

    /// What is to be computed; of use once.
    pub(super) fn take_missing(&mut self) -> Vec<Missing> {
        std::mem::take(&mut self.missing)
    }

    /// How many were in the cache.
    pub(super) fn found(&self) -> usize {
        self.found.iter().flatten().count()
    }

    /// A text has its vector.
    pub(super) fn put(&mut self, places: &[usize], embedding: &Embedding) {
        for &place in places {
            self.found[place] = Some(embedding.clone());
        }
    }

    /// All of them, in order; nothing if one is missing.
    pub(super) fn embeddings(self) -> Option<Vec<Embedding>> {
        self.found.into_iter().collect()
    }
}
