//! The command `make-key`: a new token for a client, and the line that lets it in.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::key::{KeyHash, Token};
use crate::identity::Roles;

/// Everything that `make-key` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MakeKeyConfig {
    /// What people call the key.
    pub name: String,
    /// Whose it is.
    pub tenant: String,
    /// What it may do.
    pub roles: Roles,
    /// Where the token goes; `None`: to standard error.
    pub token_file: Option<PathBuf>,
}

/// A key that was made.
#[derive(Debug)]
pub struct MadeKey {
    /// For the file of identities.
    pub line: String,
    /// For the client; `None` where it has been written to a file.
    pub token: Option<Token>,
}

/// Makes a key.
///
/// # Errors
/// The file of the token is there already or cannot be written, or the system has no random numbers.
pub fn make_key(config: &MakeKeyConfig) -> anyhow::Result<MadeKey> {
    let token = Token::random()?;
    let hash = KeyHash::of(token.reveal().as_bytes());
    let MakeKeyConfig {
        name,
        tenant,
        roles,
        token_file,
    } = config;
    let line = format!("key {name} {hash} tenant={tenant} roles={roles}");
    let Some(path) = token_file else {
        return Ok(MadeKey {
            line,
            token: Some(token),
        });
    };
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| writeln!(file, "{}", token.reveal()))
        .map_err(|error| anyhow::anyhow!("--token-file {}: {error}", path.display()))?;
    Ok(MadeKey { line, token: None })
}
