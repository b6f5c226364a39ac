//! How reference data writes token ids.

/// Token ids of three base-64 digits each.
pub(crate) fn unpack(packed: &str) -> Vec<u32> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let number = |digits: &[u8]| {
        digits
            .iter()
            .fold(0, |n, &byte| n << 6 | u32::from(digit(byte)))
    };
    packed.as_bytes().chunks(3).map(number).collect()
}

/// FNV-1a over the ids as little-endian bytes, in hexadecimal.
pub(crate) fn hash(ids: &[u32]) -> String {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    let step = |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    format!("{:08x}", bytes.fold(0x811C_9DC5, step))
}
