//! Which Service ports are gRPC: by `appProtocol`, else by the port's name, as the field's other tools read them.

use crate::sources::rows::{ServicePortRow, Transport};
use std::fmt;
use std::sync::Arc;

/// The `appProtocol`s of HTTP/2 in the clear, in any case.
const APP_PROTOCOLS: [&str; 5] = ["grpc", "kubernetes.io/h2c", "kubernetes.io/grpc", "h2c", "http2"];

/// The first words, up to a `-`, of the names of such ports.
const NAME_PREFIXES: [&str; 3] = ["grpc", "h2c", "http2"];

/// Why a Service port is not gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotGrpc {
    /// Not TCP.
    Transport,
    /// `appProtocol` says something else.
    AppProtocol(Arc<str>),
    /// Nothing but the name says what it is, and the name says something else.
    Name(Arc<str>),
    /// Nothing says what it is.
    Unsaid,
}

/// Whether a Service port is gRPC, or other HTTP/2 in the clear.
pub fn grpc(port: &ServicePortRow) -> Result<(), NotGrpc> {
    if port.transport != Transport::Tcp {
        return Err(NotGrpc::Transport);
    }
    if let Some(app_protocol) = &port.app_protocol {
        let known = APP_PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(app_protocol));
        return if known { Ok(()) } else { Err(NotGrpc::AppProtocol(app_protocol.clone())) };
    }
    if port.name.is_empty() {
        return Err(NotGrpc::Unsaid);
    }
    // gRPC-Web is HTTP/1.1 as a rule, and another protocol in any case.
    let grpc_web =
        port.name.strip_prefix("grpc-web").is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let first_word = port.name.split('-').next().unwrap_or_default();
    if NAME_PREFIXES.contains(&first_word) && !grpc_web {
        Ok(())
    } else {
        Err(NotGrpc::Name(port.name.clone()))
    }
}

impl fmt::Display for NotGrpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotGrpc::Transport => f.write_str("not TCP"),
            NotGrpc::AppProtocol(text) => write!(f, "not gRPC: appProtocol is \"{}\"", text.escape_debug()),
            NotGrpc::Name(name) => write!(f, "not gRPC: the port's name is \"{}\"", name.escape_debug()),
            NotGrpc::Unsaid => f.write_str("not gRPC: the port has neither appProtocol nor name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, app_protocol: Option<&str>, transport: Transport) -> ServicePortRow {
        let app_protocol = app_protocol.map(Arc::from);
        ServicePortRow { transport, app_protocol, ..crate::sources::sample::service_port(name, 80) }
    }

    #[test]
    fn a_port_is_grpc_by_its_app_protocol_else_by_its_name() {
        for (name, app_protocol, expected) in [
            ("grpc", None, true),
            ("grpc-api", None, true),
            ("h2c", None, true),
            ("h2c-x", None, true),
            ("http2", None, true),
            ("http2-api", None, true),
            ("grpc-web", None, false),
            ("grpc-web-api", None, false),
            ("grpc-webby", None, true),
            ("grpcweb", None, false),
            ("grpcs", None, false),
            ("http", None, false),
            ("http2x", None, false),
            ("my-grpc", None, false),
            ("", None, false),
            ("", Some("grpc"), true),
            ("", Some("GRPC"), true),
            ("", Some("kubernetes.io/h2c"), true),
            ("", Some("Kubernetes.io/H2C"), true),
            ("", Some("kubernetes.io/grpc"), true),
            ("", Some("h2c"), true),
            ("", Some("http2"), true),
            ("http", Some("grpc"), true),
            ("grpc-web", Some("grpc"), true),
            ("grpc", Some("http"), false),
            ("grpc", Some("tcp"), false),
            ("grpc", Some("https"), false),
            ("grpc", Some("tls"), false),
            ("grpc", Some("grpc-web"), false),
            ("grpc", Some("kubernetes.io/ws"), false),
        ] {
            let verdict = grpc(&port(name, app_protocol, Transport::Tcp));
            assert_eq!(verdict.is_ok(), expected, "name {name:?}, appProtocol {app_protocol:?}: {verdict:?}");
        }
    }

    #[test]
    fn udp_and_sctp_are_never_grpc() {
        assert_eq!(grpc(&port("grpc", Some("grpc"), Transport::Other)), Err(NotGrpc::Transport));
    }

    #[test]
    fn the_reason_names_what_was_read() {
        let reason =
            |name, app_protocol| grpc(&port(name, app_protocol, Transport::Tcp)).unwrap_err().to_string();
        assert_eq!(reason("grpc", Some("https")), "not gRPC: appProtocol is \"https\"");
        assert_eq!(reason("web", None), "not gRPC: the port's name is \"web\"");
        assert_eq!(reason("", None), "not gRPC: the port has neither appProtocol nor name");
    }
}
