//! What an attack sees of the server, and what it tells of itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use code_explainer_client::proto::ExplainRequest;
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::{Client, ConnectOptions, TlsOptions, Token};
use tokio::sync::watch;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{Authority, Certified, Files};
use crate::subject::{ATTACKER, Authorities, Keys};
use crate::wire;

/// A running server, and what the attack is told by it. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Inner>);

struct Inner {
    grpc: SocketAddr,
    http: SocketAddr,
    /// Where the file of identities and those of certificates are.
    files: Files,
    keys: Keys,
    authorities: Authorities,
    told: Mutex<Told>,
    ready: watch::Sender<bool>,
    begun: watch::Sender<bool>,
}

/// What an attack tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// What the attacker got, and how often.
    pub(crate) got: BTreeMap<String, u64>,
    pub(crate) checks: Vec<Check>,
    /// The engine's step that the neighbour may have to wait for, where the attack knows better than the server's metrics.
    pub(crate) step_ms: Option<f64>,
}

/// Something that must hold beside the neighbour's times.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) value: f64,
    /// The largest value that will do.
    pub(crate) most: f64,
}

impl Check {
    pub(crate) fn holds(&self) -> bool {
        self.value <= self.most
    }
}

impl Stage {
    pub(crate) fn new(
        (grpc, http): (SocketAddr, SocketAddr),
        files: Files,
        keys: Keys,
        authorities: Authorities,
    ) -> Self {
        Self(Arc::new(Inner {
            grpc,
            http,
            files,
            keys,
            authorities,
            told: Mutex::default(),
            ready: watch::Sender::new(false),
            begun: watch::Sender::new(false),
        }))
    }

    pub(crate) fn grpc(&self) -> SocketAddr {
        self.0.grpc
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.0.http
    }

    pub(crate) fn files(&self) -> &Files {
        &self.0.files
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    pub(crate) fn authorities(&self) -> &Authorities {
        &self.0.authorities
    }

    /// The token of a tenant.
    pub(crate) fn token(&self, tenant: &str) -> &str {
        self.0.keys.token(tenant).unwrap_or_default()
    }

    /// The attack is prepared: now the idle server is measured. Comes back when the attack is to begin.
    pub(crate) async fn ready(&self) {
        self.0.ready.send_replace(true);
        // The sender is in this very value.
        let _ = self.0.begun.subscribe().wait_for(|begun| *begun).await;
    }

    /// Waits until the attack is prepared.
    pub(crate) async fn prepared(&self) {
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Lets the attack begin.
    pub(crate) fn begin(&self) {
        self.0.begun.send_replace(true);
    }

    /// Counts what the attacker got.
    pub(crate) fn got(&self, what: impl Into<String>) {
        self.tell(|told| *told.got.entry(what.into()).or_default() += 1);
    }

    /// Notes something that must hold.
    pub(crate) fn check(&self, what: &'static str, value: f64, most: f64) {
        self.tell(|told| told.checks.push(Check { what, value, most }));
    }

    /// Notes how long the neighbour may wait for a step.
    pub(crate) fn step(&self, ms: f64) {
        self.tell(|told| told.step_ms = Some(ms));
    }

    pub(crate) fn told(&self) -> Told {
        let mut told = None;
        self.tell(|now| told = Some(now.clone()));
        told.unwrap_or_default()
    }

    fn tell(&self, tell: impl FnOnce(&mut Told)) {
        // Each operation leaves it whole.
        tell(&mut self.0.told.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A well-behaved client of a tenant that has a key; without one where the server asks for none.
    pub(crate) fn client(&self, token: &str) -> Result<Client> {
        let token = (!token.is_empty()).then(|| Token::new(token)).transpose()?;
        let options = ConnectOptions {
            token,
            ..ConnectOptions::default()
        };
        Ok(Client::connect_with(&self.grpc().to_string(), &options)?)
    }

    /// A well-behaved client with a certificate.
    pub(crate) fn certified_client(&self, certified: &Certified) -> Result<Client> {
        let server: &Authority = &self.authorities().kept;
        let identity = (&certified.certificate, &certified.key);
        let options = ConnectOptions {
            tls: TlsOptions {
                ca: Some(server.pem().into()),
                identity: Some((identity.0.clone().into(), identity.1.clone().into())),
                server_name: Some("localhost".into()),
            },
            ..ConnectOptions::default()
        };
        Ok(Client::connect_with(
            &format!("https://{}", self.grpc()),
            &options,
        )?)
    }

    /// Typed calls from the attacker's address.
    pub(crate) async fn service(&self) -> Result<ExplainServiceClient<Channel>> {
        Ok(ExplainServiceClient::new(self.channel().await?))
    }

    /// A connection from the attacker's address.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc()))?;
        let endpoint = endpoint.local_address(Some(wire::ATTACKER.into()));
        Ok(endpoint.connect().await?)
    }

    /// A call with the attacker's token.
    pub(crate) fn call<T>(&self, message: T) -> Result<Request<T>> {
        self.call_of(ATTACKER, message)
    }

    /// A call with a tenant's token.
    pub(crate) fn call_of<T>(&self, tenant: &str, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token(tenant)).parse()?;
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

/// An item that costs next to nothing: a token of answer.
pub(crate) fn tiny(id: &str, code: &str) -> ExplainRequest {
    ExplainRequest {
        id: id.into(),
        code: code.into(),
        max_new_tokens: 1,
        ignore_eos: true,
        ..ExplainRequest::default()
    }
}
