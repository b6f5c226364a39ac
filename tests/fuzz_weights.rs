//! Mutated model files never make the readers panic or allocate out of proportion.
//!
//! Deterministic: 20,000 mutations of each kind by default. `CODE_EXPLAINER_FUZZ_SECONDS=60` goes on for so long, with
//! the next mutations of the same sequence. The targets under `fuzz/` do the same guided by coverage.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use code_explainer_engine::Backend;
use code_explainer_engine_native::kernels::quantized_weights::LAYOUT;
use code_explainer_weights::gguf::{self, GgufModel};
use code_explainer_weights::huggingface::canonical_table;
use code_explainer_weights::packed::table::Entry;
use code_explainer_weights::packed::{FILE, Table};
use code_explainer_weights::{
    Architecture, Array, DType, Gguf, ModelConfig, SafetensorsTable, Value, validate,
};

use crate::common::model_files::{TinyModel, safetensors};
use crate::common::packed::{PRELUDE, Parts, load_packed, packed, seal};
use crate::common::random::{Random, rounds};

const INPUTS: u64 = 20_000;

/// Says which input it was, should one make a reader panic.
struct Input(u64);

impl Drop for Input {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("input number {}", self.0);
        }
    }
}

/// Reads mutations of `seeds`, one to six changes each; gives back how many of them were read to the end.
fn fuzz(seeds: &[Vec<u8>], read: impl Fn(&[u8], u64) -> bool) -> u64 {
    for (number, seed) in seeds.iter().enumerate() {
        assert!(
            read(seed, number as u64),
            "seed {number} itself is not read"
        );
    }
    let mut good = 0;
    for number in rounds(INPUTS) {
        let input = Input(number);
        let mut random = Random(number);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            mutate(&mut bytes, &mut random, seeds);
        }
        good += u64::from(read(&bytes, number));
        drop(input);
    }
    good
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>]) {
    // Headers and tables lie in front; that is where most changes belong.
    let region = match random.below(4) {
        0 => bytes.len(),
        1 => bytes.len().min(200),
        _ => bytes.len().min(16_000),
    };
    let at = random.below(region);
    match random.below(7) {
        0 => bytes.truncate(at),
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        3 => {
            // A length, count, size or offset that lies.
            let small = random.next() % 300;
            let values = [
                0,
                1,
                small,
                1 << 31,
                u32::MAX.into(),
                1 << 60,
                1 << 63,
                u64::MAX - small,
            ];
            let value = values[random.below(values.len())].to_le_bytes();
            let width = if random.below(2) == 0 { 4 } else { 8 };
            if let Some(field) = bytes.get_mut(at..at + width) {
                field.copy_from_slice(&value[..width]);
            }
        }
        4 => {
            let end = (at + random.below(64)).min(bytes.len());
            bytes.drain(at.min(end)..end);
        }
        5 => {
            let from = &seeds[random.below(seeds.len())];
            let start = random.below(from.len());
            let piece = &from[start..(start + random.below(64)).min(from.len())];
            let at = at.min(bytes.len());
            bytes.splice(at..at, piece.iter().copied());
        }
        _ => {
            // JSON and text: a digit becomes another.
            let digit = bytes.iter().skip(at).position(u8::is_ascii_digit);
            if let Some(offset) = digit {
                bytes[at + offset] = b'0' + (random.next() % 10) as u8;
            }
        }
    }
}

fn tiny(architecture: Architecture, dtype: DType) -> TinyModel {
    let model = TinyModel::new(architecture).with_dtype(dtype);
    TinyModel {
        layers: 1,
        hidden: 32,
        intermediate: 32,
        ..model
    }
}

/// Bytes that a metadata array holds.
fn footprint(array: &Array) -> usize {
    match array {
        Array::Bools(values) => values.len(),
        Array::Floats(values) => 4 * values.len(),
        Array::Integers(values) => 8 * values.len(),
        Array::U64(values) => 8 * values.len(),
        Array::Strings(values) => values.iter().map(|s| s.len() + size_of::<usize>()).sum(),
        Array::Arrays(values) => values
            .iter()
            .map(|a| footprint(a) + size_of::<Array>())
            .sum(),
    }
}

