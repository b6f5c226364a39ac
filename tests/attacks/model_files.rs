//! A model's directory from a stranger: its names lead to no file outside, none of its files takes more memory than is
//! known beforehand, nothing in it makes the server wait for ever, and what happens to it later need not end the server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use code_explainer_engine_native::{load, open_packed_with};
use code_explainer_text::Text;
use code_explainer_weights::packed::FILE;
use code_explainer_weights::{Architecture, Checkpoint, ModelMemory};
use tempfile::TempDir;

use crate::common::model_files::TinyModel;
use crate::common::packed::{logits, options, packed};
use crate::common::server::config;

/// All that is read of a Hugging Face directory.
const FILES: [&str; 9] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "added_tokens.json",
];

/// A good model with a tokenizer.
fn model() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    TinyModel::new(Architecture::Llama).write_hugging_face(directory.path(), 1);
    directory
}

/// Opens all of it, as `serve` does.
fn open(directory: &Path) -> Result<(), String> {
    let checkpoint = Checkpoint::open(directory).map_err(|e| e.to_string())?;
    Text::from_checkpoint(&checkpoint).map_err(|e| e.to_string())?;
    Ok(())
}

#[track_caller]
fn refused(directory: &Path, says: &str) {
    let problem = open(directory).expect_err("it must be refused");
    assert!(problem.contains(says), "'{says}' is not in: {problem}");
}

/// Puts what a name leads to aside, so that something else can be there.
fn without(directory: &Path, name: &str) {
    let path = directory.join(name);
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).expect("removed");
    }
    if name == "model.safetensors.index.json" {
        // Else it is not looked at.
        fs::remove_file(directory.join("model.safetensors")).expect("removed");
    }
    if name == "added_tokens.json" {
        // As above: it is read beside an older tokenizer's files.
        fs::remove_file(directory.join("tokenizer.json")).expect("removed");
        fs::write(directory.join("vocab.json"), "{\"a\": 0}").expect("written");
        fs::write(directory.join("merges.txt"), "").expect("written");
    }
}

#[test]
fn no_name_leads_out_of_the_directory() {
    for name in FILES {
        let (model, outside) = (model(), tempfile::tempdir().expect("a directory"));
        let secret = outside.path().join("secret");
        fs::write(&secret, "MARKED").expect("written");
        without(model.path(), name);
        symlink(&secret, model.path().join(name)).expect("a link");
        let problem = open(model.path()).expect_err(name);
        for part in [name, "outside of the model's directory"] {
            assert!(problem.contains(part), "'{part}' is not in: {problem}");
        }
        assert!(!problem.contains("MARKED"), "{problem}");
        // By way of another link, and of its parent.
        fs::remove_file(model.path().join(name)).expect("removed");
        symlink(outside.path(), model.path().join("inner")).expect("a link");
        symlink("inner/secret", model.path().join(name)).expect("a link");
        refused(model.path(), "outside of the model's directory");
    }
}

#[test]
fn links_that_stay_with_the_model_are_followed() {
    // As Kubernetes mounts a volume, which changes all of it at once.
    let (volume, source) = (tempfile::tempdir().expect("a directory"), model());
    let data = volume.path().join("..2026_11_30");
    fs::create_dir(&data).expect("a directory");
    symlink("..2026_11_30", volume.path().join("..data")).expect("a link");
    // As Hugging Face's cache keeps a model: the names of a revision lead to contents that revisions share.
    let cache = tempfile::tempdir().expect("a directory");
    let repository = cache.path().join("models--acme--tiny");
    let (snapshot, blobs) = (repository.join("snapshots/1f"), repository.join("blobs"));
    fs::create_dir_all(&snapshot).expect("a directory");
    fs::create_dir(&blobs).expect("a directory");
    for entry in fs::read_dir(source.path()).expect("a directory") {
        let name = entry.expect("an entry").file_name();
        let from = source.path().join(&name);
        fs::copy(&from, data.join(&name)).expect("copied");
        symlink(Path::new("..data").join(&name), volume.path().join(&name)).expect("a link");
        let blob = format!("hash-of-{}", name.display());
        fs::copy(&from, blobs.join(&blob)).expect("copied");
        symlink(Path::new("../../blobs").join(blob), snapshot.join(&name)).expect("a link");
    }
    open(volume.path()).expect("a mounted volume");
    open(&snapshot).expect("a cached model");
    // The operator's own path may be a link.
    let current = cache.path().join("current");
    symlink(&snapshot, &current).expect("a link");
    open(&current).expect("a link to a cached model");

    // Another repository's contents are not this model's.
    let other = cache.path().join("models--acme--other/blobs");
    fs::create_dir_all(&other).expect("a directory");
    fs::copy(source.path().join("config.json"), other.join("x")).expect("copied");
    fs::remove_file(snapshot.join("config.json")).expect("removed");
    symlink(other.join("x"), snapshot.join("config.json")).expect("a link");
    refused(&snapshot, "outside of the model's directory");
    // Nor is what lies beside the contents of its own.
    fs::remove_file(snapshot.join("config.json")).expect("removed");
    fs::copy(source.path().join("config.json"), repository.join("x")).expect("copied");
    symlink("../../x", snapshot.join("config.json")).expect("a link");
    refused(&snapshot, "outside of the model's directory");
}

