//! Which addresses are a Service port's, and whether their connections are captured.

use super::claims::Right;
use super::endpoints::TrafficPolicy;
use super::protocol::{self, NotGrpc};
use crate::mesh::ServicePort;
use crate::sources::rows::{
    Access, NamespaceRow, ServiceKind, ServicePortRow, ServiceRow, Transport, Waypoint,
};
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
    /// The Service has this waypoint, whose policy is not to be passed by.
    Waypoint(Arc<str>),
    /// Connections to the load balancer's address are to pass through it (`ipMode: Proxy`).
    ThroughLoadBalancer,
    /// Only some sources may reach the load balancer's address, and the node's filter is not to be passed by.
    SourceRanges,
    /// The Service has no address (yet).
    NoAddress,
    /// No endpoint of the address's family may serve a call: clients are to see what they would see without Evenkeel.
    NoEndpoint(TrafficPolicy),
    /// Only endpoints on this node may serve a call, and which those are is not known.
    NodeUnknown,
    /// Another Service has the same address by a stronger right, or is first by name.
    ClaimedBy(ServicePort),
    /// No id is free, or the kernel's map is full.
    NoId,
}

/// An address at which clients reach a Service port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    /// The address.
    pub address: SocketAddr,
    /// By what right.
    pub right: Right,
    /// To which endpoints it leads.
    pub policy: TrafficPolicy,
    /// Whether its connections may be captured, if those of its port are.
    pub capturable: Result<(), Straight>,
}

/// Whether a Service port is one whose connections are captured, as far as its Service and namespace say.
pub fn wanted(
    service: &ServiceRow,
    namespace: Option<&NamespaceRow>,
    port: &ServicePortRow,
) -> Result<(), Straight> {
    protocol::grpc(port).map_err(Straight::NotGrpc)?;
    if service.other_proxy {
        return Err(Straight::OtherProxy);
    }
    match service.kind {
        ServiceKind::ExternalName => return Err(Straight::ExternalName),
        ServiceKind::Headless if !service.balance_headless => return Err(Straight::Headless),
        ServiceKind::ClusterIp | ServiceKind::Headless => {}
    }
    match waypoint(service, namespace) {
        Some(name) => Err(Straight::Waypoint(name.clone())),
        None => Ok(()),
    }
}

/// The waypoint that a Service's traffic is to pass, unless its owner has it taken all the same.
fn waypoint<'a>(service: &'a ServiceRow, namespace: Option<&'a NamespaceRow>) -> Option<&'a Arc<str>> {
    if service.with_mesh.or(namespace.and_then(|namespace| namespace.with_mesh)) == Some(true) {
        return None;
    }
    match (&service.waypoint, namespace.map(|namespace| &namespace.waypoint)) {
        (Waypoint::Named(name), _) | (Waypoint::Unset, Some(Waypoint::Named(name))) => Some(name),
        (Waypoint::None | Waypoint::Unset, _) => None,
    }
}

/// The addresses at which clients reach a Service port, sorted. A port that is not gRPC has them too: another Service that
/// claims the same ones must not get its connections. `endpoints` are those that may serve a call.
///
/// Pods that dial an external address are subject to no traffic policy (kube-proxy's rules for "pod traffic for external
/// destinations").
pub fn frontends(
    service: &ServiceRow,
    port: &ServicePortRow,
    endpoints: impl Iterator<Item = SocketAddr>,
) -> Vec<Frontend> {
    if port.transport != Transport::Tcp {
        return Vec::new();
    }
    let at = |ip, right, policy, capturable| {
        let address = SocketAddr::new(ip, port.port);
        Frontend { address, right, policy, capturable }
    };
    let mut frontends: Vec<Frontend> = match service.kind {
        ServiceKind::ClusterIp => {
            let internal = internal_policy(service);
            let cluster = service.cluster_ips.iter().map(|ip| at(*ip, Right::ClusterIp, internal, Ok(())));
            let external = service.external_ips.iter();
            let external = external.map(|ip| at(*ip, Right::External, TrafficPolicy::Cluster, Ok(())));
            let load_balancer = service.load_balancer.iter().map(|address| {
                let capturable = match address.access {
                    Access::Direct => Ok(()),
                    Access::ThroughLoadBalancer => Err(Straight::ThroughLoadBalancer),
                    Access::BySourceRange => Err(Straight::SourceRanges),
                };
                at(address.ip, Right::External, TrafficPolicy::Cluster, capturable)
            });
            cluster.chain(external).chain(load_balancer).collect()
        }
        ServiceKind::Headless if service.balance_headless && protocol::grpc(port).is_ok() => endpoints
            .map(|address| Frontend {
                address,
                right: Right::Endpoint,
                policy: TrafficPolicy::Cluster,
                capturable: Ok(()),
            })
            .collect(),
        ServiceKind::Headless | ServiceKind::ExternalName => Vec::new(),
    };
    // Of an address that is there twice, the first word counts.
    frontends.sort_by_key(|frontend| frontend.address);
    frontends.dedup_by_key(|frontend| frontend.address);
    frontends
}