#[test]
fn fuzz_gguf_files() {
    let seeds: Vec<_> = [
        (Architecture::Llama, DType::Q4_1),
        (Architecture::Qwen2, DType::Q8_0),
        (Architecture::Gpt2, DType::F16),
    ]
    .map(|(architecture, dtype)| tiny(architecture, dtype).gguf().to_bytes())
    .into();
    let good = fuzz(&seeds, |bytes, _| {
        if let Ok(gguf) = Gguf::parse(bytes) {
            let arrays = gguf.metadata.iter().filter_map(|(_, value)| match value {
                Value::Array(array) => Some(footprint(array)),
                _ => None,
            });
            assert!(
                arrays.sum::<usize>() <= 8 * bytes.len(),
                "metadata larger than its file"
            );
            assert!(gguf.metadata.len() + gguf.tensors.len() <= bytes.len() / 14);
        }
        let Ok(GgufModel {
            config,
            tensors,
            parameters,
            ..
        }) = gguf::read_model(bytes, Path::new("fuzz"))
        else {
            return false;
        };
        let mut elements = 0;
        for (name, _) in tensors.iter() {
            elements += tensors
                .view(name, bytes)
                .expect("it lies in the file")
                .to_f32()
                .len();
        }
        assert!(elements as u64 >= parameters && elements <= 2 * bytes.len());
        assert!(config.inverse_frequencies(None).len() * 2 == config.rotary_dim);
        true
    });
    assert!(
        good > 100,
        "only {good} mutations were read to the end: nothing behind the header is tried"
    );
}

#[test]
fn fuzz_safetensors_files() {
    let models = Architecture::ALL.map(|architecture| tiny(architecture, DType::F16));
    let configs = models.each_ref().map(|model| {
        let json = model.config_json().to_string();
        ModelConfig::from_hugging_face(json.as_bytes()).expect("a good configuration")
    });
    let seeds = models
        .each_ref()
        .map(|model| safetensors::to_bytes(&model.safetensors()));
    let good = fuzz(&seeds, |bytes, _| {
        let Ok(table) = SafetensorsTable::parse(bytes) else {
            return false;
        };
        let files = [(PathBuf::from("fuzz"), table)];
        configs.iter().any(|config| {
            let Ok(tensors) = canonical_table(config, &files) else {
                return false;
            };
            for (name, _) in tensors.iter() {
                let view = tensors.view(name, bytes).expect("it lies in the file");
                assert_eq!(view.to_f32().len(), view.len());
            }
            validate(config, &tensors, Path::new("fuzz")).is_ok()
        })
    });
    assert!(
        good > 100,
        "only {good} mutations were read to the end: nothing behind the header is tried"
    );
}

#[test]
fn fuzz_hugging_face_configurations() {
    let seeds = Architecture::ALL.map(|architecture| {
        TinyModel::new(architecture)
            .config_json()
            .to_string()
            .into_bytes()
    });
    let good = fuzz(&seeds, |bytes, _| {
        let Ok(config) = ModelConfig::from_hugging_face(bytes) else {
            return false;
        };
        assert!(
            config.heads.is_multiple_of(config.kv_heads) && config.rotary_dim <= config.head_dim
        );
        assert!(config.context_length > 0 && config.norm_eps.is_finite());
        config.with_generation_config(bytes).is_ok()
    });
    assert!(good > 100, "only {good} mutations were read to the end");
}

/// Tables whose checksum is right, whatever they say, over good data; those that can be true are loaded.
#[test]
fn fuzz_tables_of_packed_models() {
    let models: Vec<_> = Architecture::ALL
        .map(|architecture| {
            let source = tempfile::tempdir().expect("a directory");
            tiny(architecture, DType::F32).write_hugging_face(source.path(), 1);
            packed(source.path(), 4)
        })
        .into();
    let parts: Vec<Parts> = models.iter().map(|m| Parts::read(m.path())).collect();
    let seeds: Vec<_> = parts
        .iter()
        .map(|p| p.table.to_string().into_bytes())
        .collect();
    let loaded = AtomicU64::new(0);
    let good = fuzz(&seeds, |json, _| {
        let mut good = false;
        for (model, parts) in models.iter().zip(&parts) {
            if Table::parse(json, &parts.data).is_err() {
                continue;
            }
            good = true;
            std::fs::write(model.path().join(FILE), seal(&parts.data, json)).expect("written");
            if let Ok(backend) = load_packed(model.path()) {
                loaded.fetch_add(1, Ordering::Relaxed);
                assert!(backend.info().weights_bytes <= 2 * parts.data.len() as u64);
            }
        }
        good
    });
    let loaded = loaded.into_inner();
    println!("{good} tables were read, {loaded} loaded");
    assert!(
        good > 100 && loaded > 10,
        "{good} tables were read, {loaded} loaded"
    );
}

/// Whole files, from their magic on.
#[test]
fn fuzz_packed_files() {
    let seeds: Vec<_> = Architecture::ALL
        .map(|architecture| {
            let source = tempfile::tempdir().expect("a directory");
            tiny(architecture, DType::F32).write_hugging_face(source.path(), 1);
            std::fs::read(packed(source.path(), 8).path().join(FILE)).expect("read")
        })
        .into();
    let good = fuzz(&seeds, |bytes, _| {
        let Ok(table) = Table::read(bytes, LAYOUT) else {
            return false;
        };
        let end =
            |s: &Entry| PRELUDE as u64 <= s.offset && s.offset + s.length <= bytes.len() as u64;
        assert!(table.sections.iter().all(end));
        true
    });
    assert!(good > 100, "only {good} mutations were read to the end");
}