#[test]
fn the_index_names_files_in_the_directory_alone() {
    for shard in ["../x", "/etc/passwd", "a/b", "..", ".", ""] {
        let model = model();
        without(model.path(), "model.safetensors.index.json");
        let index = serde_json::json!({"weight_map": {"lm_head.weight": shard}});
        let path = model.path().join("model.safetensors.index.json");
        fs::write(path, index.to_string()).expect("written");
        refused(
            model.path(),
            "which is not the name of a file beside the index",
        );
    }
}

#[test]
fn pipes_and_devices_are_refused_and_not_waited_for() {
    let pipe = |path: &Path| {
        let made = Command::new("mkfifo").arg(path).status();
        assert!(made.expect("mkfifo").success());
    };
    for name in FILES {
        let model = model();
        without(model.path(), name);
        pipe(&model.path().join(name));
        refused(model.path(), "not a regular file");
        // A device that never ends.
        fs::remove_file(model.path().join(name)).expect("removed");
        symlink("/dev/zero", model.path().join(name)).expect("a link");
        refused(model.path(), "outside of the model's directory");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    pipe(&path);
    refused(&path, "neither a regular file nor a directory");
}

/// What is not there on the disk reads as zeros: 64 GiB of them would be read into memory.
#[test]
fn no_file_is_read_beyond_its_bound() {
    for name in FILES {
        if name == "model.safetensors" {
            continue;
        }
        let model = model();
        without(model.path(), name);
        let file = fs::File::create(model.path().join(name)).expect("created");
        file.set_len(1 << 36).expect("a sparse file");
        let problem = open(model.path()).expect_err(name);
        for part in [name, "is larger than"] {
            assert!(problem.contains(part), "'{part}' is not in: {problem}");
        }
    }
    // Weights may be as large as they are, but the table at their beginning says how they lie.
    let model = model();
    let file = fs::File::create(model.path().join("model.safetensors")).expect("created");
    file.set_len(1 << 36).expect("a sparse file");
    refused(model.path(), "model.safetensors");
}

#[test]
fn a_template_is_bounded_wherever_it_comes_from() {
    let long = "x".repeat((1 << 20) + 1);
    let model = model();
    fs::write(
        model.path().join("tokenizer_config.json"),
        serde_json::json!({ "chat_template": long }).to_string(),
    )
    .expect("written");
    refused(model.path(), "is larger than 1048576 bytes");
}

#[test]
fn a_model_in_memory_of_its_own_outlives_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tiny.gguf");
    TinyModel::new(Architecture::Llama).write_gguf(&path);
    let tokens = [1, 5, 3, 9];
    let packed = packed(&path, 8);
    let file = packed.path().join(FILE);
    let served = |memory| {
        let model = open_packed_with(packed.path(), memory).expect("a good model");
        load(&model, &options(None)).expect("loaded")
    };
    let expected = logits(&mut served(ModelMemory::Map), &tokens);
    let mut copied = served(ModelMemory::Copy);
    // What an interrupted download or a careless `cp` does: with mapped weights the next step would end the process.
    fs::write(&file, b"").expect("cut");
    assert_eq!(logits(&mut copied, &tokens), expected);
    // Nor does the engine need the file when it is made again.
    let checkpoint = Checkpoint::open_with(&path, ModelMemory::Copy).expect("a good model");
    fs::write(&path, b"").expect("cut");
    let names: Vec<&str> = checkpoint.tensor_names().collect();
    for name in names {
        let tensor = checkpoint.tensor(name).expect("a tensor");
        assert!(tensor.to_f32().iter().all(|value| value.is_finite()));
    }
}

#[test]
fn weights_are_mapped_unless_they_are_to_be_copied() {
    assert_eq!(config(&[]).model_memory, ModelMemory::Map);
    let copied = config(&["--model-memory", "copy"]).model_memory;
    assert_eq!(copied, ModelMemory::Copy);
}
