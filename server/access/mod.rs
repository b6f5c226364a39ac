//! Who may call: what a client has proved becomes an [`Identity`], or a refusal that says nothing about why.
//!
//! - [`book`]: the file of keys, certificates and tenants, read.
//! - `grant`: what lets a caller in, until it is withdrawn.
//! - [`key`]: bearer tokens, and the hashes that are kept of them.
//! - [`certificate`]: the names in a client's certificate. `client_certificate`: those that open connections rest on.
//! - [`rates`]: how much a tenant may ask for in a time; `bucket`: what is left of it.
//! - [`tls`]: the server's certificate, and whose clients' certificates count; `supported`: of which kinds they may be.
//! - [`file`]: files that are read with care. [`reload`]: that are read again when they change. `keep_up`: what follows.

pub mod book;
pub(crate) mod bucket;
pub mod certificate;
mod client_certificate;
pub mod file;
mod grant;
mod keep_up;
pub mod key;
pub mod make_key;
pub mod rates;
pub mod reload;
mod supported;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;

use crate::error::Error;
use crate::identity::{Identity, Roles};
use book::Book;
pub use client_certificate::ClientCertificate;
use client_certificate::ClientCertificates;
use file::Wanted;
pub use grant::Grant;
use grant::{Basis, Known};
use rates::{Allowance, InForce, TenantRates};
use reload::Reloading;
use tls::{Clients, Encryption, Tls, TlsFiles};

/// What decides who may call; every value is valid, the files are not read yet.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessConfig {
    /// Files of TLS; `None`: connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// The file of keys, certificates and tenants.
    pub book: Option<PathBuf>,
    /// What a tenant may ask for that the file says nothing about.
    pub allowance: Allowance,
    /// Who may see how the server fares, and change it.
    pub admin: AdminFor,
    /// `/metrics` asks for a key with the role `metrics` or `admin`.
    pub guard_metrics: bool,
    /// How often the files are looked at: for so long a key counts that has been taken out of them; then its calls end.
    pub reload_interval: Duration,
    /// How long callers are let in while a file cannot be read that could have taken them out.
    pub grace: Duration,
}

/// Who has the role `admin`, or may make use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminFor {
    /// Whoever calls from the server's own machine. Nobody has to say who they are.
    ThisMachine,
    /// Those whom the file gives the role.
    Keys,
    /// Nobody.
    Nobody,
}

/// Why the server cannot tell who may call.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error("--{flag} {}: {problem}", path.display())]
    Unreadable {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// A file says something that cannot be.
    #[error("--{flag} {}: {problem}", path.display())]
    Unusable {
        /// The setting that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What, and where; never a secret.
        problem: String,
    },
}

/// Tells who calls.
pub struct Access {
    book: Option<Arc<Reloading<Book>>>,
    tls: Option<Encryption>,
    /// Those that open connections have shown.
    certificates: ClientCertificates,
    /// It can be told who may call: the files could be read lately.
    known: AtomicBool,
    /// The files are to be looked at now.
    again: Notify,
    grace: Duration,
    rates: TenantRates,
    anonymous: Option<Arc<Identity>>,
    /// The same, of a call from this machine.
    local: Option<Arc<Identity>>,
    admin: AdminFor,
    guard_metrics: bool,
}

/// What a client has shown.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// A bearer token, or the key of a header; `None` if it sent none.
    pub token: Option<&'a [u8]>,
    /// Its connection's certificate, which TLS has verified.
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// The call is of this machine, and nobody has forwarded it.
    pub local: bool,
}

/// What a new connection is encrypted by, and the door for the certificate that its client shows.
pub struct Handshake {
    access: Arc<Access>,
    tls: Arc<Tls>,
}

