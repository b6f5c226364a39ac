//! Names of answers: a keyed hash of everything that an answer depends on.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::selection::Tags;

/// Changes whenever the encoding below or what an answer depends on does: old answers are then never found again.
const KEY_VERSION: u32 = 1;
/// Separates these hashes from every other use of BLAKE3's key derivation.
const KEY_CONTEXT: &str = "code-explainer answer cache key, version 1";

/// Everything that a reproducible answer depends on.
///
/// Only reproducible requests (greedy, or with a seed of the client's) have a key that is worth looking up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KeyParts<'a> {
    /// Secret of the installation. It keys the key's tags, and not the hash.
    pub secret: &'a [u8],
    /// Secret of the installation or of the tenant. The hash is keyed by it, so that tenants never share answers and
    /// who reads Redis cannot try out whether some code was explained. All replicas need the same one.
    pub salt: &'a [u8],
    /// The exact bytes of the code.
    pub code: &'a [u8],
    /// The language that the prompt is made for; empty if it is not known.
    pub language: &'a str,
    /// Name of the strategy.
    pub strategy: &'a str,
    /// Revision of the strategies' prompts.
    pub prompt_revision: u32,
    /// Digest of the model's files.
    pub model_digest: &'a [u8],
    /// Precision of weights and arithmetic.
    pub precision: &'a str,
    /// 0: greedy. Then `top_p`, `top_k` and `seed` do not change the answer and are not part of the key.
    pub temperature: f32,
    /// Nucleus sampling.
    pub top_p: f32,
    /// Top-k sampling.
    pub top_k: u32,
    /// Repetition penalty.
    pub repetition_penalty: f32,
    /// Seed of the sampling.
    pub seed: u64,
    /// Strings that end the answer, in the request's order.
    pub stops: &'a [String],
    /// Go on past the end-of-sequence token.
    pub ignore_eos: bool,
    /// The most tokens to generate.
    pub max_new_tokens: usize,
    /// The fewest tokens to generate.
    pub min_new_tokens: usize,
}

/// Of a plain greedy request. The texts are empty and the limits 0.
impl Default for KeyParts<'_> {
    fn default() -> Self {
        Self {
            secret: b"",
            salt: b"",
            code: b"",
            language: "",
            strategy: "",
            prompt_revision: 0,
            model_digest: b"",
            precision: "",
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
            seed: 0,
            stops: &[],
            ignore_eos: false,
            max_new_tokens: 0,
            min_new_tokens: 0,
        }
    }
}

/// The 256-bit name of an answer. It says nothing about the code to who does not know the salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CacheKey {
    hash: [u8; CacheKey::BYTES],
    tags: Tags,
}

impl CacheKey {
    /// Length of a key in bytes.
    pub const BYTES: usize = 32;

    /// The key of an answer: keyed BLAKE3 over an encoding of its parts that no two different parts share.
    pub fn new(parts: &KeyParts<'_>) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(KEY_CONTEXT, parts.salt));
        encode(parts, &mut |bytes| {
            hasher.update(bytes);
        });
        Self {
            hash: *hasher.finalize().as_bytes(),
            tags: Tags::new(parts.secret, parts.salt, parts.language, parts.strategy),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.hash
    }

    /// Whose answer it is, of what language and strategy: see [`Selection`](super::Selection).
    pub(super) fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The tags follow from what is hashed here already.
        self.hash.hash(state);
    }
}

