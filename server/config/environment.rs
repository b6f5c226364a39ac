//! Settings that come as environment variables, as far as clap does not see to them: empty ones are not set, messages name
//! them, and those that set nothing are told.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::builder::Resettable;

/// What all of them begin with.
const PREFIX: &str = "CODE_EXPLAINER_";
/// Those of the client, which may be set for both.
const CLIENTS: [&str; 7] = [
    "SERVER",
    "TOKEN",
    "TOKEN_FILE",
    "TLS_CA",
    "TLS_CLIENT_CERT",
    "TLS_CLIENT_KEY",
    "TLS_SERVER_NAME",
];

/// The command, without the variables that are there and empty: `NAME=` in a file of settings means that it is not set.
pub(super) fn without_empty(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_env().map(std::env::var_os) {
        Some(Some(value)) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg,
    });
    let names: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, without_empty)
    })
}

/// A message that names a flag, whose value came out of a variable, names that too.
pub(super) fn naming_variable(
    error: clap::Error,
    command: &clap::Command,
    args: &[OsString],
) -> clap::Error {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let all = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments);
    let variable = all.into_iter().find_map(|arg| {
        let flag = format!("--{}", arg.get_long()?);
        let variable = arg.get_env()?.to_str()?;
        let by_flag = args.iter().filter_map(|arg| arg.to_str()).any(|arg| {
            arg.strip_prefix(&flag)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        });
        let set = std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        (names(first, &flag) && set && !by_flag).then(|| variable.to_owned())
    });
    let Some(variable) = variable else {
        return error;
    };
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let told = format!("{first} (it comes from the environment, as {variable})\n{rest}");
    clap::Error::raw(error.kind(), told)
}

/// Whether a text names this flag, and not a longer one.
fn names(text: &str, flag: &str) -> bool {
    text.match_indices(flag).any(|(at, _)| {
        let after = text[at + flag.len()..].chars().next();
        !after.is_some_and(|c| c == '-' || c.is_alphanumeric())
    })
}

/// Variables that look like settings and are none.
pub fn unknown_variables() -> BTreeSet<String> {
    let command = <super::args::Cli as clap::CommandFactory>::command();
    let known: BTreeSet<String> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned()))
        .collect();
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                return false;
            };
            !known.contains(name) && !CLIENTS.contains(&rest) && !is_of_kubernetes(rest)
        })
        .collect()
}

/// Kubernetes tells every container of the Services that there are: of one by the name of `code-explainer` by
/// `CODE_EXPLAINER_SERVICE_HOST`, `CODE_EXPLAINER_PORT_50051_TCP_ADDR` and their like.
fn is_of_kubernetes(rest: &str) -> bool {
    let words = |ending: &str| rest.ends_with(ending) || rest.contains(&format!("{ending}_"));
    words("SERVICE_HOST") || words("SERVICE_PORT") || rest == "PORT" || rest.ends_with("_PORT") || {
        let port = rest.split_once("PORT_").map_or("", |(_, port)| port);
        let digits = port.split('_').next().unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_tells_is_no_setting() {
        for of_kubernetes in [
            "SERVICE_HOST",
            "SERVICE_PORT_GRPC",
            "PORT",
            "PORT_50051_TCP_ADDR",
            "HEADLESS_SERVICE_HOST",
            "REDIS_PORT_6379_TCP",
            "REDIS_PORT",
        ] {
            assert!(is_of_kubernetes(of_kubernetes), "{of_kubernetes}");
        }
        for setting in ["BATCH_SIZ", "LISTEN", "PORTS", "EXPORT_X"] {
            assert!(!is_of_kubernetes(setting), "{setting}");
        }
    }

    #[test]
    fn a_flag_is_told_from_a_longer_one() {
        assert!(names("--batch-size is 0", "--batch-size"));
        assert!(names("for '--batch-size <N>'", "--batch-size"));
        assert!(!names("--batch-size-x is 0", "--batch-size"));
    }
}
