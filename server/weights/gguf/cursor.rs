//! A reader of little-endian values that knows what it is reading, for messages.

use super::error::GgufError;

/// Position in a byte slice. Every read checks what is left first.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    place: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], place: &str) -> Self {
        Self {
            bytes,
            at: 0,
            place: place.to_owned(),
        }
    }

    /// Names what is read next.
    pub(super) fn enter(&mut self, place: String) {
        self.place = place;
    }

    pub(super) fn place(&self) -> String {
        self.place.clone()
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, needed: u64) -> Result<&'a [u8], GgufError> {
        let available = self.left();
        let fitting = usize::try_from(needed).ok().filter(|&n| n <= available);
        let Some(n) = fitting else {
            return Err(GgufError::Truncated {
                place: self.place(),
                offset: self.at,
                needed,
                available,
            });
        };
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, GgufError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, GgufError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool, GgufError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(GgufError::Bool {
                place: self.place(),
                found,
            }),
        }
    }

    pub(super) fn string(&mut self) -> Result<&'a str, GgufError> {
        let length = self.u64()?;
        let offset = self.at;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|e| GgufError::NotUtf8 {
            place: self.place(),
            offset: offset + e.valid_up_to(),
        })
    }

    /// A 64-bit count of things that take at least `smallest` bytes each: believed only if they fit what is left.
    pub(super) fn count(
        &mut self,
        what: &'static str,
        smallest: usize,
    ) -> Result<usize, GgufError> {
        let count = self.u64()?;
        self.fits(count, what, smallest)
    }

    pub(super) fn fits(
        &self,
        count: u64,
        what: &'static str,
        smallest: usize,
    ) -> Result<usize, GgufError> {
        let available = self.left();
        let most = available / smallest;
        usize::try_from(count)
            .ok()
            .filter(|&n| n <= most)
            .ok_or_else(|| GgufError::TooMany {
                place: self.place(),
                what,
                count,
                available,
                most,
            })
    }
}
