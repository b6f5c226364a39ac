//! How the program shows who it is, from files and the environment: what is on a command line is seen by every user of
//! the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;

use code_explainer_client::{Client, ConnectOptions, Error, TlsOptions, Token};

/// A person waits: a server from which nothing comes is asked after this whether it is there, and has as long to answer.
const PROBE: Duration = Duration::from_secs(10);

/// Holds the token itself, where no file does.
const TOKEN_VARIABLE: &str = "CODE_EXPLAINER_TOKEN";

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// A file with the token that the server knows you by. Without it, the variable CODE_EXPLAINER_TOKEN holds the token.
    /// To an address without https:// it goes unencrypted.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CODE_EXPLAINER_TOKEN_FILE"
    )]
    token_file: Option<PathBuf>,
    /// PEM file with the authorities of the server's certificate [default: those that the system trusts].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CODE_EXPLAINER_TLS_CA"
    )]
    tls_ca: Option<PathBuf>,
    /// PEM file with your certificate, where the server asks for one.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CODE_EXPLAINER_TLS_CLIENT_CERT"
    )]
    tls_client_cert: Option<PathBuf>,
    /// PEM file with your certificate's private key.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CODE_EXPLAINER_TLS_CLIENT_KEY"
    )]
    tls_client_key: Option<PathBuf>,
    /// The name in the server's certificate, where it is not that of the address.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "CODE_EXPLAINER_TLS_SERVER_NAME"
    )]
    tls_server_name: Option<String>,
}

impl AccessArgs {
    /// A client of the server, with these credentials.
    ///
    /// # Errors
    /// A file cannot be read, or is of no use.
    pub(crate) fn connect(&self, server: &str) -> Result<Client, Error> {
        let token = match &self.token_file {
            Some(path) => Some(String::from_utf8_lossy(&read(path)?).into_owned()),
            None => std::env::var(TOKEN_VARIABLE)
                .ok()
                .filter(|token| !token.trim().is_empty()),
        };
        let identity = match (&self.tls_client_cert, &self.tls_client_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => {
                return Err(Error::Credentials(
                    "a client certificate and its key go together".into(),
                ));
            }
        };
        let options = ConnectOptions {
            token: token.map(|token| Token::new(&token)).transpose()?,
            tls: TlsOptions {
                ca: self.tls_ca.as_deref().map(read).transpose()?,
                identity,
                server_name: self.tls_server_name.clone(),
            },
            keep_alive_interval: PROBE,
            keep_alive_timeout: PROBE,
            ..ConnectOptions::default()
        };
        Client::connect_with(server, &options)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::Credentials(format!("{}: {error}", path.display())))
}
