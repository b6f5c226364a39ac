//! The server as a program: its settings, its exit codes, its log, its signals.

use std::io::Write;

use crate::common::programs::{ServerProcess, output, server};

const FREE_PORTS: [&str; 5] = [
    "serve",
    "--listen",
    "127.0.0.1:0",
    "--http-listen",
    "127.0.0.1:0",
];

fn serve(args: &[&str]) -> std::process::Command {
    let mut command = server(&FREE_PORTS);
    command.args(args);
    command
}

/// Ends with this code, and says why in a sentence that has all of these in it.
#[track_caller]
fn refuses(mut command: std::process::Command, code: i32, said: &[&str]) {
    let output = output(&mut command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in said {
        assert!(stderr.contains(part), "'{part}' is not in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_bad_setting_ends_with_64_before_anything_is_bound() {
    refuses(
        serve(&["--precision", "fp7"]),
        64,
        &["fp7", "expected fp32, bf16, fp16, int8 or int4"],
    );
    refuses(serve(&["--device", "tpu"]), 64, &["tpu", "cuda:N"]);
    refuses(serve(&["--batch-size", "0"]), 64, &["--batch-size is 0"]);
    refuses(serve(&["--batch-size=-3"]), 64, &["--batch-size"]);
    refuses(
        serve(&["--step-tokens", "4"]),
        64,
        &["--step-tokens", "--batch-size"],
    );
    refuses(
        serve(&["--drain-timeout", "soon"]),
        64,
        &["--drain-timeout", "soon"],
    );
    refuses(serve(&["--log", "code_explainer=loud"]), 64, &["--log"]);
    refuses(
        serve(&["--otlp-endpoint", "nowhere"]),
        64,
        &["--otlp-endpoint", "http://HOST:PORT"],
    );
    refuses(
        server(&["serve", "--listen", "everywhere"]),
        64,
        &["--listen", "everywhere"],
    );
    refuses(
        serve(&["--engine", "native", "--precision", "bf16"]),
        64,
        &["--engine native"],
    );
    refuses(
        serve(&["--kv-block-tokens", "18446744073709551615"]),
        64,
        &["--kv-block-tokens", "expected 1 to 4096"],
    );
    refuses(
        serve(&["--otlp-endpoint", "https://127.0.0.1:4317"]),
        64,
        &["--otlp-endpoint"],
    );
    refuses(serve(&["--nonsense"]), 64, &["--nonsense"]);
    refuses(server(&[]), 64, &["Usage"]);
}

#[test]
fn a_redis_url_is_checked_and_its_password_is_not_told() {
    let url = "http://user:hunter2@example.org";
    let output = output(&mut serve(&["--redis-url", url]));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{stderr}");
    assert!(
        stderr.contains("redis_url") && !stderr.contains("hunter2"),
        "{stderr}"
    );
}

#[test]
fn the_part_of_a_redis_url_that_is_wrong_is_named_and_no_secret() {
    for (url, part) in [
        (
            "redis://:hun,ter2@127.0.0.1",
            "address 1: its port is no number",
        ),
        ("redis://127.0.0.1,hunter2", "address 2: its beginning"),
        ("redis://:hunter2@", "address 1: it has no host"),
        ("redis://:hunter2@127.0.0.1:99999", "its port is no number"),
        (
            "redis://:hunter2@127.0.0.1/first",
            "its database is no number",
        ),
    ] {
        let told = output(&mut serve(&["--redis-url", url]));
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.contains(part) && told.contains("%2C"), "{url}: {told}");
        assert!(!told.contains("hun"), "{told}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_ends_with_73() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let below = file.path().join("data");
    let path = below.to_str().expect("UTF-8");
    refuses(
        serve(&["--data-dir", path]),
        73,
        &["--data-dir", path, "Not a directory"],
    );
}

#[test]
fn a_variable_is_named_where_it_is_wrong_and_is_none_where_it_is_empty() {
    let with = |name: &str, value: &str| {
        let mut command = serve(&["--model", "/nowhere/model.gguf"]);
        command.env(name, value);
        command
    };
    let named = "(it comes from the environment, as CODE_EXPLAINER_BATCH_SIZE)";
    for value in ["abc", "0"] {
        refuses(
            with("CODE_EXPLAINER_BATCH_SIZE", value),
            64,
            &["--batch-size", value, named],
        );
    }
    // It comes as far as the model, which there is none of.
    refuses(
        with("CODE_EXPLAINER_BATCH_SIZE", ""),
        66,
        &["/nowhere/model.gguf"],
    );
    let unknown = "variable=\"CODE_EXPLAINER_BATCH_SIZ\"";
    refuses(with("CODE_EXPLAINER_BATCH_SIZ", "3"), 66, &[unknown]);
    let mut by_flag = with("CODE_EXPLAINER_BATCH_SIZE", "0");
    by_flag.args(["--batch-size", "0"]);
    let told = output(&mut by_flag);
    assert!(
        !String::from_utf8_lossy(&told.stderr).contains("environment"),
        "{told:?}"
    );
}

#[test]
fn variables_and_the_file_are_checked_like_flags() {
    let mut command = serve(&[]);
    command.env("CODE_EXPLAINER_PRECISION", "fp5");
    refuses(command, 64, &["fp5"]);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "batch_size = 8\nbatch_sise = 9").expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    refuses(serve(&["--config", &path]), 64, &["batch_sise", &path]);
    refuses(
        serve(&["--config", "/nowhere/at/all.toml"]),
        64,
        &["/nowhere/at/all.toml"],
    );
}

#[test]
fn a_model_that_cannot_be_loaded_ends_with_66_and_names_the_file() {
    refuses(
        serve(&["--model", "/nowhere/model.gguf"]),
        66,
        &["/nowhere/model.gguf"],
    );
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"GGUF\x03\0\0\0but no more")
        .expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    refuses(serve(&["--model", &path]), 66, &[&path]);
    let empty = tempfile::tempdir().expect("a directory");
    let path = empty.path().to_str().expect("UTF-8").to_owned();
    refuses(serve(&["--model", &path]), 66, &[&path, "config.json"]);
}

#[test]
fn a_kv_cache_that_memory_cannot_hold_is_refused_with_its_size() {
    let most = (1usize << 30).to_string();
    refuses(
        serve(&["--kv-cache-tokens", &most, "--device", "cpu"]),
        66,
        &[
            "out of memory",
            "a KV cache of 1073741824 tokens",
            "--kv-cache-tokens",
        ],
    );
}

#[test]
fn a_device_that_is_not_there_is_named() {
    refuses(serve(&["--device", "cuda:7"]), 66, &["cuda:7"]);
}

#[test]
fn a_taken_port_ends_with_69_and_names_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let command = server(&[
        "serve",
        "--listen",
        &address,
        "--http-listen",
        "127.0.0.1:0",
    ]);
    refuses(command, 69, &[&address]);
}

#[test]
fn help_teaches_and_the_version_is_told() {
    let help = output(&mut server(&["serve", "--help"]));
    assert!(help.status.success());
    let text = String::from_utf8_lossy(&help.stdout);
    for part in [
        "CODE_EXPLAINER_BATCH_SIZE",
        "--cache-ttl",
        "127.0.0.1:50051",
        "TOML",
    ] {
        assert!(text.contains(part), "'{part}' is not in the help");
    }
    let version = output(&mut server(&["--version"]));
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn it_loads_the_real_model_tells_its_ports_and_ends_cleanly_on_sigterm() {
    let mut process = ServerProcess::start(serve(&["--kv-cache-tokens", "8192"]));
    let grpc = process.address("grpc");
    let http = process.address("http");
    assert_ne!(grpc.port(), http.port());
    let loaded = process.wait_for("the model is loaded");
    assert!(
        loaded.contains("llama") && loaded.contains("precision=int4"),
        "{loaded}"
    );
    process.wait_for(" ready");
    process.signal("TERM");
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);
    assert!(
        process.said.iter().any(|l| l.contains("SIGTERM")),
        "{:?}",
        process.said
    );
}
