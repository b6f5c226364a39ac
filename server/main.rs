//! The server's program: read the configuration, bind, run, and tell by the exit code how it went.

use std::process::ExitCode;

use code_explainer::config::Config;
use code_explainer::model::{Model, engines};
use code_explainer::run::RunError;
use code_explainer::{Listeners, run, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// `EX_USAGE`, `EX_NOINPUT` and `EX_UNAVAILABLE` of sysexits.h.
const BAD_SETTING: u8 = 64;
const NO_MODEL: u8 = 66;
const NO_ADDRESS: u8 = 69;

fn main() -> ExitCode {
    let config = match Config::from_args(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => {
            // `--help` and `--version` come as errors that go to standard output.
            let code = if error.use_stderr() { BAD_SETTING } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    if let Err(error) = telemetry::init_log(&config.log, config.log_format) {
        eprintln!("code-explainer-server: {error}");
        return BAD_SETTING.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("code-explainer-server: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(serve(config));
    // A model file that is still being read does not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config) -> ExitCode {
    // Before anything that takes time, so that no signal is lost.
    let signals =
        signal(SignalKind::terminate()).and_then(|t| Ok((t, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled");
            return ExitCode::FAILURE;
        }
    };
    let listeners = match Listeners::bind(config.listen, config.http_listen).await {
        Ok(listeners) => listeners,
        Err(error) => {
            tracing::error!("{error:#}");
            return NO_ADDRESS.into();
        }
    };
    for (what, listener) in [("grpc", &listeners.grpc), ("http", &listeners.http)] {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "{what} listening");
        }
    }
    let shutdown = async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "shutting down");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("a second signal: leaving at once");
            std::process::exit(1);
        });
    };
    let (path, devices) = (config.model.clone(), config.devices.clone());
    let engine = config.engine.clone();
    let open = move || Model::open(&path, engines(&devices, &engine)?);
    match run(listeners, config, open, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Model(error)) => {
            tracing::error!("{error}");
            NO_MODEL.into()
        }
        Err(RunError::Other(error)) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
