//! One model in every format and type reads as the same tensors.

use std::path::Path;

use code_explainer_weights::{Architecture, Checkpoint, DType, Layout};

use crate::common::model_files::{TinyModel, TinyTensor};

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}"))
}

/// The checkpoint has exactly the model's tensors, each within `tolerance` of the formula.
#[track_caller]
fn check_tensors(checkpoint: &Checkpoint, model: &TinyModel, tolerance: f32) {
    let mut parameters = 0;
    for TinyTensor {
        name,
        shape,
        values,
    } in model.tensors()
    {
        let tensor = checkpoint.tensor(&name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(tensor.shape, shape, "{name}");
        let off = tensor
            .to_f32()
            .iter()
            .zip(&values)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(off <= tolerance, "{name} is off by {off}");
        parameters += values.len() as u64;
    }
    assert_eq!(checkpoint.parameters(), parameters);
    assert_eq!(checkpoint.tensor_names().count(), model.tensors().len());
    assert_eq!(checkpoint.has_tensor("output.weight"), !model.tied_head);
    assert!(!checkpoint.has_tensor("blk.2.attn_norm.weight"));
}

#[test]
fn a_gguf_file_of_each_architecture_and_type() {
    let directory = tempfile::tempdir().expect("a directory");
    let types = [
        (DType::F32, 0.0),
        (DType::F16, 1e-4),
        (DType::BF16, 1e-3),
        (DType::Q8_0, 1.2e-3),
        (DType::Q4_0, 3.5e-2),
        (DType::Q4_1, 1.8e-2),
    ];
    for architecture in Architecture::ALL {
        for (dtype, tolerance) in types {
            let model = TinyModel::new(architecture).with_dtype(dtype);
            // Neither an extension nor the name says what the file is.
            let path = directory.path().join(format!("{architecture}-{dtype}"));
            model.write_gguf(&path);
            let checkpoint = open(&path);
            check_tensors(&checkpoint, &model, tolerance);
            assert_eq!(checkpoint.name(), "Tiny");
            assert!(checkpoint.directory().is_none());
            assert_eq!(
                checkpoint
                    .tensor("blk.0.ffn_up.weight")
                    .expect("it is")
                    .dtype,
                dtype
            );
        }
    }
}

#[test]
fn a_hugging_face_directory_of_each_architecture_in_one_file_and_in_shards() {
    for architecture in Architecture::ALL {
        for (dtype, tolerance) in [(DType::F32, 0.0), (DType::F16, 5e-4), (DType::BF16, 4e-3)] {
            for shards in [1, 3] {
                let directory = tempfile::tempdir().expect("a directory");
                let model = TinyModel::new(architecture).with_dtype(dtype);
                model.write_hugging_face(directory.path(), shards);
                let checkpoint = open(directory.path());
                check_tensors(&checkpoint, &model, tolerance);
                assert_eq!(checkpoint.directory(), Some(directory.path()));
                assert!(checkpoint.gguf_metadata().is_none());
            }
        }
    }
}

#[test]
fn both_formats_give_one_configuration() {
    for architecture in Architecture::ALL {
        for model in [
            TinyModel::new(architecture),
            TinyModel::new(architecture).untied(),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            model.write_hugging_face(directory.path(), 1);
            let path = directory.path().join("model.gguf");
            model.write_gguf(&path);
            let (hugging_face, gguf) = (open(directory.path()), open(&path));
            assert_eq!(hugging_face.config(), gguf.config());
            check_tensors(&gguf, &model, 0.0);
            check_tensors(&hugging_face, &model, 0.0);

            let config = gguf.config();
            assert_eq!(config.architecture, architecture);
            assert_eq!(
                (config.layers, config.hidden, config.intermediate),
                (2, 64, 96)
            );
            assert_eq!(
                (config.heads, config.kv_heads, config.head_dim),
                (4, model.kv_heads, 16)
            );
            assert_eq!(config.vocabulary, model.vocabulary());
            assert_eq!(config.context_length, 128);
            assert_eq!(
                config.rotary_dim,
                if architecture == Architecture::Gpt2 {
                    0
                } else {
                    16
                }
            );
            assert_eq!((config.bos, &config.eos[..]), (Some(1), &[2][..]));
            assert_eq!(config.tied_head, model.tied_head);
            assert!(config.notes.is_empty());
        }
    }
}

#[test]
fn a_directory_without_index_is_read_from_every_safetensors_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let model = TinyModel::new(Architecture::Llama);
    model.write_hugging_face(directory.path(), 2);
    std::fs::remove_file(directory.path().join("model.safetensors.index.json")).expect("remove");
    check_tensors(&open(directory.path()), &model, 0.0);
}

