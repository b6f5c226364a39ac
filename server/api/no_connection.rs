//! Why no connection came about with a client, in words of our own: what the client sent may be in those of the libraries.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError, InvalidMessage};

/// Why a TLS handshake failed, where it took too long without an error. `None`: its client hung up, as those do that only
/// look whether the port is open.
pub(super) fn of_handshake(error: Option<&io::Error>) -> Option<&'static str> {
    let Some(error) = error else {
        return Some("the TLS handshake took longer than --handshake-timeout");
    };
    let error = error.get_ref()?.downcast_ref::<TlsError>()?;
    Some(of_tls(error))
}

fn of_tls(error: &TlsError) -> &'static str {
    use AlertDescription as Alert;
    match error {
        TlsError::NoCertificatesPresented => {
            "the client has no certificate, which --tls-client-ca asks for"
        }
        TlsError::InvalidCertificate(problem) => match problem {
            // Two authorities may have the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the client's certificate is of no authority in --tls-client-ca"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the client's certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the client's certificate does not count yet"
            }
            CertificateError::Revoked => "the client's certificate is revoked",
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => {
                "no current list of revocations says whether the client's certificate counts"
            }
            _ => "the client's certificate cannot be verified",
        },
        // The last where two authorities have the same name: then it is the signature that does not fit.
        TlsError::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::DecryptError,
        ) => "the client does not trust this server's certificate",
        TlsError::AlertReceived(_) => "the client ended the TLS handshake",
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the client does not speak TLS: it has to call https://"
        }
        TlsError::InvalidMessage(_) => "the client does not speak TLS as it should",
        TlsError::PeerIncompatible(_) => {
            "client and server have no version or cipher of TLS in common"
        }
        _ => "the client does not keep to the protocol of TLS",
    }
}

/// Why a connection ended on which there was no call, where that is because its client speaks another protocol.
pub(super) fn of_protocol(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let preface = error.reason() == Some(h2::Reason::PROTOCOL_ERROR) && !error.is_remote();
            return preface.then_some(
                "the client does not speak gRPC: it calls https:// where there is no TLS, or means the port of HTTP",
            );
        }
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse)
        {
            return Some(
                "the client does not speak HTTP: it calls https://, or means the port of gRPC",
            );
        }
        cause = error.source();
    }
    None
}
