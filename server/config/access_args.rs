//! Settings of encryption, identities and connections.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::access::rates::{Allowance, Rate};
use crate::access::tls::TlsFiles;
use crate::access::{AccessConfig, AdminFor};
use crate::api::ConnectionLimits;

/// A key that has been taken out of its file never counts for longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Args)]
pub(super) struct AccessArgs {
    /// PEM file with the server's certificate, and those up to its authority. With --tls-key, gRPC is served over TLS
    /// alone. The file is read again when it changes, and new connections get the new certificate; a file that is of no
    /// use changes nothing, is logged and counted
    #[arg(long, env = "CODE_EXPLAINER_TLS_CERT", value_name = "FILE")]
    #[arg(requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// PEM file with the certificate's private key
    #[arg(long, env = "CODE_EXPLAINER_TLS_KEY", value_name = "FILE")]
    #[arg(requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// PEM file with the authorities of clients' certificates (mTLS). Without --auth-file, a certificate's first name (URI,
    /// DNS, email, common name) is its tenant, with its kind (dns:build.acme.example), and it may have code explained; with
    /// it, `cert` lines say who is who. Read again when it changes: a connection whose certificate has no authority in it
    /// any more ends, as does one whose certificate has reached its end
    #[arg(long, env = "CODE_EXPLAINER_TLS_CLIENT_CA", value_name = "FILE")]
    #[arg(requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,

    /// PEM file with lists of revoked client certificates (X509 CRL), one from each authority of --tls-client-ca and from
    /// each between it and a client. A certificate is refused whose authority has no list in it, or one that is past its
    /// next update. Read again when it changes: connections of certificates that a new list has in it end
    #[arg(long, env = "CODE_EXPLAINER_TLS_CLIENT_CRL", value_name = "FILE")]
    #[arg(requires = "tls_client_ca")]
    tls_client_crl: Option<PathBuf>,

    /// Whether every client needs a certificate. optional: those without one need a key of --auth-file
    #[arg(
        long,
        env = "CODE_EXPLAINER_TLS_CLIENT_AUTH",
        default_value = "required"
    )]
    tls_client_auth: ClientAuth,

    /// File of identities; with it, every call but health's needs one. Lines: `key NAME blake3:HASH tenant=T
    /// roles=explain,admin` (`make-key` prints them), `cert dns:NAME tenant=T roles=explain`, `cert * roles=explain`, and
    /// `tenant T items=600/min tokens=200000/min`. Roles are explain, admin and metrics. By `cert *` a certificate's tenant is
    /// its first name with its kind, such as dns:NAME. Read again when it changes; a file with a bad line changes nothing,
    /// is logged and counted. As all files here it must be such that only root and the server's own user can write it
    #[arg(long, env = "CODE_EXPLAINER_AUTH_FILE", value_name = "FILE")]
    auth_file: Option<PathBuf>,

    /// Items, and texts to embed, that a tenant may ask for in a time, such as 600/min (or /s, /h, /day), unless --auth-file says otherwise.
    /// More are refused with RESOURCE_EXHAUSTED and the time to wait
    #[arg(long, env = "CODE_EXPLAINER_RATE_ITEMS", value_name = "RATE")]
    rate_items: Option<Rate>,

    /// Tokens that a tenant may ask for in a time: those of a prompt and those that its answer may have, and those of texts
    /// to embed. Answers and vectors from the caches take none
    #[arg(long, env = "CODE_EXPLAINER_RATE_TOKENS", value_name = "RATE")]
    rate_tokens: Option<Rate>,

    /// Make secrets in snippets unreadable (cloud and service keys, tokens, private keys, passwords) before the model, the
    /// cache or a trace sees them. An answer's receipt notes how many there were
    #[arg(long, env = "CODE_EXPLAINER_REDACT_SECRETS")]
    #[arg(num_args = 0..=1, default_value = "off", default_missing_value = "on")]
    redact_secrets: Switch,

    /// Who may call AdminService, which shows how the server fares, clears and fills caches, and changes the corpus. A call
    /// is of this machine when it comes from a loopback address and has nothing that proxies add (Forwarded,
    /// X-Forwarded-*, X-Real-IP, Via, X-Envoy-* and their like, or another host's name). A forwarder that adds nothing
    /// (ssh -L, kubectl port-forward, a TCP proxy) looks like this machine: set keys or off where there is one
    #[arg(long, env = "CODE_EXPLAINER_ADMIN", default_value = "auto")]
    admin: Admin,

    /// Whether /metrics needs a key with the role metrics or admin, as a bearer token. The probes never do
    #[arg(long, env = "CODE_EXPLAINER_METRICS_AUTH", default_value = "off")]
    metrics_auth: Switch,

    /// How often the files of certificates and keys are looked at; SIGHUP has it done at once. So long a key
    /// counts that was taken out of its file;
    /// looking reads a few kilobytes and costs less than a millisecond
    #[arg(long, env = "CODE_EXPLAINER_RELOAD_INTERVAL", value_name = "TIME")]
    #[arg(default_value = "2s")]
    reload_interval: humantime::Duration,

    /// How long callers are let in while --auth-file, --tls-client-ca or --tls-client-crl cannot be read (deleted, no
    /// permission, a disk that fails or hangs): who was taken out of it cannot be told. Then all calls are refused with
    /// UNAVAILABLE, open ones end, and the server is not ready, until it can be read again
    #[arg(long, env = "CODE_EXPLAINER_AUTH_GRACE", value_name = "TIME")]
    #[arg(default_value = "30s")]
    auth_grace: humantime::Duration,
}