#[test]
fn a_base_model_without_prefix_and_with_redundant_tensors() {
    use crate::common::model_files::safetensors::{Stored, to_bytes};
    for (architecture, prefix, redundant) in [
        (Architecture::Gpt2, "transformer.", "h.1.attn.bias"),
        (
            Architecture::Llama,
            "model.",
            "layers.0.self_attn.rotary_emb.inv_freq",
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let model = TinyModel::new(architecture);
        model.write_hugging_face(directory.path(), 1);
        let mut tensors = model.safetensors();
        for tensor in &mut tensors {
            tensor.name = tensor
                .name
                .strip_prefix(prefix)
                .expect("the prefix")
                .to_owned();
        }
        let extra = |name: &str| Stored {
            name: name.into(),
            dtype: "I64".into(),
            shape: vec![1],
            data: vec![0; 8],
        };
        // What nobody reads may have any type. A tied head may be stored beside the embedding.
        tensors.extend([extra(redundant), extra("lm_head.weight")]);
        std::fs::write(
            directory.path().join("model.safetensors"),
            to_bytes(&tensors),
        )
        .expect("write");
        check_tensors(&open(directory.path()), &model, 0.0);
    }
}

#[test]
fn transposed_and_interleaved_tensors_say_so() {
    let directory = tempfile::tempdir().expect("a directory");
    TinyModel::new(Architecture::Gpt2).write_hugging_face(directory.path(), 1);
    let checkpoint = open(directory.path());
    let layout = |name: &str| checkpoint.tensor(name).expect("it is").layout;
    assert_eq!(layout("blk.0.attn_qkv.weight"), Layout::Transposed);
    assert_eq!(layout("blk.0.attn_qkv.bias"), Layout::Rows);
    assert_eq!(layout("token_embd.weight"), Layout::Rows);

    let path = directory.path().join("llama.gguf");
    TinyModel::new(Architecture::Llama).write_gguf(&path);
    let checkpoint = open(&path);
    let layout = |name: &str| checkpoint.tensor(name).expect("it is").layout;
    assert_eq!(
        layout("blk.0.attn_q.weight"),
        Layout::RopeInterleaved { heads: 4 }
    );
    assert_eq!(
        layout("blk.1.attn_k.weight"),
        Layout::RopeInterleaved { heads: 2 }
    );
    assert_eq!(layout("blk.1.attn_v.weight"), Layout::Rows);
}

#[test]
fn a_llama_bias_is_interleaved_like_its_weight() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("bias.gguf");
    let mut file = TinyModel::new(Architecture::Llama).gguf();
    let stored: Vec<u8> = (0..64).flat_map(|i| (i as f32).to_le_bytes()).collect();
    for layer in 0..2 {
        file.tensor(
            &format!("blk.{layer}.attn_q.bias"),
            &[64],
            DType::F32,
            stored.clone(),
        );
    }
    std::fs::write(&path, file.to_bytes()).expect("write");
    let bias = open(&path)
        .tensor("blk.1.attn_q.bias")
        .expect("it is")
        .to_f32();
    let head: Vec<f32> = (0..8)
        .map(|j| 2 * j)
        .chain((0..8).map(|j| 2 * j + 1))
        .map(|x| x as f32)
        .collect();
    assert_eq!(bias[..16], head);
    assert_eq!(bias[16], 16.0);
}

#[test]
fn version_2_and_other_alignments_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("aligned.gguf");
    let model = TinyModel::new(Architecture::Llama).with_dtype(DType::Q4_0);
    for (version, alignment) in [(2, 32), (3, 8), (3, 4096)] {
        let mut file = model.gguf();
        (file.version, file.alignment) = (version, alignment);
        file.set(
            "general.alignment",
            crate::common::model_files::gguf::Meta::U32(alignment as u32),
        );
        std::fs::write(&path, file.to_bytes()).expect("write");
        check_tensors(&open(&path), &model, 3.5e-2);
    }
}

#[test]
fn the_digest_follows_the_bytes_and_not_the_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let model = TinyModel::new(Architecture::Qwen2);
    model.write_gguf(&at("a.gguf"));
    model.write_gguf(&at("b.gguf"));
    model.with_dtype(DType::Q8_0).write_gguf(&at("c.gguf"));
    let digest = |name: &str| open(&at(name)).digest().to_owned();
    assert_eq!(digest("a.gguf").len(), 64);
    assert_eq!(digest("a.gguf"), digest("b.gguf"));
    assert_ne!(digest("a.gguf"), digest("c.gguf"));

    let mut bytes = std::fs::read(at("a.gguf")).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(at("b.gguf"), bytes).expect("write");
    assert_ne!(digest("a.gguf"), digest("b.gguf"));
}

#[test]
fn the_digest_of_a_directory_covers_its_tokenizer() {
    let directory = tempfile::tempdir().expect("a directory");
    TinyModel::new(Architecture::Qwen2).write_hugging_face(directory.path(), 2);
    let before = open(directory.path()).digest().to_owned();
    assert_eq!(before, open(directory.path()).digest());
    let path = directory.path().join("tokenizer.json");
    let tokenizer = std::fs::read_to_string(&path)
        .expect("read")
        .replace("\"fuse_unk\":false", "\"fuse_unk\":true");
    std::fs::write(&path, tokenizer).expect("write");
    assert_ne!(before, open(directory.path()).digest());
}

#[test]
fn a_nameless_model_is_called_like_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("Little-0.1.gguf");
    let mut file = TinyModel::new(Architecture::Llama).gguf();
    file.unset("general.name");
    std::fs::write(&path, file.to_bytes()).expect("write");
    assert_eq!(open(&path).name(), "Little-0.1");

    let nested = directory.path().join("Little-HF");
    std::fs::create_dir(&nested).expect("create");
    TinyModel::new(Architecture::Llama).write_hugging_face(&nested, 1);
    assert_eq!(open(&nested).name(), "Little-HF");
}

#[test]
fn checkpoints_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Checkpoint>();
}
