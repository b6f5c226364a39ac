//! Messages that were compressed with gzip, unpacked within bounds: a few bytes can stand for a thousand times as many.

use std::io::Read;

use flate2::read::GzDecoder;
use hyper::body::Bytes;

use crate::api::refusal::Refusal;

/// What a message may unpack to, as a multiple of its own bytes. Source code comes to a tenth of that.
const RATIO: usize = 64;
/// Whatever its own bytes, it may unpack to so many: a snippet that repeats itself is an honest one.
const ALWAYS: usize = 128 << 10;

/// The most that a message of so many bytes may unpack to, for a call that takes messages of `limit`.
pub(super) fn most(bytes: usize, limit: usize) -> usize {
    bytes.saturating_mul(RATIO).max(ALWAYS).min(limit)
}

/// The message, of [`most`] bytes at most. Nothing beyond them is unpacked.
///
/// # Errors
/// There is more, or it is no gzip.
pub(super) fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let most = most(packed.len(), limit);
    // One byte more tells that there is more.
    let mut source = GzDecoder::new(packed).take(most as u64 + 1);
    // All at once: a list that grows is there twice for a moment.
    let mut message = Vec::with_capacity(most + 1);
    (source.read_to_end(&mut message)).map_err(|_| Refusal::Unreadable)?;
    match message.len() {
        length if length <= most => Ok(message.into()),
        _ if most == limit => Err(Refusal::TooLarge {
            bytes: most + 1,
            limit,
        }),
        _ => Err(Refusal::Inflates { most }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 4 << 20;

    fn packed(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(message).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn a_message_may_unpack_to_so_much_and_no_more() {
        let repeated = |bytes: usize| packed(&vec![b'x'; bytes]);
        let length = |bytes: usize, limit| unpack(&repeated(bytes), limit).map(|m| m.len());
        assert_eq!(length(ALWAYS, LIMIT), Ok(ALWAYS));
        assert_eq!(
            length(ALWAYS + 1, LIMIT),
            Err(Refusal::Inflates { most: ALWAYS })
        );
        assert_eq!(length(1000, 1000), Ok(1000));
        let (bytes, limit) = (1001, 1000);
        assert_eq!(length(1001, 1000), Err(Refusal::TooLarge { bytes, limit }));
        // What is hard to compress may have all that a call takes.
        let noise: Vec<u8> = (0..LIMIT as u64)
            .map(|n| (n.wrapping_mul(n).wrapping_mul(n) >> 7) as u8)
            .collect();
        assert_eq!(unpack(&packed(&noise), LIMIT), Ok(noise.into()));
    }

    #[test]
    fn what_is_no_gzip_is_refused() {
        let good = packed(b"a message");
        for bad in [&b""[..], b"x", &good[..good.len() - 1], &good[1..]] {
            assert_eq!(unpack(bad, LIMIT), Err(Refusal::Unreadable));
        }
    }

    proptest! {
        #[test]
        fn any_message_comes_back(message in prop::collection::vec(any::<u8>(), 0..4000)) {
            prop_assert_eq!(unpack(&packed(&message), LIMIT), Ok(message.into()));
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            for packed in [bytes.clone(), [&head[..], &bytes].concat()] {
                if let Ok(message) = unpack(&packed, LIMIT) {
                    prop_assert!(message.len() <= most(packed.len(), LIMIT));
                }
            }
        }
    }
}
