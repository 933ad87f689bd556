//! Who may ask. The endpoint is on loopback, but so is the browser of whoever is logged in on the node, and a page from anywhere
//! can make that ask: under a name of its own that leads to 127.0.0.1 (DNS rebinding), or with a form that it sends here.

use super::refusal::{Refusal, quoted};
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{Method, StatusCode, Uri};
use std::net::IpAddr;

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A unix socket: whoever may open the file.
    Socket,
    /// TCP, at this address, if that is known.
    Tcp(Option<IpAddr>),
}

impl Access {
    /// Refuses what a web page of somebody else's may have sent.
    pub(super) fn check(self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let Self::Tcp(own) = self else { return Ok(()) };
        let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        // A request with the whole address in its first line means that (RFC 9112 §3.2.2).
        let host = uri.authority().map(|authority| authority.as_str().into()).or_else(|| text(HOST));
        if let Some(host) = &host
            && !is_ours(name_of(host), own)
        {
            let message = format!(
                "asked for as {}: only localhost, a loopback address, and the address that the endpoint is bound to are answered",
                quoted(host)
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD);
        let is_foreign = |origin: &str| match (origin.split_once("://"), &host) {
            (Some((_, origin)), Some(host)) => origin != host.as_ref(),
            // `null`: a page that hides where it is from.
            _ => true,
        };
        if changes && text(ORIGIN).is_some_and(|origin| is_foreign(&origin)) {
            let message = "sent by a web page of another origin: nothing is changed for it";
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        }
        Ok(())
    }
}

/// The name or address of `Host`, without its port.
fn name_of(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(address, _)| address);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_ours(name: &str, own: Option<IpAddr>) -> bool {
    let is_local_name = || {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        // RFC 6761 §6.3: resolvers lead these to loopback, whoever asks.
        name == "localhost" || name.ends_with(".localhost")
    };
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || own == Some(address),
        Err(_) => is_local_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn check(access: Access, method: Method, headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse::<axum::http::HeaderName>().unwrap(), HeaderValue::from_static(value))
        });
        access.check(&method, &Uri::from_static("/log"), &headers.collect()).is_ok()
    }

    #[test]
    fn only_a_name_that_can_mean_nobody_else_is_answered() {
        let tcp = Access::Tcp("127.0.0.1".parse().ok());
        for (host, expected) in [
            ("localhost", true),
            ("localhost:15800", true),
            ("LocalHost.:15800", true),
            ("agent.localhost:1", true),
            ("127.0.0.1:15800", true),
            ("127.9.9.9", true),
            ("[::1]:15800", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("evil.example", false),
            ("localhost.evil.example:15800", false),
            ("10.0.0.5:15800", false),
            ("", false),
            ("[::1", true),
            ("[2001:db8::1]", false),
        ] {
            assert_eq!(check(tcp, Method::GET, &[("host", host)]), expected, "{host}");
        }
        assert!(check(tcp, Method::GET, &[]), "a program that names none");
        let bound = Access::Tcp("10.0.0.5".parse().ok());
        assert!(check(bound, Method::GET, &[("host", "10.0.0.5:15800")]));
        assert!(check(Access::Socket, Method::GET, &[("host", "whatever")]));
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let tcp = Access::Tcp("127.0.0.1".parse().ok());
        let host = ("host", "localhost:15800");
        for (origin, expected) in [
            ("http://localhost:15800", true),
            ("http://localhost:8080", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            assert_eq!(check(tcp, Method::POST, &[host, ("origin", origin)]), expected, "{origin}");
        }
        assert!(check(tcp, Method::PUT, &[host]), "a program");
        let reads = check(tcp, Method::GET, &[host, ("origin", "https://evil.example")]);
        assert!(reads, "the browser keeps the answer from the page");
    }
}
