//! The command line of `make-key`.

use std::path::PathBuf;

use clap::Args;

use crate::access::make_key::MakeKeyConfig;
use crate::identity::Roles;

#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// What you call the key; it is in no log
    #[arg(long, value_name = "NAME", value_parser = word)]
    name: String,

    /// Whose key it is: tenants share nothing, neither cached answers nor turns in the queue
    #[arg(long, value_name = "NAME", value_parser = word)]
    tenant: String,

    /// What it may do: explain, admin, metrics (read /metrics, where that is guarded), or several, such as explain,admin
    #[arg(long, value_name = "ROLES", default_value = "explain")]
    roles: Roles,

    /// Write the token to this new file, which only you can read, instead of standard error
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl KeyArgs {
    pub(super) fn validate(self) -> MakeKeyConfig {
        MakeKeyConfig {
            name: self.name,
            tenant: self.tenant,
            roles: self.roles,
            token_file: self.token_file,
        }
    }
}

/// What the file can hold between two spaces.
fn word(text: &str) -> Result<String, String> {
    let good =
        (1..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && c != '#');
    if good {
        Ok(text.into())
    } else {
        Err("expected 1 to 256 ASCII letters, digits or signs, without spaces and #".into())
    }
}
