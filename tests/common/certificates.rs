//! An authority and the certificates that it signs, made anew for each test.

use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// An authority, with its PEM files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: Files,
}

/// A certificate and its key, in PEM.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// What a list of revoked certificates has of it.
    serial: u64,
}

/// A directory for the files of a server.
pub(crate) struct Files(tempfile::TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(authority("test authority"), key);
        Self::of(issuer.expect("signed"))
    }

    /// One that this one has signed, until so long from now.
    pub(crate) fn below(&self, lasts: Duration) -> Self {
        let mut params = authority("test authority below");
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970() + lasts;
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer);
        Self::of(issuer.expect("signed"))
    }

    fn of(issuer: CertifiedIssuer<'static, KeyPair>) -> Self {
        let files = Files::new();
        files.write("ca.pem", &issuer.pem());
        Self { issuer, files }
    }

    /// Its list of revoked certificates, in PEM, which counts until then.
    pub(crate) fn revokes(&self, revoked: &[&Certified], lasts: Duration) -> String {
        let revoked = revoked.iter().map(|certified| RevokedCertParams {
            serial_number: SerialNumber::from(certified.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(1970, 1, 1) + since_1970() + lasts,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("signed");
        list.pem().expect("PEM")
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

    /// A client's with a name for DNS alone.
    pub(crate) fn client_of_dns(&self, name: &str) -> Certified {
        let name = SanType::DnsName(name.try_into().expect("ASCII"));
        self.sign("", vec![name])
    }

    /// A client's that ends so long from now.
    pub(crate) fn client_for(&self, name: &str, lasts: Duration) -> Certified {
        let mut params = params(name, Vec::new());
        params.not_after = date_time_ymd(1970, 1, 1) + since_1970() + lasts;
        self.finish(params)
    }

    fn sign(&self, name: &str, alternatives: Vec<SanType>) -> Certified {
        self.finish(params(name, alternatives))
    }

    fn finish(&self, mut params: CertificateParams) -> Certified {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Certified {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = params(name, Vec::new());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn params(name: &str, alternatives: Vec<SanType>) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.subject_alt_names = alternatives;
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}

fn since_1970() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.expect("after 1970")
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
        // Whatever the umask is here.
        std::fs::set_permissions(&beside, Permissions::from_mode(0o600)).expect("ours");
        std::fs::rename(beside, &path).expect("in place");
        text_of(&path)
    }

    /// Sets who may do what with a file; "" is the directory.
    pub(crate) fn set_mode(&self, name: &str, mode: u32) {
        let set = std::fs::set_permissions(self.path(name), Permissions::from_mode(mode));
        set.expect("ours");
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
