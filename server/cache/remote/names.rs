//! Names of what lies in Redis. They hold keyed hashes and nothing else: see [`CacheKey`] and [`Selection`].
//!
//! The hash in braces is what a cluster shards by, so that all that belongs to an answer lies on one node.

use super::token::Token;
use crate::codec::VERSION;
use crate::key::CacheKey;
use crate::selection::Selection;

/// Releases with another format have names of their own, so that replicas of two releases can share a Redis.
const PREFIX: &str = "code-explainer";

/// An answer's, and that of the lease to make it.
pub(super) fn answer(key: &CacheKey) -> String {
    format!("{PREFIX}:v{VERSION}:{}:{{{key}}}", key.tags())
}

/// Those of all answers of a selection, as a pattern of `SCAN`.
pub(super) fn answers(selection: &Selection) -> String {
    format!("{PREFIX}:v{VERSION}:{selection}:{{*}}")
}

/// That of what the holder of a lease tells of the answer as it grows.
pub(super) fn log(key: &CacheKey, token: Token) -> String {
    format!("{PREFIX}:log:v{VERSION}:{{{key}}}:{token}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyParts;

    #[test]
    fn a_name_holds_hashes_alone_and_is_sharded_by_the_key() {
        let key = CacheKey::new(&KeyParts {
            secret: b"secret",
            salt: b"salt",
            code: b"fn main() {}",
            language: "rust",
            strategy: "vanilla",
            ..KeyParts::default()
        });
        let name = answer(&key);
        let parts: Vec<&str> = name.split(':').collect();
        assert_eq!(parts[..2], ["code-explainer", "v3"]);
        assert_eq!(parts[5], format!("{{{key}}}"));
        for tag in &parts[2..5] {
            assert!(tag.len() == 16 && tag.bytes().all(|b| b.is_ascii_hexdigit()));
        }
    }
}
