//! Packed models of tiny ones, and packed files taken apart and put together again with right checksums.

use std::fs;
use std::path::Path;

use code_explainer_engine::{
    BlockId, CpuShare, DeviceSpec, EngineError, EngineKind, EngineOptions, Precision, SequenceStep,
    StepPlan,
};
use code_explainer_engine_native::kernels::quantized_weights::LAYOUT;
use code_explainer_engine_native::{NativeBackend, load, open_packed, pack};
use code_explainer_weights::Checkpoint;
use code_explainer_weights::packed::{FILE, FORMAT, MAGIC};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes before the first section.
pub(crate) const PRELUDE: usize = 64;

/// The checkpoint at `path`, packed.
pub(crate) fn packed(path: &Path, bits: u32) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let checkpoint = Checkpoint::open(path).expect("a good model");
    pack(&checkpoint, bits, directory.path(), |_| ()).expect("packed");
    directory
}

/// For the native engine, on one thread, with room for 128 tokens.
pub(crate) fn options(precision: Option<Precision>) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Native,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision,
        kv_precision: None,
        kv_cache_tokens: 128,
        block_tokens: 16,
        threads: 1,
    }
}

/// Opens and loads a packed model.
pub(crate) fn load_packed(directory: &Path) -> Result<NativeBackend, EngineError> {
    load(&open_packed(directory)?, &options(None))
}

/// The bits of the logits of all tokens.
pub(crate) fn logits(backend: &mut NativeBackend, tokens: &[u32]) -> Vec<u32> {
    let blocks: Vec<BlockId> = (0..8).collect();
    let step = SequenceStep {
        tokens,
        past: 0,
        blocks: &blocks,
        sample: None,
    };
    let logits = backend.logits(&StepPlan { sequences: &[step] });
    logits
        .expect("logits")
        .iter()
        .map(|x| x.to_bits())
        .collect()
}

/// A packed file, taken apart.
pub(crate) struct Parts {
    /// All before the table.
    pub(crate) data: Vec<u8>,
    pub(crate) table: Value,
}

impl Parts {
    pub(crate) fn read(directory: &Path) -> Self {
        let file = fs::read(directory.join(FILE)).expect("a packed file");
        let at = u64::from_ne_bytes(file[16..24].try_into().expect("8 bytes")) as usize;
        Self {
            table: serde_json::from_slice(&file[at..]).expect("JSON"),
            data: file[..at].to_vec(),
        }
    }

    /// Writes it with checksums that are right for what it is now.
    pub(crate) fn write(&mut self, directory: &Path) {
        let sections = self.table["sections"].as_array_mut().expect("sections");
        for section in sections {
            let range = section["offset"].as_u64().zip(section["length"].as_u64());
            let (start, length) = range.expect("numbers");
            let end = start.saturating_add(length) as usize;
            if let Some(bytes) = self.data.get(start as usize..end) {
                section["checksum"] = blake3::hash(bytes).to_hex().as_str().into();
            }
        }
        let file = seal(&self.data, self.table.to_string().as_bytes());
        fs::write(directory.join(FILE), file).expect("written");
    }
}

/// A whole file of data (whose first bytes become the prelude) and a table.
pub(crate) fn seal(data: &[u8], table: &[u8]) -> Vec<u8> {
    let checksum = blake3::hash(table);
    let prelude = [
        &MAGIC[..],
        &FORMAT.to_ne_bytes(),
        &LAYOUT.to_ne_bytes(),
        &(data.len() as u64).to_ne_bytes(),
        &(table.len() as u64).to_ne_bytes(),
        checksum.as_bytes(),
    ];
    [&prelude.concat(), &data[PRELUDE..], table].concat()
}
