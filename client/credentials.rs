//! How this client knows the server, and how it shows who it is.

use std::fmt;
use std::time::Duration;

use tonic::metadata::MetadataValue;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tonic::{Request, Status};

/// TLS, beyond an address that begins with `https://`. All files as PEM.
#[derive(Clone, Default)]
pub struct TlsOptions {
    /// Authorities of the server's certificate; `None`: those that the system trusts.
    pub ca: Option<Vec<u8>>,
    /// This client's certificate and its private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name in the server's certificate, where it is not that of the address.
    pub server_name: Option<String>,
}

/// What a server knows this client by. Never printed.
#[derive(Clone)]
pub struct Token(MetadataValue<tonic::metadata::Ascii>);

/// Adds the token to every call.
#[derive(Clone, Debug)]
pub(crate) struct Credentials(pub(crate) Option<Token>);

impl Token {
    /// A token, without the white space around it.
    ///
    /// # Errors
    /// It is empty, or has what no header can have.
    pub fn new(token: &str) -> Result<Self, crate::Error> {
        let token = token.trim();
        let bad = |reason: &str| crate::Error::Credentials(reason.to_owned());
        if token.is_empty() {
            return Err(bad("the token is empty"));
        }
        let value: Result<MetadataValue<_>, InvalidMetadataValue> =
            format!("Bearer {token}").parse();
        let mut value = value.map_err(|_| bad("the token has what no header can have"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl TlsOptions {
    /// Whether anything is set, so that a connection without TLS would be a mistake.
    pub(crate) fn is_set(&self) -> bool {
        self.ca.is_some() || self.identity.is_some() || self.server_name.is_some()
    }

    /// What to look at where the transport does not take them.
    pub(crate) fn complaint(&self) -> String {
        let key = self.identity.as_ref().map(|(_, key)| key.as_slice());
        let encrypted = |key: &[u8]| key.windows(9).any(|part| part == b"ENCRYPTED");
        if key.is_some_and(encrypted) {
            return "the private key is encrypted: give it without a passphrase (openssl pkey -in FILE -out PLAIN)"
                .to_owned();
        }
        "the certificates or the key are no PEM, do not go together, or are of a kind that is not supported (RSA, ECDSA on \
         P-256 or P-384, Ed25519)"
            .to_owned()
    }

    /// `timeout` is for the handshake.
    pub(crate) fn config(&self, timeout: Duration) -> ClientTlsConfig {
        let config = ClientTlsConfig::new().timeout(timeout);
        let config = match &self.ca {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_enabled_roots(),
        };
        let config = match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        };
        match &self.server_name {
            Some(name) => config.domain_name(name),
            None => config,
        }
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(Token(value)) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("ca", &self.ca.is_some())
            .field("identity", &self.identity.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}
