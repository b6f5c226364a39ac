//! Bearer tokens. The server keeps their hashes alone: a token has 256 random bits, so that one plain hash is enough.

use std::fmt;
use std::str::FromStr;

/// Tells our tokens from other secrets, for people and for scanners of leaked secrets.
const PREFIX: &str = "cex_";
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// How a hash is written.
const HASH_PREFIX: &str = "blake3:";

/// A token as its client sends it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// What is kept of a token. Compared in constant time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(blake3::Hash);

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        let digits = secret.iter().map(|byte| format!("{byte:02x}"));
        Ok(Self(PREFIX.to_owned() + &digits.collect::<String>()))
    }

    /// The text that a client sends.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

impl KeyHash {
    /// Of a token.
    pub fn of(token: &[u8]) -> Self {
        Self(blake3::hash(token))
    }
}

impl FromStr for KeyHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(())?;
        blake3::Hash::from_hex(digits).map(Self).map_err(|_| ())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", self.0.to_hex())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(...)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_their_hashes_read_back() {
        let (a, b) = (Token::random().expect("one"), Token::random().expect("two"));
        assert_ne!(a, b);
        assert_eq!(a.reveal().len(), PREFIX.len() + 2 * SECRET_BYTES);
        let hash = KeyHash::of(a.reveal().as_bytes());
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_ne!(hash, KeyHash::of(b.reveal().as_bytes()));
    }

    #[test]
    fn neither_shows_in_a_debug_print() {
        let token = Token::random().expect("one");
        let shown = format!("{token:?} {:?}", KeyHash::of(token.reveal().as_bytes()));
        assert_eq!(shown, "Token(...) KeyHash(...)");
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for bad in ["", "blake3:", "blake3:00", "sha256:00", &"0".repeat(64)] {
            assert!(bad.parse::<KeyHash>().is_err(), "{bad}");
        }
    }
}