impl Handshake {
    /// For HTTP/2 alone.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.tls.grpc.clone()
    }

    /// Watches over the certificates that a client has shown and TLS has verified, its own first.
    pub fn client(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<ClientCertificate>> {
        let by = self.tls.clients.as_ref()?;
        let now = || self.access.clients().unwrap_or_else(|| by.clone());
        Some(self.access.certificates.add(chain, by, now))
    }
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not say what it should.
    pub fn open(config: &AccessConfig) -> Result<Self, AccessError> {
        let book = (config.book.as_ref())
            .map(|path| {
                let file = Wanted {
                    flag: "auth-file",
                    path: path.clone(),
                    withdraws: true,
                };
                Reloading::new("auth", vec![file], Book::read)
            })
            .transpose()?
            .map(Arc::new);
        let tls = config.tls.as_ref().map(Encryption::open).transpose()?;
        let asks = book.is_some() || config.tls.as_ref().is_some_and(TlsFiles::asks_clients);
        let rates = TenantRates::new(in_force(book.clone(), config.allowance));
        let anonymous = |admin| {
            let roles = Roles {
                admin,
                ..Roles::EXPLAIN
            };
            (!asks).then(|| {
                Arc::new(Identity {
                    tenant: "".into(),
                    roles,
                    rates: rates.of(""),
                    grant: None,
                })
            })
        };
        let open = config.admin == AdminFor::ThisMachine;
        let (anonymous, local) = (anonymous(false), anonymous(open));
        Ok(Self {
            book,
            tls,
            certificates: ClientCertificates::default(),
            known: AtomicBool::new(true),
            again: Notify::new(),
            grace: config.grace,
            rates,
            anonymous,
            local,
            admin: config.admin,
            guard_metrics: config.guard_metrics,
        })
    }

    /// Whom a call is for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], whatever is wrong with the credentials; [`Error::CallersUnknown`] while the files cannot
    /// be read that would tell.
    pub fn identify(&self, credentials: Credentials<'_>) -> Result<Arc<Identity>, Error> {
        let anonymous = match credentials.local {
            true => &self.local,
            false => &self.anonymous,
        };
        if let Some(anonymous) = anonymous {
            return Ok(anonymous.clone());
        }
        if !self.known.load(Ordering::Acquire) {
            return Err(Error::CallersUnknown);
        }
        // What has ended while it was looked up does so because there is something newer.
        let again = |(_, basis): &(Known, Basis)| match basis.has_ended() {
            true => self.known(credentials),
            false => None,
        };
        let found = self.known(credentials).ok_or(Error::Unauthenticated)?;
        let (Known { tenant, roles }, basis) = again(&found).unwrap_or(found);
        Ok(Arc::new(Identity {
            rates: self.rates.of(&tenant),
            tenant,
            roles,
            grant: Some(Grant::new(basis, credentials.certificate.cloned())),
        }))
    }

    fn known(&self, credentials: Credentials<'_>) -> Option<(Known, Basis)> {
        let certificate = credentials.certificate;
        if certificate.is_some_and(|certificate| certificate.is_revoked()) {
            return None;
        }
        // Before the book, so that whoever comes in by an old one is withdrawn with it.
        let basis = certificate.map(|certificate| certificate.basis());
        let book = self.book.as_ref().map(|book| book.current());
        // A token says more than the connection that it comes on, which may be a proxy's; a wrong one is not made good
        // by a certificate.
        if let Some(token) = credentials.token {
            return book?.by_token(token);
        }
        let names = certificate?.names();
        let known = match book {
            Some(book) => book.by_certificate(names)?,
            None => Known {
                tenant: names.best()?.into(),
                roles: Roles::EXPLAIN,
            },
        };
        Some((known, basis?))
    }

    /// Whether nobody is asked who they are, and who calls from this machine may administer: to be said at the start.
    pub fn admin_is_open(&self) -> bool {
        (self.local.as_ref()).is_some_and(|local| local.roles.admin)
    }

    /// Who may make use of the role `admin`.
    pub fn admin(&self) -> AdminFor {
        self.admin
    }

    /// Whether clients have to say who they are, so that there can be several tenants.
    pub fn knows_tenants(&self) -> bool {
        self.anonymous.is_none()
    }

    /// Whether `/metrics` is for those alone who have the role `metrics` or `admin`.
    pub fn guards_metrics(&self) -> bool {
        self.guard_metrics
    }

    /// Whose clients' certificates count now.
    fn clients(&self) -> Option<Arc<Clients>> {
        let clients = self.tls.as_ref()?.clients.as_ref();
        clients.map(Reloading::current)
    }

    /// How a new connection is encrypted.
    pub fn handshake(self: &Arc<Self>) -> Option<Handshake> {
        let tls = self.tls.as_ref()?.current();
        let access = self.clone();
        Some(Handshake { access, tls })
    }
}

/// What tenants may ask for: what the file says now, and for what it does not say, what is said for all.
fn in_force(book: Option<Arc<Reloading<Book>>>, all: Allowance) -> Option<InForce> {
    let Some(book) = book else {
        return (all != Allowance::default()).then(|| Arc::new(move |_: &str| all) as InForce);
    };
    let in_force = move |tenant: &str| {
        let line = book.current().allowance(tenant);
        line.unwrap_or_default().or(all)
    };
    Some(Arc::new(in_force))
}
