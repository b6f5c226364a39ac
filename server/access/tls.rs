//! The server's certificate, and whose clients' certificates count: PEM files, read into what rustls wants.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::AccessError;
use super::reload::Source;

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// A client without a certificate is turned away; otherwise it must have a key.
    pub client_required: bool,
}

/// How connections are encrypted.
pub struct Tls {
    /// For HTTP/2 alone.
    pub grpc: Arc<ServerConfig>,
    /// When the server's certificate ends, in seconds since 1970.
    pub not_after: i64,
}

impl TlsFiles {
    /// Whether clients are asked for certificates.
    pub fn asks_clients(&self) -> bool {
        self.client_ca.is_some()
    }

    pub(super) fn sources(&self) -> Vec<(&'static str, PathBuf)> {
        let ca = self.client_ca.clone().map(|path| ("tls-client-ca", path));
        let own = [
            ("tls-cert", self.certificate.clone()),
            ("tls-key", self.key.clone()),
        ];
        own.into_iter().chain(ca).collect()
    }
}

impl Tls {
    pub(super) fn read(sources: &[Source], client_required: bool) -> Result<Self, AccessError> {
        let [certificate, key, client_ca @ ..] = sources else {
            unreachable!("a certificate and a key")
        };
        let chain = certificates(certificate)?;
        let not_after = expiry(certificate, &chain)?;
        let private = PrivateKeyDer::from_pem_slice(&key.bytes)
            .map_err(|_| key.unusable("has no private key in PEM"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate.unusable(error))?;
        let builder = match client_ca {
            [authorities, ..] => {
                builder.with_client_cert_verifier(verifier(authorities, client_required, provider)?)
            }
            [] => builder.with_no_client_auth(),
        };
        let mut grpc = builder
            .with_single_cert(chain, private)
            .map_err(|error| key.unusable(format!("does not go with --tls-cert: {error}")))?;
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            grpc: Arc::new(grpc),
            not_after,
        })
    }
}

fn verifier(
    authorities: &Source,
    required: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, AccessError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        (roots.add(certificate)).map_err(|error| authorities.unusable(error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(|error| authorities.unusable(error))
}

fn certificates(source: &Source) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&source.bytes).collect();
    let found = found.map_err(|error| source.unusable(format!("is no PEM: {error}")))?;
    if found.is_empty() {
        return Err(source.unusable("has no certificate in PEM"));
    }
    Ok(found)
}

fn expiry(source: &Source, chain: &[CertificateDer<'_>]) -> Result<i64, AccessError> {
    let leaf = chain.first().map(|leaf| X509Certificate::from_der(leaf));
    let Some(Ok((_, leaf))) = leaf else {
        return Err(source.unusable("has a certificate that does not parse"));
    };
    Ok(leaf.validity().not_after.timestamp())
}