#[derive(Debug, Args)]
pub(super) struct ConnectionArgs {
    /// Connections for gRPC at once. When there are so many, the one that has been idle for longest is closed for a new
    /// one, and where all have calls, the new one. A connection is a file: the server raises its limit of open files
    /// (`ulimit -n`) as far as it may, keeps some back for files, Redis and probes, and takes fewer connections where that
    /// is not enough, which the log tells
    #[arg(
        long,
        env = "CODE_EXPLAINER_CONNECTIONS",
        default_value_t = 4096,
        value_name = "N"
    )]
    connections: usize,

    /// The same from one address, or one /64 of IPv6. By default half of --connections, and 16 at least. Behind a balancer
    /// all clients have its address: give it what the balancer opens
    #[arg(long, env = "CODE_EXPLAINER_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    connections_per_address: Option<usize>,

    /// Connections for HTTP (/metrics and the probes) at once, half of them from one address. The one that has not been used
    /// for longest is closed for a new one
    #[arg(
        long,
        env = "CODE_EXPLAINER_HTTP_CONNECTIONS",
        default_value_t = 64,
        value_name = "N"
    )]
    http_connections: usize,

    /// Calls that a connection has open at once; a client keeps more waiting
    #[arg(
        long,
        env = "CODE_EXPLAINER_CONNECTION_STREAMS",
        default_value_t = 256,
        value_name = "N"
    )]
    connection_streams: u32,

    /// Calls that clients at one address, or one /64 of IPv6, may take back (cancel, or leave) within a second of making
    /// them, before they are answered: so many at once, and a quarter of it more in each second. Beyond that, a connection on
    /// which it happens ends like an old one (running calls go on, unless its client goes on making new ones), and new ones
    /// come 250ms apart. Behind a balancer or NAT all clients have one address: give it more. 0: they are not counted, for a
    /// balancer that bounds its clients itself
    #[arg(
        long,
        env = "CODE_EXPLAINER_RESETS_PER_ADDRESS",
        default_value_t = 1024,
        value_name = "N"
    )]
    resets_per_address: u32,

    /// All headers of a call, in bytes
    #[arg(
        long,
        env = "CODE_EXPLAINER_HEADER_BYTES",
        default_value_t = 16384,
        value_name = "N"
    )]
    header_bytes: u32,

    /// The largest message, in bytes; one that is larger ends its call. By default four times --max-code-bytes, and at
    /// least 4 MiB, so that an item which is somewhat too large gets an error of its own
    #[arg(long, env = "CODE_EXPLAINER_MESSAGE_BYTES", value_name = "N")]
    message_bytes: Option<usize>,

    /// Longest time for a TLS handshake, and then for a connection's first call
    #[arg(
        long,
        env = "CODE_EXPLAINER_HANDSHAKE_TIMEOUT",
        default_value = "10s",
        value_name = "TIME"
    )]
    handshake_timeout: humantime::Duration,

    /// A connection whose client takes nothing of what is sent to it for so long is closed. A client that reads slowly, or
    /// that gRPC's flow control holds up, is no matter of this
    #[arg(
        long,
        env = "CODE_EXPLAINER_WRITE_TIMEOUT",
        default_value = "30s",
        value_name = "TIME"
    )]
    write_timeout: humantime::Duration,

    /// A connection without a call is closed after this; one of HTTP too, which may stay open between scrapes
    #[arg(
        long,
        env = "CODE_EXPLAINER_CONNECTION_IDLE",
        default_value = "15m",
        value_name = "TIME"
    )]
    connection_idle: humantime::Duration,

    /// A connection takes no more calls after this, give or take a tenth, so that clients spread over new replicas. By
    /// default it may grow as old as it likes
    #[arg(long, env = "CODE_EXPLAINER_CONNECTION_MAX_AGE", value_name = "TIME")]
    connection_max_age: Option<humantime::Duration>,

    /// After that, the time its open calls have before they are cut off
    #[arg(
        long,
        env = "CODE_EXPLAINER_CONNECTION_GRACE",
        default_value = "10m",
        value_name = "TIME"
    )]
    connection_grace: humantime::Duration,

    /// How often a client is asked whether it is still there
    #[arg(
        long,
        env = "CODE_EXPLAINER_KEEPALIVE",
        default_value = "30s",
        value_name = "TIME"
    )]
    keepalive: humantime::Duration,

    /// How long its answer may take
    #[arg(
        long,
        env = "CODE_EXPLAINER_KEEPALIVE_TIMEOUT",
        default_value = "20s",
        value_name = "TIME"
    )]
    keepalive_timeout: humantime::Duration,
}

