//! Configurations: the dialects of `config.json`, GGUF metadata, rotary scaling, windows and stop tokens.

use code_explainer_weights::{
    Activation, Architecture, Checkpoint, DType, Gguf, ModelConfig, RopeScaling,
};
use serde_json::{Value, json};

use crate::common::model_files::TinyModel;
use crate::common::model_files::gguf::Meta;

/// The tiny model's `config.json` with `changes`; `null` stands for itself.
fn hugging_face(architecture: Architecture, changes: Value) -> ModelConfig {
    let mut config = TinyModel::new(architecture).config_json();
    for (key, value) in changes.as_object().expect("an object") {
        config[key] = value.clone();
    }
    ModelConfig::from_hugging_face(config.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

fn gguf(architecture: Architecture, changes: &[(&str, Meta)]) -> ModelConfig {
    let mut file = TinyModel::new(architecture).gguf();
    changes
        .iter()
        .for_each(|(key, value)| file.set(key, value.clone()));
    let gguf = Gguf::parse(&file.to_bytes()).unwrap_or_else(|e| panic!("{e}"));
    ModelConfig::from_gguf(&gguf).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn check_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found / expected - 1.0).abs() < 2e-7,
            "{found} is not {expected}"
        );
    }
}

#[test]
fn a_window_narrower_than_the_context_clamps_it_and_says_so() {
    let changes = json!({"model_type": "mistral", "sliding_window": 100});
    let config = hugging_face(Architecture::Llama, changes);
    assert_eq!(
        (config.sliding_window, config.context_length),
        (Some(100), 100)
    );
    assert_eq!(config.notes.len(), 1);
    assert!(
        config.notes[0].starts_with("context length clamped from 128 to 100"),
        "{:?}",
        config.notes
    );

    let config = gguf(
        Architecture::Llama,
        &[("llama.attention.sliding_window", Meta::U32(64))],
    );
    assert_eq!((config.context_length, config.notes.len()), (64, 1));
}

#[test]
fn a_window_that_is_off_or_wide_changes_nothing() {
    let mistral = |window: Value| {
        hugging_face(
            Architecture::Llama,
            json!({"model_type": "mistral", "sliding_window": window}),
        )
    };
    assert_eq!(mistral(Value::Null).sliding_window, None);
    let wide = mistral(json!(4096));
    assert_eq!(
        (wide.sliding_window, wide.context_length),
        (Some(4096), 128)
    );
    assert!(wide.notes.is_empty());
    // Without the key transformers takes 4096.
    let silent = hugging_face(Architecture::Llama, json!({"model_type": "mistral"}));
    assert_eq!(silent.sliding_window, Some(4096));

    let off = json!({"sliding_window": 16, "use_sliding_window": false});
    assert_eq!(hugging_face(Architecture::Qwen2, off).context_length, 128);
    let on = json!({"sliding_window": 16, "use_sliding_window": true});
    assert_eq!(hugging_face(Architecture::Qwen2, on).context_length, 16);
}

