//! The connection: made lazily, made again when it is lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::credentials::{Credentials, TlsOptions, Token};
use crate::proto::admin_service_client::AdminServiceClient;
use crate::proto::explain_service_client::ExplainServiceClient;
use crate::proto::model_service_client::ModelServiceClient;
use crate::proto::{GetModelRequest, GetPerformanceReportRequest};
use crate::{Error, Model, Report};

/// Bytes of a call that the server may send before they are read; what does not fit waits there, and comes in fewer pieces.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all calls together. A connection on which too many small messages wait to be read is closed by h2: when
/// what each lacks to 256 bytes comes to half of this.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// How a connection is made and kept.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// The longest that connecting may take.
    pub connect_timeout: Duration,
    /// How often the connection is probed while a call is open, so that a dead one is noticed.
    pub keep_alive_interval: Duration,
    /// How long the answer to such a probe may take.
    pub keep_alive_timeout: Duration,
    /// The largest message to send or to receive, in bytes.
    pub max_message_bytes: usize,
    /// How the server is known; in use where the address begins with `https://`, or anything of it is set.
    pub tls: TlsOptions,
    /// How the server knows this client.
    pub token: Option<Token>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(20),
            max_message_bytes: 16 << 20,
            tls: TlsOptions::default(),
            token: None,
        }
    }
}

/// What calls go through.
pub(crate) type Transport = InterceptedService<Channel, Credentials>;

/// A client of one server, or of the load balancer before several. Cloning it is cheap and shares the
/// connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) address: Arc<str>,
    pub(crate) max_message_bytes: usize,
    pub(crate) explain: ExplainServiceClient<Transport>,
    model: ModelServiceClient<Transport>,
    pub(crate) admin: AdminServiceClient<Transport>,
}

impl Client {
    /// A client of the server at `address`: `HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`. The connection is made
    /// by the first call, and made again by the next call after it was lost.
    ///
    /// # Errors
    /// [`Error::Address`] when the address cannot be one.
    ///
    /// # Panics
    /// When called outside a Tokio runtime, which drives the connection.
    pub fn connect(address: &str) -> Result<Self, Error> {
        Self::connect_with(address, &ConnectOptions::default())
    }

    /// As [`connect`](Self::connect), with options.
    ///
    /// # Errors
    /// [`Error::Address`] when the address cannot be one.
    ///
    /// # Panics
    /// When called outside a Tokio runtime, which drives the connection.
    pub fn connect_with(address: &str, options: &ConnectOptions) -> Result<Self, Error> {
        let (address, endpoint) = endpoint(address, options)?;
        Ok(Self::of(address, endpoint.connect_lazy(), options))
    }

    /// As [`connect_with`](Self::connect_with), over connections that `open` makes: of a Unix socket, say, or through a
    /// tunnel. The address is what the server is told it was called by.
    ///
    /// # Errors
    /// [`Error::Address`] when the address cannot be one.
    ///
    /// # Panics
    /// When called outside a Tokio runtime, which drives the connection.
    pub fn connect_through<C, F>(
        address: &str,
        options: &ConnectOptions,
        open: impl Fn() -> F + Send + 'static,
    ) -> Result<Self, Error>
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<C>> + Send + 'static,
    {
        let (address, endpoint) = endpoint(address, options)?;
        let connector = service_fn(move |_: Uri| {
            let connection = open();
            async move { connection.await.map(TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector_lazy(connector);
        Ok(Self::of(address, channel, options))
    }

    fn of(address: String, channel: Channel, options: &ConnectOptions) -> Self {
        let limit = options.max_message_bytes;
        let channel = InterceptedService::new(channel, Credentials(options.token.clone()));
        Self {
            address: address.into(),
            max_message_bytes: limit,
            explain: ExplainServiceClient::new(channel.clone())
                .max_decoding_message_size(limit)
                .max_encoding_message_size(limit),
            model: ModelServiceClient::new(channel.clone()).max_decoding_message_size(limit),
            admin: AdminServiceClient::new(channel)
                .max_decoding_message_size(limit)
                .max_encoding_message_size(limit),
        }
    }

    /// The server's address, with its scheme.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The model being served, and the limits of the server.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`].
    pub async fn model(&self) -> Result<Model, Error> {
        let answer = self.model.clone().get_model(GetModelRequest {}).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|s| Error::from_status(&self.address, &s))
    }

    /// What the server has done since it started, and how it is.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`].
    pub async fn report(&self) -> Result<Report, Error> {
        let answer = self
            .admin
            .clone()
            .get_performance_report(GetPerformanceReportRequest {})
            .await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|s| Error::from_status(&self.address, &s))
    }
}

fn endpoint(address: &str, options: &ConnectOptions) -> Result<(String, Endpoint), Error> {
    let address = normalize(address, options.tls.is_set())?;
    let bad = |reason: &dyn std::fmt::Display| Error::Address {
        address: address.clone(),
        reason: reason.to_string(),
    };
    let endpoint = Endpoint::from_shared(address.clone())
        .map_err(|_| bad(&"it cannot be parsed"))?
        .user_agent(concat!("code-explainer-client/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| bad(&error))?
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(options.keep_alive_interval)
        .keep_alive_timeout(options.keep_alive_timeout);
    let endpoint = if address.starts_with("https:") {
        // The transport's own reason could hold a key's words.
        let endpoint = endpoint.tls_config(options.tls.config(options.connect_timeout));
        endpoint.map_err(|_| Error::Credentials(options.tls.complaint()))?
    } else {
        endpoint
    };
    Ok((address, endpoint))
}

/// The address with a scheme, checked for what tonic would only notice when it connects.
fn normalize(address: &str, tls: bool) -> Result<String, Error> {
    let bad = |reason: &str| Error::Address {
        address: address.to_owned(),
        reason: reason.to_owned(),
    };
    let trimmed = address.trim();
    let usual = if tls { "https" } else { "http" };
    let (scheme, rest) = trimmed.split_once("://").unwrap_or((usual, trimmed));
    let scheme = scheme.to_ascii_lowercase();
    match scheme.as_str() {
        "https" => {}
        "http" if tls => return Err(bad("certificates are for https")),
        "http" => {}
        _ => return Err(bad("the scheme is neither http nor https")),
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.is_empty() || authority.starts_with(':') {
        return Err(bad("the host is missing"));
    }
    Ok(format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_http() {
        assert_eq!(
            normalize("localhost:50051", false).unwrap(),
            "http://localhost:50051"
        );
        assert_eq!(
            normalize(" http://[::1]:1 ", false).unwrap(),
            "http://[::1]:1"
        );
        assert_eq!(normalize("host:1", true).unwrap(), "https://host:1");
        assert_eq!(
            normalize("HTTPS://host:1", false).unwrap(),
            "https://host:1"
        );
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_at_once() {
        for bad in ["", ":50051", "http://", "ftp://host:1", "https://:1"] {
            assert!(
                matches!(normalize(bad, false), Err(Error::Address { .. })),
                "{bad:?}"
            );
        }
    }
}
