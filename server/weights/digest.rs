//! A fingerprint of a model's files.

use rayon::prelude::*;

use super::file::MappedFile;

/// Files up to here are read whole.
const WHOLE: usize = 1 << 30;
/// Bytes that one task hashes.
const PIECE: usize = 1 << 20;
/// Of a larger file: how many bytes from its start (where header and tables are) and how many samples of the rest.
const HEAD: usize = 64 << 20;
const SAMPLES: usize = 4096;
const SAMPLE: usize = 16 << 10;

/// Hex BLAKE3 (64 characters) of the files.
///
/// It is the hash of, in order: for each of `small` (name, contents) the hash of the name and of the contents; for each weights file its length (64-bit little-endian), then the hashes of its pieces of 1 MiB. Of a
/// file over 1 GiB the pieces are: the first 64 MiB by 1 MiB, then 4096 samples of 16 KiB spread evenly over the rest, the
/// last one at its end. Such a digest tells models and quantizations apart, but a change of a few weights can escape it.
///
/// Files are not named, so a renamed GGUF file keeps its digest.
pub(crate) fn digest(small: &[(&str, Vec<u8>)], files: &[MappedFile]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, contents) in small {
        hasher.update(blake3::hash(name.as_bytes()).as_bytes());
        hasher.update(blake3::hash(contents).as_bytes());
    }
    for file in files {
        let bytes = file.bytes();
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        for hash in pieces(bytes, WHOLE) {
            hasher.update(hash.as_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The hashes of a file's pieces; of samples if it is longer than `whole`.
fn pieces(bytes: &[u8], whole: usize) -> Vec<blake3::Hash> {
    if bytes.len() <= whole {
        return bytes.par_chunks(PIECE).map(blake3::hash).collect();
    }
    let (head, rest) = bytes.split_at(HEAD.min(bytes.len()));
    let mut hashes: Vec<_> = head.par_chunks(PIECE).map(blake3::hash).collect();
    let last = rest.len().saturating_sub(SAMPLE);
    let samples = (0..SAMPLES).into_par_iter().map(|sample| {
        let start = (last as u128 * sample as u128 / (SAMPLES - 1) as u128) as usize;
        blake3::hash(&rest[start..rest.len().min(start + SAMPLE)])
    });
    hashes.extend(samples.collect::<Vec<_>>());
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_large_file_reach_its_first_and_last_byte() {
        let mut bytes = vec![7; HEAD + SAMPLES * SAMPLE * 2];
        let before = pieces(&bytes, 0);
        assert_eq!(before, pieces(&bytes, 0));
        for at in [0, HEAD, bytes.len() - 1] {
            bytes[at] ^= 1;
            assert_ne!(before, pieces(&bytes, 0), "byte {at} does not count");
            bytes[at] ^= 1;
        }
    }
}
