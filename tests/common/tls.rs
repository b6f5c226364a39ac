//! TLS by hand: a client's end of it, and TLS in front of a server that has none. So TLS is tested with every Redis, also with one that was built without it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::common::certificates::{Authority, Certified};

/// The first byte of who speaks TLS.
const TLS_HANDSHAKE: u8 = 22;

impl Authority {
    /// Serves TLS under the names `localhost` and 127.0.0.1 and passes everything on to a port, until the runtime ends.
    /// With `ask_client`, only to clients with a certificate of the authority.
    pub(crate) async fn proxy(&self, port: u16, ask_client: bool) -> u16 {
        self.start_proxy(port, ask_client, false).await
    }

    /// The same, and who speaks no TLS is passed on, too: a Sentinel tells clients the port at which it watches its server.
    pub(crate) async fn proxy_or_plain(&self, port: u16) -> u16 {
        self.start_proxy(port, false, true).await
    }

    async fn start_proxy(&self, port: u16, ask_client: bool, plain: bool) -> u16 {
        let server = self.server();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let certificate =
            |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let builder = if ask_client {
            let mut roots = RootCertStore::empty();
            roots.add(certificate(&self.pem())).expect("an authority");
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).expect("a key");
        let config = builder.with_single_cert(vec![certificate(&server.certificate)], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate")));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, acceptor, port, plain));
        address.port()
    }
}

/// A client's end. Its clones share sessions, so that those of a server can be resumed.
#[derive(Clone)]
pub(crate) struct TlsClient(TlsConnector);

impl TlsClient {
    /// Trusts an authority, and shows a certificate with those that have signed it.
    pub(crate) fn new(trusts: &Authority, shows: &Certified, by: &[&Authority]) -> Self {
        let certificate =
            |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&trusts.pem())).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut chain = vec![certificate(&shows.certificate)];
        chain.extend(by.iter().map(|authority| certificate(&authority.pem())));
        let key = PrivateKeyDer::from_pem_slice(shows.key.as_bytes()).expect("a key");
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key);
        let mut config = config.expect("a certificate and its key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// Who is not let in may hear of it only when they read.
    pub(crate) async fn connect(
        &self,
        server: SocketAddr,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(server).await?;
        let name = "localhost".try_into().expect("a name");
        self.0.connect(name, tcp).await
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, port: u16, plain: bool) {
    while let Ok((mut client, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut server = TcpStream::connect(server).await.ok()?;
            let mut first = [0];
            if plain && client.peek(&mut first).await.ok()? == 1 && first[0] != TLS_HANDSHAKE {
                return copy_bidirectional(&mut client, &mut server).await.ok();
            }
            // A client that does not trust us, or that we do not trust, is gone here.
            let mut client = acceptor.accept(client).await.ok()?;
            copy_bidirectional(&mut client, &mut server).await.ok()
        });
    }
}
