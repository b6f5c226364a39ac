//! An authority and the certificates that it signs, made anew for each test.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// An authority, with its PEM files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: Files,
}

/// A certificate and its key, in PEM.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A directory for the files of a server.
pub(crate) struct Files(tempfile::TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let files = Files::new();
        files.write("ca.pem", &issuer.pem());
        Self { issuer, files }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file to trust.
    pub(crate) fn file(&self) -> PathBuf {
        self.files.path("ca.pem")
    }

    /// A server's, for `localhost` and 127.0.0.1.
    pub(crate) fn server(&self) -> Certified {
        let name = SanType::DnsName("localhost".try_into().expect("ASCII"));
        self.sign(
            "server",
            vec![name, SanType::IpAddress(Ipv4Addr::LOCALHOST.into())],
        )
    }

    /// A client's, with a common name and, if it is not empty, a URI.
    pub(crate) fn client(&self, name: &str, uri: &str) -> Certified {
        let uri = (!uri.is_empty()).then(|| SanType::URI(uri.try_into().expect("ASCII")));
        self.sign(name, uri.into_iter().collect())
    }

    /// Files with a certificate for a client, and its key.
    pub(crate) fn client_files(&self) -> (PathBuf, PathBuf) {
        let client = self.client("client", "");
        let certificate = self.files.write("client.pem", &client.certificate);
        (
            certificate.into(),
            self.files.write("client.key", &client.key).into(),
        )
    }

    fn sign(&self, name: &str, alternatives: Vec<SanType>) -> Certified {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.subject_alt_names = alternatives;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file whole, as a secret's mount does: beside it, then in its place.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        let beside = self.path("new");
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(beside, &path).expect("in place");
        text_of(&path)
    }

    /// Writes a server's certificate and key, and gives the flags that name them.
    pub(crate) fn server_flags(&self, server: &Certified) -> Vec<String> {
        let certificate = self.write("cert.pem", &server.certificate);
        let key = self.write("key.pem", &server.key);
        vec!["--tls-cert".into(), certificate, "--tls-key".into(), key]
    }
}

fn text_of(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
