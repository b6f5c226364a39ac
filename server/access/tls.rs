//! The server's certificate, and whose clients' certificates count: PEM files, read into what rustls wants.
//!
//! With a list of revoked certificates, every certificate from a client's own up to below its authority must be known to be
//! good: each that signs has a list in the file, and a list that is past its next update counts for nothing. So what is
//! not known fails closed.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::AccessError;
use super::file::{Source, Wanted};
use super::reload::Reloading;
use super::supported;

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Lists of clients' certificates that they have revoked.
    pub client_crl: Option<PathBuf>,
    /// A client without a certificate is turned away; otherwise it must have a key.
    pub client_required: bool,
}

/// What the files of TLS say. The server's own and those about clients change apart, so that what is wrong with the ones
/// does not hold up the others.
pub(super) struct Encryption {
    pub(super) own: Reloading<Own>,
    pub(super) clients: Option<Reloading<Clients>>,
    tls: RwLock<Arc<Tls>>,
}

/// How connections are encrypted.
pub struct Tls {
    /// For HTTP/2 alone.
    pub grpc: Arc<ServerConfig>,
    /// Whose certificates its handshakes let in.
    pub(super) clients: Option<Arc<Clients>>,
}

/// The server's own certificate.
pub(super) struct Own {
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    key: CertifiedKey,
    /// When it ends, in seconds since 1970.
    pub(super) not_after: i64,
}

/// Whose clients' certificates count.
pub(super) struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    /// When the first list of revoked ones is past its next update, in seconds since 1970; `None` without one.
    pub(super) next_update: Option<i64>,
}

impl TlsFiles {
    /// Whether clients are asked for certificates.
    pub fn asks_clients(&self) -> bool {
        self.client_ca.is_some()
    }
}

impl Encryption {
    pub(super) fn open(files: &TlsFiles) -> Result<Self, AccessError> {
        let wanted = |flag, path: &PathBuf, withdraws| Wanted {
            flag,
            path: path.clone(),
            withdraws,
        };
        let own = vec![
            wanted("tls-cert", &files.certificate, false),
            wanted("tls-key", &files.key, false),
        ];
        let own = Reloading::new("tls", own, |sources, _| Own::read(sources))?;
        let clients = match &files.client_ca {
            Some(authorities) => {
                let mut about = vec![wanted("tls-client-ca", authorities, true)];
                let lists = files.client_crl.as_ref();
                about.extend(lists.map(|path| wanted("tls-client-crl", path, true)));
                let required = files.client_required;
                let read =
                    move |sources: &[Source], _: Option<&Clients>| Clients::read(sources, required);
                Some(Reloading::new("tls_client", about, read)?)
            }
            None => None,
        };
        let tls = Tls::of(&own.current(), clients.as_ref().map(Reloading::current));
        Ok(Self {
            own,
            clients,
            tls: RwLock::new(Arc::new(tls)),
        })
    }

    /// How new connections are encrypted.
    pub(super) fn current(&self) -> Arc<Tls> {
        let tls = self.tls.read();
        tls.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// New connections get what the files say now.
    pub(super) fn renew(&self) {
        let clients = self.clients.as_ref().map(Reloading::current);
        let now = Arc::new(Tls::of(&self.own.current(), clients));
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Tls {
    fn of(own: &Own, clients: Option<Arc<Clients>>) -> Self {
        let builder = own.builder.clone();
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier.clone()),
            None => builder.with_no_client_auth(),
        };
        let key = Arc::new(SingleCertAndKey::from(own.key.clone()));
        let mut grpc = builder.with_cert_resolver(key);
        grpc.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            grpc: Arc::new(grpc),
            clients,
        }
    }
}

impl Own {
    fn read(sources: &[Source]) -> Result<Self, AccessError> {
        let [certificate, key] = sources else {
            unreachable!("a certificate and a key")
        };
        let chain = certificates(certificate)?;
        let not_after = expiry(certificate, &chain)?;
        let private = PrivateKeyDer::from_pem_slice(&key.bytes)
            .map_err(|_| key.unusable(supported::no_key_in(&key.bytes)))?;
        if let Some(wrong) = chain.first().and_then(supported::wrong_with) {
            return Err(certificate.unusable(wrong));
        }
        let provider = provider();
        let key = CertifiedKey::from_der(chain, private, &provider)
            .map_err(|error| key.unusable(supported::wrong_pair(&error)))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate.unusable(error))?;
        Ok(Self {
            builder,
            key,
            not_after,
        })
    }
}

impl Clients {
    pub(super) fn read(sources: &[Source], required: bool) -> Result<Self, AccessError> {
        let [authorities, lists @ ..] = sources else {
            unreachable!("authorities, and perhaps lists")
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities)? {
            if let Some(wrong) = supported::wrong_with_authority(&certificate) {
                return Err(authorities.unusable(wrong));
            }
            (roots.add(certificate)).map_err(|error| authorities.unusable(error))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let mut next_update = None;
        if let [source] = lists {
            let (lists, next) = revocations(source)?;
            if next < seconds(UnixTime::now()) {
                tracing::warn!(file = %source.path.display(), "a list of revoked certificates is past its next update; its authority's clients are refused");
            }
            builder = builder.with_crls(lists).enforce_revocation_expiration();
            next_update = Some(next);
        }
        if !required {
            builder = builder.allow_unauthenticated();
        }
        let of = lists.first().unwrap_or(authorities);
        let verifier = builder.build().map_err(|error| of.unusable(error))?;
        Ok(Self {
            verifier,
            next_update,
        })
    }

    /// Whether a client's certificate, its own first, is good; then gives until when that stays so, in seconds since 1970.
    ///
    /// # Errors
    /// It is not.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<i64, rustls::Error> {
        let Some((own, others)) = chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        self.verifier.verify_client_cert(own, others, now)?;
        // Of what has ended already, nothing was needed.
        let ahead = self.ends(chain).filter(|end| *end >= seconds(now));
        Ok(ahead.min().unwrap_or(i64::MAX))
    }

    /// The first time at which something ends that a client's certificate may rest on, in seconds since 1970.
    pub(super) fn until(&self, chain: &[CertificateDer<'_>]) -> i64 {
        self.ends(chain).min().unwrap_or(i64::MAX)
    }

    fn ends(&self, chain: &[CertificateDer<'_>]) -> impl Iterator<Item = i64> {
        let parsed = chain
            .iter()
            .filter_map(|one| X509Certificate::from_der(one).ok());
        let ends = parsed.map(|(_, one)| one.validity().not_after.timestamp());
        ends.chain(self.next_update)
    }
}

/// Since 1970.
pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The lists, and when the first of them is past its next update.
fn revocations(
    source: &Source,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, i64), AccessError> {
    let found: Result<Vec<_>, _> =
        CertificateRevocationListDer::pem_slice_iter(&source.bytes).collect();
    let lists = found.map_err(|error| source.unusable(format!("is no PEM: {error}")))?;
    let mut first = None;
    for (number, list) in (1..).zip(&lists) {
        let bad = |what| source.unusable(format!("list {number} {what}"));
        let (_, list) =
            CertificateRevocationList::from_der(list).map_err(|_| bad("does not parse"))?;
        let next = list
            .next_update()
            .ok_or_else(|| bad("has no next update"))?;
        let next = next.timestamp();
        first = Some(first.map_or(next, |first: i64| first.min(next)));
    }
    match first {
        Some(first) => Ok((lists, first)),
        None => Err(source.unusable("has no list of revoked certificates (X509 CRL) in PEM")),
    }
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
