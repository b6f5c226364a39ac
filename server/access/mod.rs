//! Who may call: what a client has proved becomes an [`Identity`], or a refusal that says nothing about why.
//!
//! - [`book`]: the file of keys, certificates and tenants, read.
//! - `grant`: what lets a caller in, until it is withdrawn.
//! - [`key`]: bearer tokens, and the hashes that are kept of them.
//! - [`certificate`]: the names in a client's certificate.
//! - [`rates`]: how much a tenant may ask for in a time; `bucket`: what is left of it.
//! - [`tls`]: the server's certificate, and whose clients' certificates count.
//! - [`reload`]: files that are read again when they change.

pub mod book;
mod bucket;
pub mod certificate;
mod grant;
pub mod key;
pub mod make_key;
pub mod rates;
pub mod reload;
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::identity::{Identity, Roles};
use crate::machine::Machine;
use crate::metrics::Metrics;
use book::Book;
use certificate::CertificateNames;
pub use grant::Grant;
use grant::Known;
use rates::{Allowance, InForce, TenantRates};
use reload::{Reloading, Source};
use tls::{Tls, TlsFiles};

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
    /// `/metrics` asks for a key with the role `admin`.
    pub guard_metrics: bool,
    /// How often the files are looked at: for so long a key counts that has been taken out of them; then its calls end.
    pub reload_interval: Duration,
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
    tls: Option<Reloading<Tls>>,
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
    /// The names in the certificate that TLS has verified.
    pub certificate: Option<&'a CertificateNames>,
    /// The call is of this machine, and nobody has forwarded it.
    pub local: bool,
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that cannot be read, or that does not say what it should.
    pub fn open(config: &AccessConfig) -> Result<Self, AccessError> {
        let book = (config.book.as_ref())
            .map(|path| Reloading::new("auth", vec![("auth-file", path.clone())], Book::read))
            .transpose()?
            .map(Arc::new);
        let tls = match &config.tls {
            Some(files) => {
                let (sources, required) = (files.sources(), files.client_required);
                let read = move |sources: &[Source], _: Option<&Tls>| Tls::read(sources, required);
                Some(Reloading::new("tls", sources, read)?)
            }
            None => None,
        };
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
        if local.as_ref().is_some_and(|local| local.roles.admin) {
            tracing::warn!(
                "AdminService is open: whoever can connect from this machine may read what it tells, clear the caches and \
                 change the corpus, and so may all whom a forwarder on it lets through that adds no headers; --admin keys \
                 or --admin off closes it"
            );
        }
        Ok(Self {
            book,
            tls,
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
    /// [`Error::Unauthenticated`], whatever is wrong with the credentials.
    pub fn identify(&self, credentials: Credentials<'_>) -> Result<Arc<Identity>, Error> {
        let anonymous = match credentials.local {
            true => &self.local,
            false => &self.anonymous,
        };
        if let Some(anonymous) = anonymous {
            return Ok(anonymous.clone());
        }
        let book = self.book.as_ref().map(|book| book.current());
        // A token says more than the connection that it comes on, which may be a proxy's; a wrong one is not made good
        // by a certificate.
        let found = match (credentials.token, credentials.certificate) {
            (Some(token), _) => book.as_ref().and_then(|book| book.by_token(token)),
            (None, Some(names)) => match &book {
                Some(book) => book.by_certificate(names),
                None => names.best().map(|name| Known::always(name, Roles::EXPLAIN)),
            },
            (None, None) => None,
        };
        let Known {
            tenant,
            roles,
            grant,
        } = found.ok_or(Error::Unauthenticated)?;
        Ok(Arc::new(Identity {
            rates: self.rates.of(&tenant),
            tenant,
            roles,
            grant,
        }))
    }

    /// Who may make use of the role `admin`.
    pub fn admin(&self) -> AdminFor {
        self.admin
    }

    /// Whether `/metrics` is for admins alone.
    pub fn guards_metrics(&self) -> bool {
        self.guard_metrics
    }

    /// How connections are encrypted now.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.as_ref().map(Reloading::current)
    }

    /// Keeps keys and certificates as their files have them, until `stop`.
    pub async fn keep_up(
        self: Arc<Self>,
        every: Duration,
        metrics: Arc<Metrics>,
        machine: Machine,
        stop: CancellationToken,
    ) {
        self.tell_end(&metrics);
        if self.book.is_none() && self.tls.is_none() {
            return;
        }
        let mut ticks = tokio::time::interval(every);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (access, metrics) = (self.clone(), metrics.clone());
            // Reading a file blocks.
            if let Err(panic) = machine.compute(move || access.look(&metrics)).await {
                tracing::error!(%panic, "reading changed files panicked");
            }
        }
    }

    /// Takes what is good of the files that have changed; what is not changes nothing.
    fn look(&self, metrics: &Metrics) {
        let mut told = |file: &'static str, good| metrics.access.reloaded(file, good);
        if let Some(book) = &self.book
            && let Some(before) = book.look(&mut told)
        {
            let withdrawn = before.withdraw_all_but(&book.current());
            if withdrawn > 0 {
                tracing::info!(
                    withdrawn,
                    "keys or certificates count no more; their calls end"
                );
            }
        }
        if let Some(tls) = &self.tls {
            tls.look(&mut told);
        }
        self.tell_end(metrics);
    }

    fn tell_end(&self, metrics: &Metrics) {
        if let Some(tls) = self.tls() {
            metrics.access.certificate_ends(tls.not_after);
        }
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
