//! Which answers are meant, without anybody's code or name being told: tags of tenants, languages and strategies.

use std::fmt;

use super::memory::Owner;

/// Separates these hashes from every other use of BLAKE3's key derivation.
const TAG_CONTEXT: &str = "code-explainer cache tags, version 1";

/// What an answer can be selected by. Keyed hashes of 64 bits, because they show in the names of a Redis that others may
/// read: who does not know the installation's secret learns from them only that two answers have something in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tags {
    tenant: Tag,
    language: Tag,
    strategy: Tag,
}

/// Two different texts have the same tag by chance about once in 2^32 texts; then an answer too many is cleared.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag([u8; 8]);

/// Some of the answers in the cache: those that agree in everything that is given here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    tenant: Option<Tag>,
    language: Option<Tag>,
    strategy: Option<Tag>,
}

/// The hashes' key, which costs as much as one of them.
struct Tagger([u8; blake3::KEY_LEN]);

impl Tagger {
    fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key(TAG_CONTEXT, secret))
    }

    fn tag(&self, kind: u8, text: &[u8]) -> Tag {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[kind]).update(text);
        let mut tag = [0; 8];
        hasher.finalize_xof().fill(&mut tag);
        Tag(tag)
    }

    fn tenant(&self, salt: &[u8]) -> Tag {
        self.tag(0, salt)
    }

    fn language(&self, name: &str) -> Tag {
        self.tag(1, name.as_bytes())
    }

    fn strategy(&self, name: &str) -> Tag {
        self.tag(2, name.as_bytes())
    }
}

impl Tags {
    pub(super) fn new(secret: &[u8], salt: &[u8], language: &str, strategy: &str) -> Self {
        let tagger = Tagger::new(secret);
        Self {
            tenant: tagger.tenant(salt),
            language: tagger.language(language),
            strategy: tagger.strategy(strategy),
        }
    }
}

impl Tags {
    /// Whose share of the memory it takes.
    pub(super) fn owner(&self) -> Owner {
        u64::from_le_bytes(self.tenant.0)
    }
}

impl fmt::Display for Tags {
    /// Part of a name in Redis.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.tenant, self.language, self.strategy)
    }
}

impl Selection {
    /// Those of a tenant, known by its salt, of a language and of a strategy; `None` is any.
    ///
    /// `secret` is the installation's, as in [`KeyParts`](super::KeyParts).
    pub fn new(
        secret: &[u8],
        salt: Option<&[u8]>,
        language: Option<&str>,
        strategy: Option<&str>,
    ) -> Self {
        let tagger = Tagger::new(secret);
        Self {
            tenant: salt.map(|salt| tagger.tenant(salt)),
            language: language.map(|name| tagger.language(name)),
            strategy: strategy.map(|name| tagger.strategy(name)),
        }
    }

    /// Whether an answer of this key is one of them.
    pub fn contains(&self, key: &super::CacheKey) -> bool {
        let tags = key.tags();
        let agrees = |wanted: Option<Tag>, tag| wanted.is_none_or(|wanted| wanted == tag);
        agrees(self.tenant, tags.tenant)
            && agrees(self.language, tags.language)
            && agrees(self.strategy, tags.strategy)
    }
}

impl fmt::Display for Selection {
    /// As [`Tags`], for Redis's `MATCH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for tag in [self.tenant, self.language, self.strategy] {
            f.write_str(separator)?;
            match tag {
                Some(tag) => tag.fmt(f)?,
                None => f.write_str("*")?,
            }
            separator = ":";
        }
        Ok(())
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_written_as_the_names_that_it_means() {
        let tags = Tags::new(b"secret", b"salt", "rust", "vanilla").to_string();
        let all = Selection::new(b"secret", Some(b"salt"), Some("rust"), Some("vanilla"));
        assert_eq!(all.to_string(), tags);
        let rust = Selection::new(b"secret", None, Some("rust"), None).to_string();
        assert_eq!(rust, format!("*:{}:*", &tags[17..33]));
        assert_eq!(Selection::default().to_string(), "*:*:*");
    }

    #[test]
    fn tags_are_told_apart_by_kind_and_by_secret() {
        let tags = Tags::new(b"secret", b"same", "same", "same");
        assert_ne!(tags.tenant, tags.language);
        assert_ne!(tags.language, tags.strategy);
        assert_ne!(tags, Tags::new(b"another", b"same", "same", "same"));
    }
}
