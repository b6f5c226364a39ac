//! SmolLM2's tokenizer and chat template, loaded once for all tests, and how reference data writes
//! token ids.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use code_explainer::text::Text;
use code_explainer::weights::Checkpoint;

/// Where `make setup` puts the model, or the user has it.
pub(crate) fn model_path() -> PathBuf {
    let path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::env::var_os("CODE_EXPLAINER_MODEL").map_or_else(default, PathBuf::from)
}

pub(crate) fn checkpoint() -> &'static Checkpoint {
    static CHECKPOINT: OnceLock<Checkpoint> = OnceLock::new();
    CHECKPOINT.get_or_init(|| {
        Checkpoint::open(&model_path()).unwrap_or_else(|e| panic!("{e} (`make setup` gets it)"))
    })
}

pub(crate) fn text() -> &'static Arc<Text> {
    static TEXT: OnceLock<Arc<Text>> = OnceLock::new();
    TEXT.get_or_init(|| Arc::new(Text::from_checkpoint(checkpoint()).expect("a usable tokenizer")))
}

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
