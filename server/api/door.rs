//! The door: whose a call is, and whether they may make it. Decided before anything of its body is read.

use std::sync::Arc;

use axum::http::{HeaderMap, Request, header};
use tonic::Status;

use crate::access::{Access, AdminFor, Credentials};
use crate::api::connections::Peer;
use crate::api::local::is_local;
use crate::error::Error;
use crate::identity::{Identity, Roles};
use crate::metrics::Metrics;

/// Where a key may come in other than as a bearer token.
const KEY_HEADER: &str = "x-api-key";

/// Told to those who call an open AdminService from elsewhere.
const NOT_LOCAL: &str = "AdminService answers its own machine alone, and this call came from elsewhere or was forwarded; \
                         call the server's loopback address directly, or run it with --auth-file and use a key with the \
                         role admin";

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing: probes carry no credentials.
    Nothing,
    /// To be known, as somebody who is there for more than metrics.
    Identity,
    /// The role `explain`.
    Explain,
    /// The role `admin`.
    Admin,
}

/// Puts the caller's identity into the call, for its service to find, and what its connection knows of it. Gives it, too;
/// `None`: the call is for everybody.
///
/// # Errors
/// The status of a caller who is not known, or may not do this.
pub(super) fn admit<B>(
    access: &Access,
    metrics: &Metrics,
    peer: &Peer,
    call: &mut Request<B>,
) -> Result<Option<Arc<Identity>>, Status> {
    let refused = |error: Error| {
        metrics.access.call_refused(error.label());
        tracing::debug!(reason = error.label(), "a call was refused");
        Status::from(error)
    };
    let needs = Needs::of(call.uri().path());
    if needs == Needs::Nothing {
        return Ok(None);
    }
    let local = is_local(peer.address, call.uri(), call.headers());
    let identity = identify(access, peer, call.headers(), local).map_err(refused)?;
    if needs == Needs::Admin && access.admin() == AdminFor::Nobody {
        return Err(Status::unimplemented(
            "AdminService is off on this server (--admin off)",
        ));
    }
    if !needs.met_by(identity.roles) {
        let status = refused(Error::PermissionDenied(needs.role()));
        return Err(match access.admin() {
            AdminFor::ThisMachine if needs == Needs::Admin => Status::permission_denied(NOT_LOCAL),
            _ => status,
        });
    }
    call.extensions_mut().insert(identity.clone());
    call.extensions_mut().insert(peer.presence.clone());
    Ok(Some(identity))
}

/// Whether these headers, on this connection, are those of somebody who may read metrics.
pub(super) fn may_read_metrics(
    access: &Access,
    peer: &Peer,
    headers: &HeaderMap,
) -> Result<(), Error> {
    // Where `/metrics` is guarded, those who may read it have keys.
    let identity = identify(access, peer, headers, false)?;
    if identity.roles.reads_metrics() {
        Ok(())
    } else {
        Err(Error::PermissionDenied("metrics"))
    }
}

fn identify(
    access: &Access,
    peer: &Peer,
    headers: &HeaderMap,
    local: bool,
) -> Result<Arc<Identity>, Error> {
    access.identify(Credentials {
        token: token(headers),
        certificate: peer.certificate.as_ref(),
        local,
    })
}

/// What the client gives as its token; one that is malformed is a wrong one, not none.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).map(|value| {
        let (scheme, token) = value.as_bytes().split_at(value.len().min(7));
        if scheme.eq_ignore_ascii_case(b"bearer ") {
            token
        } else {
            b""
        }
    });
    bearer.or_else(|| Some(headers.get(KEY_HEADER)?.as_bytes()))
}

impl Needs {
    /// By the path of the call: `/package.Service/Method`.
    fn of(path: &str) -> Self {
        let (service, method) = path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or((path, ""));
        match service {
            "grpc.health.v1.Health" => Self::Nothing,
            "codeexplainer.v1.ExplainService" => Self::Explain,
            "codeexplainer.v1.AdminService" => Self::Admin,
            "inference.GRPCInferenceService" => match method {
                "ServerLive" | "ServerReady" => Self::Nothing,
                _ => Self::Explain,
            },
            // The model's description, reflection, and what there is not.
            _ => Self::Identity,
        }
    }

    /// The role that it takes; nobody is refused what takes none.
    fn role(self) -> &'static str {
        match self {
            Self::Nothing | Self::Explain => "explain",
            Self::Identity => "explain\" or \"admin",
            Self::Admin => "admin",
        }
    }

    fn met_by(self, roles: Roles) -> bool {
        match self {
            Self::Nothing => true,
            Self::Identity => roles.explain || roles.admin,
            Self::Explain => roles.explain,
            Self::Admin => roles.admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_need_the_role_of_their_service() {
        for (path, needs) in [
            ("/grpc.health.v1.Health/Check", Needs::Nothing),
            (
                "/codeexplainer.v1.ExplainService/ExplainStream",
                Needs::Explain,
            ),
            ("/codeexplainer.v1.ModelService/GetModel", Needs::Identity),
            ("/codeexplainer.v1.AdminService/Anything", Needs::Admin),
            ("/inference.GRPCInferenceService/ServerLive", Needs::Nothing),
            ("/inference.GRPCInferenceService/ModelInfer", Needs::Explain),
            ("/", Needs::Identity),
            ("//codeexplainer.v1.AdminService/x", Needs::Admin),
        ] {
            assert_eq!(Needs::of(path), needs, "{path}");
        }
    }

    #[test]
    fn a_token_comes_as_bearer_or_key_and_a_malformed_one_is_wrong() {
        let of = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            token(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(
            of("authorization", "Bearer abc").as_deref(),
            Some(&b"abc"[..])
        );
        assert_eq!(
            of("authorization", "bearer abc").as_deref(),
            Some(&b"abc"[..])
        );
        assert_eq!(of("x-api-key", "abc").as_deref(), Some(&b"abc"[..]));
        assert_eq!(of("authorization", "Basic abc").as_deref(), Some(&b""[..]));
        assert_eq!(of("authorization", "").as_deref(), Some(&b""[..]));
        assert_eq!(of("cookie", "abc"), None);
    }
}
