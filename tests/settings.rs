//! A flag wins over a variable, a variable over the file, the file over the default.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use code_explainer::config::Config;
use code_explainer::engine::Precision;

use crate::common::programs::{output, server};
use crate::common::server::config;

#[test]
fn the_defaults_are_sane() {
    let config = Config::from_args(["server", "serve"].map(OsString::from)).expect("valid");
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.devices.to_string(), "auto");
    assert_eq!(config.cache.ttl, Duration::from_secs(3600));
    assert_eq!(config.otlp_endpoint, None);
}

#[test]
fn an_address_may_be_a_name() {
    let config =
        Config::from_args(["server", "serve", "--listen", "localhost:0"].map(OsString::from));
    assert!(config.expect("valid").listen.ip().is_loopback());
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
    assert_eq!(config.scheduler.step.sequences, 7);
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
    assert_eq!(config.scheduler.step.sequences, 6, "the flag");
    assert_eq!(config.scheduler.queue_items, 77, "the file");
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
fn int8_and_int4_are_for_the_native_engine_on_the_cpu() {
    for (precision, value) in [("int8", Precision::Int8), ("int4", Precision::Int4)] {
        for rest in [&["--engine", "native"][..], &["--device", "cpu"], &[]] {
            let config = config(&[&["--precision", precision], rest].concat());
            assert_eq!(config.engine.precision, Some(value));
        }
        for (flag, other, says) in [
            ("--engine", "eager", "--engine eager does not run"),
            ("--device", "cuda", "runs on the CPU only"),
        ] {
            let args = ["server", "serve", "--precision", precision, flag, other];
            let error = Config::from_args(args.map(OsString::from)).expect_err("refused");
            let error = error.to_string();
            assert!(error.contains(says) && error.contains(precision), "{error}");
        }
    }
}
