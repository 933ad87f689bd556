//! Which addresses are a Service port's, and whether their connections are captured.

use super::endpoints::ByFamily;
use super::protocol::{self, NotGrpc};
use crate::mesh::{Endpoint, ServicePort};
use crate::sources::rows::{ServiceKind, ServicePortRow, ServiceRow, Transport};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why connections go straight, to an address or to all of a Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Straight {
    /// Another protocol.
    NotGrpc(NotGrpc),
    /// The Service is another DNS name, and has no address.
    ExternalName,
    /// The Service is headless, and its owner does not ask for its calls to be balanced.
    Headless,
    /// The Service is served by another proxy than the node's.
    OtherProxy,
    /// The Service has no address (yet).
    NoAddress,
    /// No endpoint of the address's family may serve a call: clients are to see what they would see without Evenkeel.
    NoEndpoint,
    /// Another Service has the same address, and is first by name.
    ClaimedBy(ServicePort),
    /// No id is free.
    NoId,
}

/// Whether a Service port is one whose connections are captured, as far as its Service says.
pub fn wanted(service: &ServiceRow, port: &ServicePortRow) -> Result<(), Straight> {
    protocol::grpc(port).map_err(Straight::NotGrpc)?;
    if service.other_proxy {
        return Err(Straight::OtherProxy);
    }
    match service.kind {
        ServiceKind::ExternalName => Err(Straight::ExternalName),
        ServiceKind::Headless if !service.balance_headless => Err(Straight::Headless),
        ServiceKind::ClusterIp | ServiceKind::Headless => Ok(()),
    }
}

/// The addresses that clients reach a Service port at. A port that is not gRPC has them too: another Service that claims the
/// same ones must not get its connections.
pub fn addresses(
    service: &ServiceRow,
    port: &ServicePortRow,
    endpoints: &ByFamily<&[Arc<Endpoint>]>,
) -> Vec<SocketAddr> {
    if port.transport != Transport::Tcp {
        return Vec::new();
    }
    let mut addresses: Vec<SocketAddr> = match service.kind {
        ServiceKind::ClusterIp => {
            let ips = service.cluster_ips.iter().chain(&service.external_ips);
            ips.map(|ip| SocketAddr::new(*ip, port.port)).collect()
        }
        ServiceKind::Headless if wanted(service, port).is_ok() => {
            endpoints.v4.iter().chain(endpoints.v6).map(|endpoint| endpoint.address).collect()
        }
        ServiceKind::Headless | ServiceKind::ExternalName => Vec::new(),
    };
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

impl fmt::Display for Straight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Straight::NotGrpc(reason) => write!(f, "{reason}"),
            Straight::ExternalName => f.write_str("the Service is of type ExternalName"),
            Straight::Headless => f.write_str(
                "the Service is headless (annotate it evenkeel.dev/headless: balance to have it balanced)",
            ),
            Straight::OtherProxy => f.write_str("the Service is served by another proxy"),
            Straight::NoAddress => f.write_str("the Service has no address"),
            Straight::NoEndpoint => f.write_str("no endpoint is ready"),
            Straight::ClaimedBy(owner) => {
                write!(f, "the address is that of {owner}, too, which is first by name")
            }
            Straight::NoId => f.write_str("no id is free: raise the limit of destinations"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{Load, ObjectName, Picker};

    fn service(kind: ServiceKind) -> ServiceRow {
        ServiceRow {
            name: ObjectName::new("shop", "cart"),
            kind,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            ports: Vec::new(),
            picker: Picker::default(),
            balance_headless: false,
            other_proxy: false,
        }
    }

    fn port(name: &str, transport: Transport) -> ServicePortRow {
        ServicePortRow { name: name.into(), port: 8000, transport, app_protocol: None, target: None }
    }

    fn endpoint(address: &str) -> Arc<Endpoint> {
        let load = Arc::new(Load::default());
        Arc::new(Endpoint { address: address.parse().unwrap(), pod: None, zone: None, load })
    }

    fn texts(addresses: &[SocketAddr]) -> Vec<String> {
        addresses.iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn each_kind_of_service_is_captured_or_says_why_not() {
        let grpc = port("grpc", Transport::Tcp);
        let plain = service(ServiceKind::ClusterIp);
        assert_eq!(wanted(&plain, &grpc), Ok(()));
        assert_eq!(
            wanted(&plain, &port("grpc", Transport::Other)),
            Err(Straight::NotGrpc(NotGrpc::Transport))
        );
        let web = wanted(&plain, &port("web", Transport::Tcp));
        assert_eq!(web, Err(Straight::NotGrpc(NotGrpc::Name("web".into()))));
        assert_eq!(wanted(&ServiceRow { other_proxy: true, ..plain }, &grpc), Err(Straight::OtherProxy));
        assert_eq!(wanted(&service(ServiceKind::ExternalName), &grpc), Err(Straight::ExternalName));
        let headless = service(ServiceKind::Headless);
        assert_eq!(wanted(&headless, &grpc), Err(Straight::Headless));
        assert_eq!(wanted(&ServiceRow { balance_headless: true, ..headless }, &grpc), Ok(()));
    }

    #[test]
    fn a_port_is_reached_at_all_cluster_and_external_addresses() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let service = ServiceRow {
            cluster_ips: ips(&["10.96.0.1", "fd00::1"]),
            external_ips: ips(&["192.0.2.1", "10.96.0.1"]),
            ..service(ServiceKind::ClusterIp)
        };
        let none = ByFamily::default();
        let expected = ["10.96.0.1:8000", "192.0.2.1:8000", "[fd00::1]:8000"];
        assert_eq!(texts(&addresses(&service, &port("grpc", Transport::Tcp), &none)), expected);
        assert_eq!(texts(&addresses(&service, &port("web", Transport::Tcp), &none)), expected);
        assert_eq!(addresses(&service, &port("grpc", Transport::Other), &none), []);
    }

    #[test]
    fn a_headless_service_that_is_to_be_balanced_is_reached_at_its_endpoints() {
        let (v4, v6) = ([endpoint("10.0.0.1:50051")], [endpoint("[fd00::1]:50051")]);
        let endpoints = ByFamily { v4: &v4[..], v6: &v6[..] };
        let grpc = port("grpc", Transport::Tcp);
        let headless = service(ServiceKind::Headless);
        assert_eq!(addresses(&headless, &grpc, &endpoints), []);
        let balanced = ServiceRow { balance_headless: true, ..headless };
        assert_eq!(texts(&addresses(&balanced, &grpc, &endpoints)), ["10.0.0.1:50051", "[fd00::1]:50051"]);
        assert_eq!(addresses(&balanced, &port("web", Transport::Tcp), &endpoints), []);
    }
}
