//! Which certificates and keys this server can work with, and what to do about others. TLS would say it at every handshake,
//! in words of its own; so it is said when the files are read.

use rustls::Error as TlsError;
use rustls::pki_types::CertificateDer;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_SIG_ED25519};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Bits of RSA keys that ring verifies; it signs with half as many at most.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const KINDS: &str = "RSA of 2048 bits and more (4096 at most for a private key here), ECDSA on P-256 or P-384, and Ed25519 are supported";

/// What is wrong with a certificate that shows who somebody is; `None`: nothing.
pub(super) fn wrong_with(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    if parsed.version() != X509Version::V3 {
        return Some(
            "is a certificate of an old version of X.509 (1 or 2), and version 3 is needed: issue it with extensions, such as the names of \
             the server (openssl x509 -req ... -extfile FILE)"
                .to_owned(),
        );
    }
    wrong_key(parsed.public_key())
}

/// What is wrong with an authority's certificate; `None`: nothing. Old ones of version 1 count.
pub(super) fn wrong_with_authority(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    wrong_key(parsed.public_key())
}

fn wrong_key(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    let curve = || key.algorithm.parameters.as_ref()?.as_oid().ok();
    let supported = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => RSA_BITS.contains(&rsa.key_size()),
        Ok(PublicKey::EC(_)) => {
            curve().is_some_and(|curve| [OID_EC_P256, OID_NIST_EC_P384].contains(&curve))
        }
        _ => key.algorithm.algorithm == OID_SIG_ED25519,
    };
    (!supported)
        .then(|| format!("has a certificate whose key is of a kind that cannot be used: {KINDS}"))
}

/// Why there is no private key in a file.
pub(super) fn no_key_in(pem: &[u8]) -> &'static str {
    let encrypted = pem.windows(9).any(|part| part == b"ENCRYPTED");
    if encrypted {
        "has an encrypted private key; a server starts without anybody to ask: give it in a file without a passphrase that \
         nobody else can read (openssl pkey -in FILE -out PLAIN)"
    } else {
        "has no private key in PEM"
    }
}

/// Why a private key cannot be used with a certificate that can.
pub(super) fn wrong_pair(error: &TlsError) -> String {
    match error {
        TlsError::InconsistentKeys(_) => {
            "does not go with --tls-cert: it is the key of another certificate than the first one there".to_owned()
        }
        TlsError::General(_) => format!("is of a kind that cannot be used: {KINDS}"),
        other => format!("does not go with --tls-cert: {other}"),
    }
}
