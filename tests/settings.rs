//! A flag wins over a variable, a variable over the file, the file over the default.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use code_explainer::config::{Command, QuantizeConfig};
use code_explainer_engine::{EngineKind, Precision};

use crate::common::programs::{output, server};
use crate::common::server::config;

fn command(args: &[&str]) -> Result<Command, clap::Error> {
    let args = ["server"].iter().chain(args);
    Command::from_args(args.map(OsString::from))
}

#[test]
fn the_defaults_are_sane() {
    let Ok(Command::Serve(config)) = command(&["serve"]) else {
        panic!("it serves");
    };
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.devices.to_string(), "auto");
    assert_eq!(config.cache.ttl, Duration::from_secs(3600));
    assert_eq!(config.otlp_endpoint, None);
}

#[test]
fn an_address_may_be_a_name() {
    let Ok(Command::Serve(config)) = command(&["serve", "--listen", "localhost:0"]) else {
        panic!("it serves");
    };
    assert!(config.listen.ip().is_loopback());
}

#[test]
fn flags_set_every_part() {
    let config = config(&[
        "--precision",
        "bf16",
        "--device",
        "cuda:1",
        "--batch-size",
        "7",
        "--cache-size",
        "3",
        "--cache-ttl",
        "60",
        "--drain-timeout",
        "1m 30s",
        "--replica",
        "r1",
    ]);
    assert_eq!(config.engine.precision, Some(Precision::Bf16));
    assert_eq!(config.devices.to_string(), "cuda:1");
    assert_eq!(config.scheduler.engine.step.sequences, 7);
    assert_eq!(
        (config.cache.size, config.cache.ttl),
        (3, Duration::from_secs(60))
    );
    assert_eq!(config.drain_timeout, Duration::from_secs(90));
    assert_eq!(config.replica, "r1");
}

#[test]
fn the_file_is_below_the_flags() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(
        file,
        "batch_size = 5\nqueue_items = 77\nprecision = \"fp16\""
    )
    .expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let config = config(&["--config", path, "--batch-size", "6"]);
    assert_eq!(config.scheduler.engine.step.sequences, 6, "the flag");
    assert_eq!(config.scheduler.queue.items, 77, "the file");
    assert_eq!(config.engine.precision, Some(Precision::Fp16), "the file");
}

/// Variables are the process's, so a process of its own is asked: the first thing wrong is what it complains of.
#[test]
fn a_variable_is_below_the_flag_and_above_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "device = \"from-file\"").expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let complaint = |args: &[&str], variable: Option<&str>| {
        let mut command = server(&["serve", "--config", path]);
        command.args(args);
        if let Some(value) = variable {
            command.env("CODE_EXPLAINER_DEVICE", value);
        }
        String::from_utf8_lossy(&output(&mut command).stderr).into_owned()
    };
    assert!(complaint(&[], None).contains("from-file"));
    assert!(complaint(&[], Some("from-variable")).contains("from-variable"));
    let flag = complaint(&["--device", "from-flag"], Some("from-variable"));
    assert!(flag.contains("from-flag"), "{flag}");
}

#[test]
fn engines_and_precisions_go_together_or_are_refused() {
    for (precision, value) in [("int8", Precision::Int8), ("int4", Precision::Int4)] {
        for rest in [
            &["--engine", "native"][..],
            &["--engine", "eager"],
            &["--device", "cuda:1"],
            &[],
        ] {
            let config = config(&[&["--precision", precision], rest].concat());
            assert_eq!(config.engine.precision, Some(value));
        }
    }
    for (rest, says) in [
        (&["native", "--device", "cuda"][..], "runs on the CPU only"),
        (&["native", "--precision", "bf16"], "fp32, int8 and int4"),
        (&["torchscript"], "torchscript:PATH"),
        (&["torchscript:"], "needs a module"),
        (&["eager", "module.pt"], "unknown engine"),
    ] {
        let error = command(&[&["serve", "--engine"], rest].concat()).expect_err("refused");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_module_is_named_in_one_word_or_two() {
    let expected = EngineKind::TorchScript("some/module.pt".into());
    for args in [
        &["--engine", "torchscript", "some/module.pt"][..],
        &["--engine", "torchscript:some/module.pt"],
        &[
            "--engine",
            "torchscript",
            "some/module.pt",
            "--optimize",
            "off",
        ],
    ] {
        assert_eq!(config(args).engine.engine, expected, "{args:?}");
    }
}

#[test]
fn quantization_is_a_precision_and_must_not_contradict_another() {
    for (name, value) in [("int8", Precision::Int8), ("int4", Precision::Int4)] {
        for rest in [&[][..], &["--precision", "fp32"], &["--precision", name]] {
            let config = config(&[&["--quantization", name], rest].concat());
            assert_eq!(config.engine.precision, Some(value), "{rest:?}");
        }
        let other = if name == "int8" { "int4" } else { "int8" };
        for precision in [other, "bf16"] {
            let error = command(&["serve", "--quantization", name, "--precision", precision]);
            let error = error.expect_err("refused").to_string();
            assert!(error.contains(name) && error.contains(precision), "{error}");
        }
    }
    let error = command(&["serve", "--quantization", "fp16"]).expect_err("refused");
    assert!(
        error.to_string().contains("expected int8 or int4"),
        "{error}"
    );
}

#[test]
fn quantize_takes_bits_and_two_paths() {
    let config = QuantizeConfig {
        bits: 4,
        input: "in.gguf".into(),
        output: "out".into(),
    };
    let good = command(&["quantize", "--bits", "4", "in.gguf", "out"]);
    assert_eq!(good.expect("valid"), Command::Quantize(config));
    for (args, says) in [
        (
            &["quantize", "--bits", "5", "in", "out"][..],
            "expected 4 or 8",
        ),
        (&["quantize", "in", "out"], "--bits"),
        (&["quantize", "--bits", "8", "in"], "OUT"),
    ] {
        let error = command(args).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
}
