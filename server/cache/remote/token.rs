//! A lease as a value of Redis: who makes an answer, and a sign of life.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::codec::BrokenValue;
use crate::key::CacheKey;
use crate::mac::{MacKey, Purpose};

/// What a lease begins with, where an answer begins otherwise.
const MARK: &[u8; 4] = b"CXLE";
/// Hexadecimal digits of a token.
const TOKEN_DIGITS: usize = 32;
/// What says whose lease it is, and stays the same while it is renewed: the mark and the token.
const HOLDER_BYTES: usize = MARK.len() + TOKEN_DIGITS;
/// Bytes of a lease: the holder, the beat, the period, and the code of all three.
pub(super) const LEASE_BYTES: usize = HOLDER_BYTES + 2 * size_of::<u64>() + MacKey::BYTES;

/// Tells one holder of a lease from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token(u128);

impl Token {
    /// 128 bits that no other replica has: the standard library keys its hashers from the system's random numbers.
    pub(super) fn random() -> Self {
        let half = || u128::from(RandomState::new().hash_one(0_u8));
        Self(half() << 64 | half())
    }

    /// The first [`HOLDER_BYTES`] of its leases.
    pub(super) fn holder(self) -> Vec<u8> {
        [MARK.as_slice(), self.to_string().as_bytes()].concat()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What lies in an answer's place while a replica makes it.
///
/// The beat grows with each renewal. Redis ends a lease that is not renewed; but who can write to Redis can put an old one
/// back for ever, and its beat stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) token: Token,
    pub(super) beat: u64,
    /// The time in which it is renewed, or ends; whole milliseconds.
    pub(super) period: Duration,
}

impl Lease {
    /// As a value in the place of the answer of `key`.
    pub(super) fn value(self, mac: &MacKey, key: &CacheKey) -> Vec<u8> {
        let mut value = self.token.holder();
        let period = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        value.extend_from_slice(&self.beat.to_le_bytes());
        value.extend_from_slice(&period.to_le_bytes());
        let code = mac.code(Purpose::Lease, key, &[&value]);
        value.extend_from_slice(code.as_bytes());
        value
    }

    /// `None`: the value is no lease.
    ///
    /// # Errors
    /// It looks like one, and no replica with our secret has put it there.
    pub(super) fn read(
        mac: &MacKey,
        key: &CacheKey,
        value: &[u8],
    ) -> Result<Option<Self>, BrokenValue> {
        if !value.starts_with(MARK) {
            return Ok(None);
        }
        let read = || {
            let (stated, code) = value.split_last_chunk::<{ MacKey::BYTES }>()?;
            (mac.code(Purpose::Lease, key, &[stated]) == *code).then_some(())?;
            let (stated, period) = stated.split_last_chunk()?;
            let (holder, beat) = stated.split_last_chunk()?;
            let digits = std::str::from_utf8(holder.strip_prefix(MARK)?).ok()?;
            (digits.len() == TOKEN_DIGITS).then_some(())?;
            Some(Self {
                token: Token(u128::from_str_radix(digits, 16).ok()?),
                beat: u64::from_le_bytes(*beat),
                period: Duration::from_millis(u64::from_le_bytes(*period)),
            })
        };
        read().map(Some).ok_or(BrokenValue::Mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyParts;

    fn key(code: &[u8]) -> CacheKey {
        CacheKey::new(&KeyParts {
            code,
            ..KeyParts::default()
        })
    }

    #[test]
    fn a_lease_is_read_in_its_place_with_its_secret_alone() {
        let (mac, other) = (MacKey::new(b"secret"), MacKey::new(b"another"));
        let lease = Lease {
            token: Token::random(),
            beat: 7,
            period: Duration::from_secs(3),
        };
        let value = lease.value(&mac, &key(b"a"));
        assert_eq!(value.len(), LEASE_BYTES);
        assert_eq!(value[..HOLDER_BYTES], lease.token.holder());
        let read = |mac, place, value: &[u8]| Lease::read(mac, &key(place), value).ok().flatten();
        assert_eq!(read(&mac, b"a", &value), Some(lease));
        assert_eq!(read(&mac, b"b", &value), None);
        assert_eq!(read(&other, b"a", &value), None);
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert_eq!(read(&mac, b"a", &changed), None, "byte {at}");
            assert_eq!(read(&mac, b"a", &value[..at]), None, "{at} bytes");
        }
    }
}
