//! A model whose activation function an engine does not have is run by one that has it, or by none: never by another function.

use std::fs;
use std::path::Path;

use code_explainer_engine::Precision;
use code_explainer_engine_native::{load, pack};
use code_explainer_weights::{Architecture, Checkpoint};

use crate::common::model_files::TinyModel;
use crate::common::packed::options;
use crate::common::programs::{ServerProcess, output, server};

/// What `config.json` calls it, by family, and what the native engine lacks.
const LACKING: [(Architecture, &str, &str, &str); 3] = [
    (Architecture::Llama, "hidden_act", "gelu", "GELU in a gated"),
    (
        Architecture::Qwen2,
        "hidden_act",
        "gelu_new",
        "GELU in a gated",
    ),
    (
        Architecture::Gpt2,
        "activation_function",
        "silu",
        "SiLU in a network without a gate",
    ),
];

fn write(architecture: Architecture, key: &str, activation: &str, directory: &Path) {
    let model = TinyModel::new(architecture);
    model.write_hugging_face(directory, 1);
    let mut config = model.config_json();
    config[key] = activation.into();
    fs::write(directory.join("config.json"), config.to_string()).expect("written");
}

#[test]
fn the_native_engine_refuses_what_it_lacks_by_name() {
    for (architecture, key, activation, lack) in LACKING {
        let directory = tempfile::tempdir().expect("a directory");
        write(architecture, key, activation, directory.path());
        let checkpoint = Checkpoint::open(directory.path()).expect("a model");
        let out = tempfile::tempdir().expect("a directory");
        let loaded = load(&checkpoint, &options(Some(Precision::Fp32))).err();
        let packed = pack(&checkpoint, 8, out.path(), |_| {}).err();
        for refused in [loaded, packed] {
            let said = refused.expect("it is refused").to_string();
            for part in [lack, "--engine eager"] {
                assert!(said.contains(part), "{said}");
            }
        }
    }
}

#[test]
fn left_to_choose_the_server_takes_the_engine_that_has_it() {
    let (architecture, key, activation, lack) = LACKING[0];
    let directory = tempfile::tempdir().expect("a directory");
    write(architecture, key, activation, directory.path());
    let serve = |more: &[&str]| {
        let mut command = server(&["serve", "--listen", "127.0.0.1:0", "--http-listen"]);
        command.args(["127.0.0.1:0", "--kv-cache-tokens", "1024", "--model"]);
        command.arg(directory.path()).args(more);
        command
    };
    let mut process = ServerProcess::start(serve(&[]));
    process.wait_for(" ready");
    let said = process.said.join("\n");
    assert!(said.contains("engine=\"eager\""), "{said}");
    assert!(said.contains(lack), "{said}");
    process.signal("KILL");

    let refused = output(&mut serve(&["--engine", "native"]));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    for part in [lack, "--engine eager"] {
        assert!(said.contains(part), "{said}");
    }
}
