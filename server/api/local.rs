//! Whether a call was made on this machine. A proxy or a sidecar on it also calls from a loopback address, for others.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header};

/// Headers that whoever forwards a call adds, by how their names begin: proxies, balancers, sidecars, content networks.
const FORWARDED: [&str; 13] = [
    "forwarded",
    "via",
    "x-forwarded",
    "x-original-",
    "x-real-ip",
    "x-envoy-",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-proxyuser-ip",
    "x-appengine-",
    "true-client-ip",
    "cf-",
    "l5d-",
];

/// Whether the peer is on this machine and calls for itself: nobody has left a trace of forwarding, and it is this machine
/// that it has called, by its name or address.
pub(super) fn is_local(peer: Option<IpAddr>, called: &Uri, headers: &HeaderMap) -> bool {
    let here = peer.is_some_and(|address| address.to_canonical().is_loopback());
    here && !is_forwarded(headers) && names_this_machine(called, headers)
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    let names = headers.keys().map(|name| name.as_str());
    let mut marks = names.filter(|name| FORWARDED.iter().any(|mark| name.starts_with(mark)));
    marks.next().is_some()
}

/// A proxy often keeps the name that its client has called; one that is not told says nothing.
fn names_this_machine(called: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(|host| host.as_bytes());
    let names = [
        called.authority().map(|name| name.as_str().as_bytes()),
        host,
    ];
    (names.into_iter().flatten()).all(|name| std::str::from_utf8(name).is_ok_and(is_this_machine))
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<axum::http::uri::Authority>() else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        // 0.0.0.0 and :: reach the machine that they are called on.
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(peer: &str, called: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        let called = called.parse().expect("a URI");
        is_local(peer.parse().ok(), &called, &map)
    }

    #[test]
    fn a_call_from_a_loopback_address_to_one_is_local() {
        for called in [
            "http://127.0.0.1:50051/x",
            "http://localhost:50051/x",
            "http://[::1]:50051/x",
            "http://0.0.0.0:50051/x",
            "/x",
        ] {
            assert!(local("127.0.0.1", called, &[]), "{called}");
        }
        let usual = [
            ("te", "trailers"),
            ("user-agent", "tonic"),
            ("traceparent", "00-0-0-0"),
        ];
        assert!(local("::1", "http://localhost/x", &usual));
        assert!(local(
            "::ffff:127.0.0.1",
            "http://localhost/x",
            &[("host", "LOCALHOST:1")]
        ));
    }

    #[test]
    fn a_call_from_elsewhere_is_not() {
        for peer in ["192.0.2.1", "10.0.0.1", "::", "2001:db8::1", "unknown"] {
            assert!(!local(peer, "http://localhost/x", &[]), "{peer}");
        }
    }

    #[test]
    fn a_forwarded_call_is_not() {
        for header in [
            ("forwarded", "for=192.0.2.1"),
            ("via", "1.1 proxy"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-real-ip", ""),
            ("x-envoy-expected-rq-timeout-ms", "15000"),
            ("cf-connecting-ip", "192.0.2.1"),
            ("l5d-client-id", "a"),
            ("host", "explainer.example.com"),
            ("host", "\u{fc}"),
        ] {
            assert!(!local("127.0.0.1", "/x", &[header]), "{header:?}");
        }
        for called in [
            "http://explainer.example.com/x",
            "http://192.0.2.7:50051/x",
            "http://localhost.evil.com/x",
        ] {
            assert!(!local("127.0.0.1", called, &[]), "{called}");
        }
    }
}
