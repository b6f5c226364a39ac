//! The server's program: read the configuration, bind, run, and tell by the exit code how it went.

mod signals;

use std::process::ExitCode;
use std::time::Duration;

use code_explainer::access::make_key::{MakeKeyConfig, make_key};
use code_explainer::access::{Access, AccessError};
use code_explainer::config::{
    Command, Config, ExportConfig, LogFormat, QuantizeConfig, unknown_variables,
};
use code_explainer::model::{Model, export};
use code_explainer::quantize::{QuantizeError, quantize};
use code_explainer::run::RunError;
use code_explainer::{Listeners, descriptors, disk, run, telemetry};
use code_explainer_host::memory;
use indicatif::{ProgressBar, ProgressStyle};

use signals::Signals;

/// `EX_USAGE`, `EX_NOINPUT`, `EX_UNAVAILABLE` and `EX_CANTCREAT` of sysexits.h.
const BAD_SETTING: u8 = 64;
const NO_INPUT: u8 = 66;
const NO_ADDRESS: u8 = 69;
const CANNOT_WRITE: u8 = 73;

/// After the grace and the drain: time for goodbyes, before the process ends whatever hangs.
const LAST_WORDS: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    memory::keep_few_pools();
    let command = match Command::from_args(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => {
            // `--help` and `--version` come as errors that go to standard output.
            let code = if error.use_stderr() { BAD_SETTING } else { 0 };
            let _ = error.print();
            return code.into();
        }
    };
    match command {
        Command::Serve(config) => start(*config),
        Command::Quantize(config) => quantize_files(&config),
        Command::Export(config) => write_module(&config),
        Command::MakeKey(config) => print_key(&config),
    }
}

fn print_key(config: &MakeKeyConfig) -> ExitCode {
    match make_key(config) {
        Ok(key) => {
            println!("{}", key.line);
            if let Some(token) = key.token {
                eprintln!("the token, which is told this once: {}", token.reveal());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("code-explainer-server: {error}");
            BAD_SETTING.into()
        }
    }
}

fn write_module(config: &ExportConfig) -> ExitCode {
    if let Err(error) = telemetry::init_log("info", LogFormat::Text) {
        eprintln!("code-explainer-server: {error}");
        return BAD_SETTING.into();
    }
    match export(config) {
        Ok(()) => {
            tracing::info!(module = %config.torchscript.display(), "written");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            NO_INPUT.into()
        }
    }
}

fn start(mut config: Config) -> ExitCode {
    if let Err(error) = telemetry::init_log(&config.log, config.log_format) {
        eprintln!("code-explainer-server: {error}");
        return BAD_SETTING.into();
    }
    for variable in unknown_variables() {
        tracing::warn!(variable, "this variable is no setting, and changes nothing");
    }
    let files = descriptors::raise_limit();
    let wanted = config.connections;
    match descriptors::fit(wanted, files) {
        Ok(limits) => config.connections = limits,
        Err(error) => {
            tracing::error!("{error}");
            return BAD_SETTING.into();
        }
    }
    let (connections, of_address) = (
        config.connections.connections,
        config.connections.of_address(),
    );
    tracing::info!(
        files,
        connections,
        of_address,
        "open files and connections that may be had"
    );
    if connections < wanted.connections {
        tracing::warn!(
            files,
            wanted = wanted.connections,
            connections,
            "fewer connections than --connections: the limit of open files (ulimit -n) has no room for them"
        );
    }
    // Before anything that takes time, so that no signal is lost.
    let limit = config.shutdown_grace + config.drain_timeout + LAST_WORDS;
    let shutdown = match Signals::listen(limit) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled");
            return ExitCode::FAILURE;
        }
    };
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
    let code = runtime.block_on(serve(config, shutdown));
    // A model file that is still being read does not keep the process.
    runtime.shutdown_background();
    code
}

async fn serve(config: Config, signals: Signals) -> ExitCode {
    // Before any address is bound; the server reads them for itself.
    if let Err(error) = Access::open(&config.access) {
        tracing::error!("{error}");
        return access_code(&error);
    }
    if let Some(Err(error)) = config.embed.directory.as_deref().map(disk::writable) {
        tracing::error!(
            "--data-dir {error}; give one that this user can write, or none: then it is all in memory"
        );
        return CANNOT_WRITE.into();
    }
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
    let wanted = config.clone();
    let open = move || Model::open_for(&wanted);
    match run(listeners, config, open, signals.first()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Model(error)) => {
            tracing::error!("{error}");
            NO_INPUT.into()
        }
        Err(error @ RunError::Embed(_)) => {
            tracing::error!("{error}");
            NO_INPUT.into()
        }
        Err(RunError::Other(error)) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn access_code(error: &AccessError) -> ExitCode {
    match error {
        AccessError::Unreadable { .. } => NO_INPUT.into(),
        AccessError::Unusable { .. } => BAD_SETTING.into(),
    }
}

fn quantize_files(config: &QuantizeConfig) -> ExitCode {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} layers, {elapsed}");
    let bar = ProgressBar::new(0).with_style(style.expect("a fixed template"));
    let result = quantize(config, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    match result {
        Ok(summary) => {
            for note in &summary.notes {
                eprintln!("code-explainer-server: {note}");
            }
            println!("{summary}");
            let output = config.output.display();
            println!("code-explainer-server serve --model '{output}' serves it");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("code-explainer-server: {error}");
            match error {
                QuantizeError::Output { .. } => BAD_SETTING.into(),
                QuantizeError::Input(_) | QuantizeError::Packed { .. } => NO_INPUT.into(),
                QuantizeError::Write(_) => ExitCode::FAILURE,
            }
        }
    }
}