/// Which endpoints a Service's cluster addresses lead to. kube-proxy has no part in headless Services, and DNS knows no policy.
pub fn internal_policy(service: &ServiceRow) -> TrafficPolicy {
    match service.internal_traffic_local && service.kind == ServiceKind::ClusterIp {
        true => TrafficPolicy::Local,
        false => TrafficPolicy::Cluster,
    }
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
            Straight::Waypoint(name) => write!(
                f,
                "the Service has the waypoint {} (annotate it evenkeel.dev/with-mesh: \"true\" to have it balanced all \
                 the same)",
                name.escape_debug()
            ),
            Straight::ThroughLoadBalancer => {
                f.write_str("an address of a load balancer that is to be passed through (ipMode Proxy)")
            }
            Straight::SourceRanges => f.write_str(
                "an address of a load balancer for some sources alone (loadBalancerSourceRanges): the node's filter \
                 decides",
            ),
            Straight::NoAddress => f.write_str("the Service has no address"),
            Straight::NoEndpoint(TrafficPolicy::Cluster) => f.write_str("no endpoint is ready"),
            Straight::NoEndpoint(TrafficPolicy::Local) => {
                f.write_str("no endpoint on this node is ready, and internalTrafficPolicy is Local")
            }
            Straight::NodeUnknown => {
                f.write_str("internalTrafficPolicy is Local, and this node's name is not known (--node-name)")
            }
            Straight::ClaimedBy(owner) => {
                write!(f, "the address is that of {owner}, too, which comes first")
            }
            Straight::NoId => f.write_str("no room: there are more destinations than --max-destinations allows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::rows::{Enabled, LoadBalancerAddress};
    use crate::sources::sample::{namespace, service_port};
    use std::net::IpAddr;

    fn service(kind: ServiceKind) -> ServiceRow {
        ServiceRow { kind, ..crate::sources::sample::service("cart") }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn texts(service: &ServiceRow, port: &ServicePortRow, endpoints: &[&str]) -> Vec<String> {
        let endpoints = endpoints.iter().map(|address| address.parse().unwrap());
        frontends(service, port, endpoints).iter().map(|frontend| frontend.address.to_string()).collect()
    }

    #[test]
    fn each_kind_of_service_is_captured_or_says_why_not() {
        let grpc = service_port("grpc", 8000);
        let wanted = |service: &ServiceRow, port: &ServicePortRow| wanted(service, None, port);
        let plain = service(ServiceKind::ClusterIp);
        assert_eq!(wanted(&plain, &grpc), Ok(()));
        let udp = ServicePortRow { transport: Transport::Other, ..grpc.clone() };
        assert_eq!(wanted(&plain, &udp), Err(Straight::NotGrpc(NotGrpc::Transport)));
        let web = wanted(&plain, &service_port("web", 8000));
        assert_eq!(web, Err(Straight::NotGrpc(NotGrpc::Name("web".into()))));
        assert_eq!(wanted(&ServiceRow { other_proxy: true, ..plain }, &grpc), Err(Straight::OtherProxy));
        assert_eq!(wanted(&service(ServiceKind::ExternalName), &grpc), Err(Straight::ExternalName));
        let headless = service(ServiceKind::Headless);
        assert_eq!(wanted(&headless, &grpc), Err(Straight::Headless));
        assert_eq!(wanted(&ServiceRow { balance_headless: true, ..headless }, &grpc), Ok(()));
    }

    #[test]
    fn a_waypoint_is_passed_by_only_where_its_owner_asks_for_it() {
        let named = || Waypoint::Named("gate".into());
        for (of_service, asked_there, of_namespace, asked_here, expected) in [
            (Waypoint::Unset, None, Waypoint::Unset, None, true),
            (named(), None, Waypoint::Unset, None, false),
            (Waypoint::Unset, None, named(), None, false),
            (Waypoint::None, None, named(), None, true),
            (named(), Some(true), Waypoint::Unset, None, true),
            (named(), None, named(), Some(true), true),
            (named(), Some(false), named(), Some(true), false),
            (Waypoint::Unset, Some(true), named(), None, true),
        ] {
            let told = format!("{of_service:?} {asked_there:?} {of_namespace:?} {asked_here:?}");
            let service = ServiceRow {
                waypoint: of_service,
                with_mesh: asked_there,
                ..service(ServiceKind::ClusterIp)
            };
            let namespace =
                NamespaceRow { waypoint: of_namespace, with_mesh: asked_here, ..namespace(Enabled::Unset) };
            let wanted = wanted(&service, Some(&namespace), &service_port("grpc", 80));
            assert_eq!(
                wanted,
                if expected { Ok(()) } else { Err(Straight::Waypoint("gate".into())) },
                "{told}"
            );
        }
    }

    #[test]
    fn a_port_is_reached_at_all_cluster_external_and_load_balancer_addresses() {
        let load_balancer = |ip: &str, access| LoadBalancerAddress { ip: ip.parse().unwrap(), access };
        let service = ServiceRow {
            cluster_ips: ips(&["10.96.0.1", "fd00::1"]),
            external_ips: ips(&["192.0.2.1", "10.96.0.1"]),
            load_balancer: vec![
                load_balancer("198.51.100.1", Access::Direct),
                load_balancer("198.51.100.2", Access::ThroughLoadBalancer),
                load_balancer("198.51.100.3", Access::BySourceRange),
            ],
            internal_traffic_local: true,
            ..service(ServiceKind::ClusterIp)
        };
        let found = frontends(&service, &service_port("grpc", 8000), std::iter::empty());
        let found: Vec<_> = found
            .into_iter()
            .map(|frontend| (frontend.address.to_string(), frontend.policy, frontend.capturable))
            .collect();
        use TrafficPolicy::{Cluster, Local};
        let expected = [
            ("10.96.0.1:8000", Local, Ok(())),
            ("192.0.2.1:8000", Cluster, Ok(())),
            ("198.51.100.1:8000", Cluster, Ok(())),
            ("198.51.100.2:8000", Cluster, Err(Straight::ThroughLoadBalancer)),
            ("198.51.100.3:8000", Cluster, Err(Straight::SourceRanges)),
            ("[fd00::1]:8000", Local, Ok(())),
        ];
        assert_eq!(found, expected.map(|(address, policy, wanted)| (address.to_owned(), policy, wanted)));
        assert_eq!(texts(&service, &service_port("web", 8000), &[]).len(), 6);
        let udp = ServicePortRow { transport: Transport::Other, ..service_port("grpc", 8000) };
        assert_eq!(texts(&service, &udp, &[]), [] as [&str; 0]);
    }

    #[test]
    fn a_headless_service_that_is_to_be_balanced_is_reached_at_its_endpoints() {
        let endpoints = ["10.0.0.1:50051", "[fd00::1]:50051"];
        let grpc = service_port("grpc", 8000);
        let headless = service(ServiceKind::Headless);
        assert_eq!(texts(&headless, &grpc, &endpoints), [] as [&str; 0]);
        let balanced = ServiceRow { balance_headless: true, internal_traffic_local: true, ..headless };
        assert_eq!(texts(&balanced, &grpc, &endpoints), endpoints);
        assert_eq!(internal_policy(&balanced), TrafficPolicy::Cluster);
        assert_eq!(texts(&balanced, &service_port("web", 8000), &endpoints), [] as [&str; 0]);
    }
}