impl fmt::Display for CacheKey {
    /// 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

/// Feeds the parts to `sink`: numbers at their fixed width, strings after their length, lists after their count. Every
/// byte's meaning follows from those before it, so different parts give different bytes.
///
/// The salt is not here: it keys the hash. Nor is the secret: the salt stands for it.
fn encode(parts: &KeyParts<'_>, sink: &mut impl FnMut(&[u8])) {
    // Taken apart by name so that a new part cannot be forgotten.
    let KeyParts {
        secret: _,
        salt: _,
        code,
        language,
        strategy,
        prompt_revision,
        model_digest,
        precision,
        temperature,
        top_p,
        top_k,
        repetition_penalty,
        seed,
        stops,
        ignore_eos,
        max_new_tokens,
        min_new_tokens,
    } = *parts;
    sink(&KEY_VERSION.to_le_bytes());
    for bytes in [
        code,
        language.as_bytes(),
        strategy.as_bytes(),
        model_digest,
        precision.as_bytes(),
    ] {
        prefixed(bytes, sink);
    }
    sink(&prompt_revision.to_le_bytes());
    sink(&[u8::from(temperature != 0.0)]);
    if temperature != 0.0 {
        sink(&temperature.to_bits().to_le_bytes());
        sink(&top_p.to_bits().to_le_bytes());
        sink(&top_k.to_le_bytes());
        sink(&seed.to_le_bytes());
    }
    sink(&repetition_penalty.to_bits().to_le_bytes());
    sink(&(stops.len() as u64).to_le_bytes());
    for stop in stops {
        prefixed(stop.as_bytes(), sink);
    }
    sink(&[u8::from(ignore_eos)]);
    sink(&(max_new_tokens as u64).to_le_bytes());
    sink(&(min_new_tokens as u64).to_le_bytes());
}

fn prefixed(bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
    sink(&(bytes.len() as u64).to_le_bytes());
    sink(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Owns what [`KeyParts`] borrows.
    #[derive(Debug, Clone, PartialEq)]
    struct Owned {
        texts: [String; 6],
        stops: Vec<String>,
        revision: u32,
        sampling: (f32, f32, u32, f32, u64),
        ignore_eos: bool,
        tokens: (usize, usize),
    }

    impl Owned {
        fn parts(&self) -> KeyParts<'_> {
            let [salt, code, language, strategy, model_digest, precision] = &self.texts;
            let (temperature, top_p, top_k, repetition_penalty, seed) = self.sampling;
            KeyParts {
                secret: b"secret",
                salt: salt.as_bytes(),
                code: code.as_bytes(),
                language,
                strategy,
                prompt_revision: self.revision,
                model_digest: model_digest.as_bytes(),
                precision,
                temperature,
                top_p,
                top_k,
                repetition_penalty,
                seed,
                stops: &self.stops,
                ignore_eos: self.ignore_eos,
                max_new_tokens: self.tokens.0,
                min_new_tokens: self.tokens.1,
            }
        }

        fn key(&self) -> CacheKey {
            CacheKey::new(&self.parts())
        }

        /// What is left when the settings that greedy decoding does not look at are put aside.
        fn canonical(mut self) -> Self {
            if self.sampling.0 == 0.0 {
                self.sampling = (0.0, 1.0, 0, self.sampling.3, 0);
            }
            self
        }
    }

    /// Few and short values over a tiny alphabet: near misses and equal parts both come up often.
    fn owned() -> impl Strategy<Value = Owned> {
        let text = || prop_oneof![Just(String::new()), "[ab\0]{1,3}"];
        let float = || prop_oneof![Just(0.0f32), Just(0.5), Just(1.0)];
        (
            prop::array::uniform6(text()),
            prop::collection::vec(text(), 0..3),
            0u32..2,
            (float(), float(), 0u32..2, float(), 0u64..2),
            any::<bool>(),
            (0usize..2, 0usize..2),
        )
            .prop_map(
                |(texts, stops, revision, sampling, ignore_eos, tokens)| Owned {
                    texts,
                    stops,
                    revision,
                    sampling,
                    ignore_eos,
                    tokens,
                },
            )
    }

    fn encoding(parts: &KeyParts<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(parts, &mut |part| bytes.extend_from_slice(part));
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn keys_are_equal_exactly_when_the_parts_are(a in owned(), b in owned()) {
            prop_assert_eq!(a.key(), a.clone().key());
            prop_assert_eq!(a.key() == b.key(), a.canonical() == b.canonical());
        }

        /// Moving the boundary between neighbouring texts changes the key though their bytes in a row are the same.
        #[test]
        fn boundaries_of_fields_are_part_of_the_key(
            parts in owned(), text in "[ab]{1,8}", field in 0usize..5, cut in 0usize..8, other in 0usize..8,
        ) {
            let (cut, other) = (cut.min(text.len()), other.min(text.len()));
            let cut_at = |at: usize| {
                let mut parts = parts.clone();
                parts.texts[field] = text[..at].to_owned();
                parts.texts[field + 1] = text[at..].to_owned();
                parts.key()
            };
            prop_assert_eq!(cut_at(cut) == cut_at(other), cut == other);
        }

        /// No encoding is the beginning of another one: what follows it cannot turn one into the other.
        #[test]
        fn the_encoding_is_prefix_free(a in owned(), b in owned()) {
            let (x, y) = (encoding(&a.parts()), encoding(&b.parts()));
            prop_assert_eq!(x.starts_with(&y), x == y);
        }

        #[test]
        fn any_single_change_of_the_code_changes_the_key(
            parts in owned(), code in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let mut changed = code.clone();
            changed[at.index(code.len())] ^= flip;
            let key = |code: &[u8]| CacheKey::new(&KeyParts { code, ..parts.parts() });
            prop_assert_ne!(key(&code), key(&changed));
        }
    }

    fn greedy() -> Owned {
        Owned {
            texts: ["salt", "fn f() {}", "rust", "vanilla", "digest", "fp32"].map(str::to_owned),
            stops: Vec::new(),
            revision: 1,
            sampling: (0.0, 1.0, 0, 1.0, 0),
            ignore_eos: false,
            tokens: (64, 0),
        }
    }

    #[test]
    fn a_greedy_key_does_not_depend_on_what_greedy_decoding_ignores() {
        let mut other = greedy();
        other.sampling = (-0.0, 0.3, 9, 1.0, 77);
        assert_eq!(greedy().key(), other.key());
        other.sampling.3 = 1.1;
        assert_ne!(greedy().key(), other.key());
    }

    #[test]
    fn replicas_of_all_releases_with_this_version_agree_on_keys() {
        let key = greedy().key();
        assert_eq!(
            key.to_string(),
            "82debd06563626e259293b914225d0f5015cc26e2375f1cea689c4fc073692a8"
        );
        assert_eq!(format!("{key:?}"), format!("CacheKey({key})"));
    }
}