/// Whether every client needs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ClientAuth {
    /// Without one there is no connection
    Required,
    /// A key will do as well
    Optional,
}

/// Who may call AdminService.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Admin {
    /// As open where --listen is a loopback address and neither --auth-file nor --tls-client-ca is set, otherwise as keys
    Auto,
    /// Whoever calls from this machine, without a key; not with --auth-file or --tls-client-ca
    Open,
    /// Who has a key, or a certificate, with the role admin in --auth-file; without that file nobody
    Keys,
    /// Nobody
    Off,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl AccessArgs {
    /// Whether secrets in snippets are made unreadable.
    pub(super) fn redacts(&self) -> bool {
        self.redact_secrets == Switch::On
    }

    /// What one value alone cannot tell.
    pub(super) fn validate(self, listen: SocketAddr) -> Result<AccessConfig, String> {
        let optional = self.tls_client_auth == ClientAuth::Optional;
        if optional && self.tls_client_ca.is_some() && self.auth_file.is_none() {
            return Err("--tls-client-auth optional lets clients without a certificate in, which need a key: set \
                        --auth-file"
                .into());
        }
        if self.metrics_auth == Switch::On && self.auth_file.is_none() {
            return Err("--metrics-auth on asks for a key: set --auth-file".into());
        }
        let asks = self.auth_file.is_some() || self.tls_client_ca.is_some();
        if self.admin == Admin::Open && asks {
            return Err("--admin open asks nobody for a key, but --auth-file or --tls-client-ca does: set --admin keys, or \
                        leave them out"
                .into());
        }
        let admin = match self.admin {
            Admin::Auto if !asks && listen.ip().is_loopback() => AdminFor::ThisMachine,
            Admin::Open => AdminFor::ThisMachine,
            Admin::Auto | Admin::Keys => AdminFor::Keys,
            Admin::Off => AdminFor::Nobody,
        };
        if self.reload_interval.is_zero() {
            return Err("--reload-interval is 0s, expected a time".into());
        }
        for (flag, time) in [
            ("reload-interval", self.reload_interval),
            ("auth-grace", self.auth_grace),
        ] {
            if *time > LONGEST {
                return Err(format!("--{flag} is {time}, expected at most a day"));
            }
        }
        let tls = self
            .tls_cert
            .zip(self.tls_key)
            .map(|(certificate, key)| TlsFiles {
                certificate,
                key,
                client_ca: self.tls_client_ca,
                client_crl: self.tls_client_crl,
                client_required: !optional,
            });
        Ok(AccessConfig {
            tls,
            book: self.auth_file,
            allowance: Allowance {
                items: self.rate_items,
                tokens: self.rate_tokens,
            },
            admin,
            guard_metrics: self.metrics_auth == Switch::On,
            reload_interval: self.reload_interval.into(),
            grace: self.auth_grace.into(),
        })
    }
}

impl ConnectionArgs {
    /// The limits, and the largest message.
    pub(super) fn validate(self, code_bytes: usize) -> Result<(ConnectionLimits, usize), String> {
        let message_bytes = self
            .message_bytes
            .unwrap_or_else(|| code_bytes.saturating_mul(4).max(4 << 20));
        for (flag, value, least, most) in [
            ("connections", self.connections, 1, 1 << 20),
            (
                "connections-per-address",
                self.connections_per_address.unwrap_or(1),
                1,
                1 << 20,
            ),
            ("http-connections", self.http_connections, 2, 1 << 16),
            (
                "connection-streams",
                self.connection_streams as usize,
                1,
                1 << 20,
            ),
            (
                "resets-per-address",
                self.resets_per_address as usize,
                0,
                1 << 20,
            ),
            ("header-bytes", self.header_bytes as usize, 1024, 1 << 24),
            ("message-bytes", message_bytes, 1024, 1 << 30),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("--{flag} is {value}, expected {least} to {most}"));
            }
        }
        for (flag, time) in [
            ("handshake-timeout", self.handshake_timeout),
            ("write-timeout", self.write_timeout),
            ("connection-idle", self.connection_idle),
            ("keepalive", self.keepalive),
            ("keepalive-timeout", self.keepalive_timeout),
        ]
        .into_iter()
        .chain(
            self.connection_max_age
                .map(|age| ("connection-max-age", age)),
        ) {
            if time.is_zero() {
                return Err(format!("--{flag} is 0s, expected a time"));
            }
        }
        let limits = ConnectionLimits {
            connections: self.connections,
            connections_per_address: self.connections_per_address,
            http_connections: self.http_connections,
            streams: self.connection_streams,
            resets_per_address: NonZeroU32::new(self.resets_per_address),
            header_bytes: self.header_bytes,
            handshake: self.handshake_timeout.into(),
            write: self.write_timeout.into(),
            idle: self.connection_idle.into(),
            max_age: self.connection_max_age.map(Into::into),
            max_age_grace: self.connection_grace.into(),
            call: None,
            keepalive: self.keepalive.into(),
            keepalive_timeout: self.keepalive_timeout.into(),
        };
        Ok((limits, message_bytes))
    }
}
