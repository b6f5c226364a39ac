//! TLS in front of a server that has none: an authority of the test's own, and a proxy with a certificate of it. So TLS is
//! tested with every Redis, also with one that was built without it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// An authority, with its PEM files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: tempfile::TempDir,
}

/// PEM files of a client.
pub(crate) struct ClientFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, directory }
    }

    /// The file to trust.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for a client.
    pub(crate) fn client(&self) -> ClientFiles {
        let (cert, key) = self.certify("client");
        let files = ClientFiles {
            cert: self.directory.path().join("client.pem"),
            key: self.directory.path().join("client.key"),
        };
        std::fs::write(&files.cert, cert.pem()).expect("a file");
        std::fs::write(&files.key, key.serialize_pem()).expect("a file");
        files
    }

    /// Serves TLS under the names `localhost` and 127.0.0.1 and passes everything on to a port, until the runtime ends.
    /// With `ask_client`, only to clients with a certificate of the authority.
    pub(crate) async fn proxy(&self, port: u16, ask_client: bool) -> u16 {
        let (cert, key) = self.certify("localhost");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = if ask_client {
            let mut roots = RootCertStore::empty();
            let root: CertificateDer<'static> = self.issuer.der().clone();
            roots.add(root).expect("an authority");
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = builder.with_single_cert(vec![cert.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate")));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, acceptor, port));
        address.port()
    }

    fn certify(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a signature");
        (cert, key)
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, port: u16) {
    while let Ok((client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust us, or that we do not trust, is gone here.
            let mut client = acceptor.accept(client).await.ok()?;
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut server = TcpStream::connect(server).await.ok()?;
            copy_bidirectional(&mut client, &mut server).await.ok()
        });
    }
}