#[test]
fn stop_tokens_come_from_both_files_once_each() {
    let config = hugging_face(Architecture::Llama, json!({"eos_token_id": [2, 0]}));
    assert_eq!(config.eos, [2, 0]);
    let more = config
        .with_generation_config(br#"{"eos_token_id": [0, 5]}"#)
        .expect("good");
    assert_eq!(more.eos, [2, 0, 5]);
    let none = hugging_face(
        Architecture::Llama,
        json!({"eos_token_id": null, "bos_token_id": null}),
    );
    assert_eq!((none.bos, none.eos), (None, vec![]));

    let eot = [
        ("tokenizer.ggml.eot_token_id", Meta::U32(7)),
        ("tokenizer.ggml.eom_token_id", Meta::U32(2)),
    ];
    assert_eq!(gguf(Architecture::Llama, &eot).eos, [2, 7]);
}

#[test]
fn stop_tokens_outside_the_vocabulary_are_noted() {
    let config = hugging_face(
        Architecture::Gpt2,
        json!({"eos_token_id": 50256, "bos_token_id": 50256}),
    );
    assert_eq!((config.bos, config.eos), (None, vec![]));
    assert_eq!(
        config.notes,
        [
            "begin- or end-of-sequence tokens [50256, 50256] ignored: the vocabulary has only 272 tokens"
        ]
    );
}

#[test]
fn a_stop_token_of_minus_one_is_none() {
    let none = hugging_face(
        Architecture::Llama,
        json!({"eos_token_id": -1, "bos_token_id": -1}),
    );
    assert_eq!((none.bos, none.eos, none.notes.len()), (None, vec![], 0));
    let some = hugging_face(Architecture::Llama, json!({"eos_token_id": [-1, 2]}));
    assert_eq!(some.eos, [2]);
    let none = [(
        "tokenizer.ggml.eos_token_id",
        Meta::Raw(5, (-1i32).to_le_bytes().to_vec()),
    )];
    assert!(gguf(Architecture::Llama, &none).eos.is_empty());
}

#[test]
fn a_configuration_is_read_as_python_reads_it() {
    let plain = TinyModel::new(Architecture::Llama)
        .config_json()
        .to_string();
    let expected = ModelConfig::from_hugging_face(plain.as_bytes());
    let expected = expected.unwrap_or_else(|e| panic!("{e}"));
    let more = plain.trim_start_matches('{');
    let python = format!(
        "\u{feff}{{\"router_jitter_noise\": NaN, \"limits\": [Infinity, -Infinity], {more}"
    );
    let found = ModelConfig::from_hugging_face(python.as_bytes());
    assert_eq!(found.unwrap_or_else(|e| panic!("{e}")), expected);
    let broken = plain.replacen(':', ": NaN NaN", 1);
    ModelConfig::from_hugging_face(broken.as_bytes()).expect_err("no JSON");
}

#[test]
fn a_factor_of_rotation_without_its_type_is_not_ignored() {
    let key = "llama.rope.scaling.factor";
    for (factor, expected) in [
        (4.0, RopeScaling::Linear { factor: 4.0 }),
        (0.0, RopeScaling::None),
    ] {
        let found = gguf(Architecture::Llama, &[(key, Meta::F32(factor))]);
        assert_eq!(found.rope_scaling, expected);
    }
    for (name, changes) in [
        ("factor", json!({"rope_scaling": {"factor": 4.0}})),
        (
            "full_attention",
            json!({"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}}),
        ),
    ] {
        let mut config = TinyModel::new(Architecture::Llama).config_json();
        for (key, value) in changes.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let refused = ModelConfig::from_hugging_face(config.to_string().as_bytes());
        let message = refused.expect_err("it means something").to_string();
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn activations_have_their_names() {
    for (name, expected) in [
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu", Activation::Gelu),
        ("silu", Activation::Silu),
    ] {
        let config = hugging_face(Architecture::Gpt2, json!({"activation_function": name}));
        assert_eq!(config.activation, expected);
    }
    assert_eq!(
        gguf(Architecture::Gpt2, &[]).activation,
        Activation::GeluTanh
    );
    assert_eq!(gguf(Architecture::Qwen2, &[]).activation, Activation::Silu);
}

#[test]
fn sizes_that_are_not_written_follow_from_the_others() {
    let config = hugging_face(Architecture::Gpt2, json!({"n_inner": null}));
    assert_eq!(config.intermediate, 256);
    let config = hugging_face(Architecture::Llama, json!({"num_key_value_heads": null}));
    assert_eq!(config.kv_heads, 4);
    let config = hugging_face(Architecture::Qwen2, json!({"head_dim": 32}));
    assert_eq!((config.head_dim, config.rotary_dim), (32, 32));
}

#[test]
fn both_versions_of_transformers_write_one_rotary_embedding() {
    let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let expected = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    let four = hugging_face(
        Architecture::Llama,
        json!({"rope_theta": 5e5, "rope_scaling": llama3}),
    );
    let mut five = llama3;
    five["rope_theta"] = json!(5e5);
    let five = hugging_face(
        Architecture::Llama,
        json!({"rope_theta": null, "rope_parameters": five}),
    );
    assert_eq!((four.rope_theta, four.rope_scaling), (5e5, expected));
    assert_eq!(four, five);

    let plain =
        json!({"rope_theta": null, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}});
    let plain = hugging_face(Architecture::Llama, plain);
    assert_eq!(
        (plain.rope_theta, plain.rope_scaling),
        (7.0, RopeScaling::None)
    );
    let linear = json!({"rope_scaling": {"type": "linear", "factor": 4}});
    let linear = hugging_face(Architecture::Llama, linear);
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 4.0 });

    let keys = [
        ("llama.rope.scaling.type", Meta::str("linear")),
        ("llama.rope.scaling.factor", Meta::F32(4.0)),
    ];
    assert_eq!(
        gguf(Architecture::Llama, &keys).rope_scaling,
        linear.rope_scaling
    );
}

#[test]
fn rotary_frequencies_agree_with_transformers() {
    // LlamaRotaryEmbedding of transformers 5 with head_dim 16, rope_theta 500000 and the scaling below.
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
    let config = hugging_face(
        Architecture::Llama,
        json!({"rope_theta": 5e5, "rope_scaling": scaling}),
    );
    check_close(&config.inverse_frequencies(None), LLAMA3);

    let config = hugging_face(
        Architecture::Llama,
        json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    );
    let plain = hugging_face(Architecture::Llama, json!({"rope_theta": 5e5}));
    check_close(&plain.inverse_frequencies(None), PLAIN);
    let quarter: Vec<f32> = PLAIN.iter().map(|f| f / 4.0).collect();
    check_close(&config.inverse_frequencies(None), &quarter);
    assert!(
        hugging_face(Architecture::Gpt2, json!({}))
            .inverse_frequencies(None)
            .is_empty()
    );
}

#[test]
fn the_frequency_factors_of_a_gguf_file_are_applied() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("llama3.gguf");
    let mut file = TinyModel::new(Architecture::Llama).gguf();
    let factors = [1.0f32, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0];
    let data = factors.iter().flat_map(|f| f.to_le_bytes()).collect();
    file.tensor("rope_freqs.weight", &[8], DType::F32, data);
    std::fs::write(&path, file.to_bytes()).expect("write");
    let checkpoint = Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let plain = checkpoint.config().inverse_frequencies(None);
    let expected: Vec<f32> = plain.iter().zip(factors).map(|(f, by)| f / by).collect();
    assert_eq!(checkpoint.inverse_frequencies(), expected);
}

#[test]
fn the_name_of_a_model_without_the_directories_of_its_author() {
    for (saved, expected) in [
        ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-135M"),
        ("/home/me/models/Small/", "Small"),
        ("./out/run-3", "run-3"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let model = TinyModel::new(Architecture::Llama);
        model.write_hugging_face(directory.path(), 1);
        let mut config = model.config_json();
        config["_name_or_path"] = json!(saved);
        std::fs::write(directory.path().join("config.json"), config.to_string()).expect("write");
        let checkpoint = Checkpoint::open(directory.path()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(checkpoint.name(), expected);
    }
}

const PLAIN: &[f32] = &[
    1.0,
    0.19392276,
    0.03760603,
    0.007292665,
    0.0014142134,
    0.0002742482,
    5.3182957e-05,
    1.0313385e-05,
];

const LLAMA3: &[f32] = &[
    1.0,
    0.19392276,
    0.03760603,
    0.007292665,
    0.000524846,
    3.4281024e-05,
    6.6478697e-06,
    1.2891732e-06,
];
