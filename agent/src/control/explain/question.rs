//! What is asked, checked once.

use crate::http2::FieldList;
use crate::mesh::ObjectName;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The longest host name (RFC 1035 §2.3.4, in its written form).
const MOST_NAME_BYTES: usize = 253;

/// The most header fields that a question may have: more than any client sends.
const MOST_HEADERS: usize = 100;

/// What a pod would call.
#[derive(Debug)]
pub struct Question {
    /// The pod.
    pub pod: ObjectName,
    /// What it dials.
    pub to: Target,
    /// The request's header fields.
    pub request: FieldList,
}

/// A host and a port, as an app has them in its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an address.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name in lower case, without a last dot.
    Name(String),
}

impl Host {
    /// Whether it is a name that says which cluster it is of, and not by the usual domain.
    pub(super) fn names_a_domain(&self) -> bool {
        let Self::Name(name) = self else { return false };
        name.split_once(".svc.").is_some_and(|(_, domain)| domain != "cluster.local")
    }
}

impl Question {
    /// Checks what somebody typed: a pod as `namespace/name`, a target as `host:port`, a method as `/package.Service/Method`,
    /// headers as `name=value`.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn parse(pod: &str, to: &str, method: Option<&str>, headers: &[String]) -> Result<Self, String> {
        let pod = parse_pod(pod)?;
        let to = to.parse().map_err(|why| format!("to={:?}: {why}", short(to)))?;
        let mut request = FieldList::new();
        if let Some(method) = method {
            let is_path = method.len() > 1
                && method.starts_with('/')
                && method.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_path {
                return Err(format!(
                    "method={:?}: expected a path as /package.Service/Method",
                    short(method)
                ));
            }
            request.push(b":method", b"POST");
            request.push(b":path", method.as_bytes());
        }
        if headers.len() > MOST_HEADERS {
            return Err(format!("{} headers: {MOST_HEADERS} at most", headers.len()));
        }
        for header in headers {
            let (name, value) = parse_header(header)
                .ok_or_else(|| format!("header={:?}: expected name=value, as x-user=anna", short(header)))?;
            request.push(name.as_bytes(), value.as_bytes());
        }
        Ok(Self { pod, to, request })
    }
}

fn parse_pod(text: &str) -> Result<ObjectName, String> {
    let is_name = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        !name.is_empty() && name.len() <= MOST_NAME_BYTES && name.bytes().all(allowed)
    };
    match text.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err(format!("pod={:?}: expected namespace/name", short(text))),
    }
}

/// A header field as `name=value` or `name: value`; its name in lower case, as HTTP/2 has it.
fn parse_header(text: &str) -> Option<(String, &str)> {
    let (name, value) = text.split_once(['=', ':'])?;
    let name = name.trim().to_ascii_lowercase();
    let is_token =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte) && byte != b':';
    let value = value.trim();
    let is_valid = !name.is_empty()
        && name.bytes().all(is_token)
        && value.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f);
    is_valid.then_some((name, value))
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "expected host:port, as cart.shop:50051, 10.96.0.5:50051 or [fd00::5]:50051";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(WRONG),
                port => Ok(Self { host: Host::Address(address.ip().to_canonical()), port }),
            };
        }
        // What gRPC's clients put before a name.
        let text = text.strip_prefix("dns:///").or_else(|| text.strip_prefix("dns:")).unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(WRONG)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            !label.is_empty() && label.len() <= 63 && label.bytes().all(allowed)
        };
        if host.len() > MOST_NAME_BYTES || !host.split('.').all(is_label) {
            return Err(WRONG);
        }
        Ok(Self { host: Host::Name(host), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => write!(f, "{}", SocketAddr::new(*address, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// The beginning of what somebody typed.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
