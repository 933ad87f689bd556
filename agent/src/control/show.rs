//! The world, for those who ask the admin endpoint.

use super::destinations::{self, Frontend, Straight};
use super::endpoints::TrafficPolicy;
use super::services::{self, Port, Service};
use super::view::{EndpointView, IdsView, PodView, PortView, ServiceView, UnusedView};
use super::world::World;
use crate::clock;
use crate::mesh::{CircuitBreaker, Endpoint, LeftOutBy, ObjectName, ServicePort};
use crate::sources::rows::{OnEnrol, ServiceKind, ServicePortRow, ServiceRow, Transport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl World {
    /// The Services, by name.
    pub fn services(&self) -> Vec<ServiceView> {
        self.services_that(|_| true)
    }

    /// Some of the Services, by name.
    pub fn services_that(&self, are_wanted: impl Fn(&ObjectName) -> bool) -> Vec<ServiceView> {
        let known = self.services.values().filter_map(|service| Some((service, service.row.as_ref()?)));
        let known = known.filter(|(_, row)| are_wanted(&row.name));
        known.map(|(service, row)| self.service_view(service, row)).collect()
    }

    /// The endpoints of captured ports whose Service wants them asked for their health, each with the service to name.
    pub fn health_checks(&self) -> Vec<(Arc<Endpoint>, Arc<str>)> {
        let checked = self
            .services
            .values()
            .filter_map(|service| Some((service, service.row.as_ref()?.balancing.health_check.0.as_ref()?)));
        let of = |(service, name): (&Service, &Arc<str>)| -> Vec<_> {
            let ports = service.ports.iter().filter(|port| port.wanted.is_ok());
            let called = |port| Port::endpoints(port).chain(Port::farther_in_use(port));
            ports.flat_map(called).map(|endpoint| (endpoint.clone(), name.clone())).collect()
        };
        checked.flat_map(of).collect()
    }

    /// The endpoints of all Service ports that have a backend, by Service port and address.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.endpoints_that(|_| true)
    }

    /// The endpoints of some Service ports, by Service port and address.
    pub fn endpoints_that(&self, are_wanted: impl Fn(&ServicePort) -> bool) -> Vec<EndpointView> {
        let wanted = self.each_endpoint().filter(|(port, _)| are_wanted(port));
        let mut views: Vec<_> = wanted.map(|(port, endpoint)| endpoint_view(port, endpoint)).collect();
        for of_port in views.chunk_by_mut(|one, other| one.service_port == other.service_port) {
            let all: u64 = of_port.iter().map(|endpoint| endpoint.calls).sum();
            for endpoint in of_port.iter_mut().filter(|_| all > 0) {
                // To a tenth: a share is looked at, not reckoned with.
                endpoint.share_percent = Some((endpoint.calls as f64 * 1_000.0 / all as f64).round() / 10.0);
            }
        }
        views
    }

    /// Of [`Self::endpoints`], those that this node has sent a call to: few, also where the cluster is large.
    pub fn endpoints_in_use(&self) -> Vec<EndpointView> {
        let in_use = self.each_endpoint().filter(|(_, endpoint)| endpoint.load.calls.load(Relaxed) > 0);
        in_use.map(|(port, endpoint)| endpoint_view(port, endpoint)).collect()
    }

    fn each_endpoint(&self) -> impl Iterator<Item = (&ServicePort, &Endpoint)> {
        let ports = self.services.values().flat_map(|service| &service.ports);
        ports.flat_map(|port| {
            let endpoints = port.endpoints().chain(port.farther_in_use());
            endpoints.map(|endpoint| (&port.key, &**endpoint))
        })
    }

    /// The pods, by name, each with the decision on it.
    pub fn pods(&self) -> Vec<PodView> {
        self.pods_that(|_| true)
    }

    /// Some of the pods, by name, each with the decision on it.
    pub fn pods_that(&self, are_wanted: impl Fn(&ObjectName) -> bool) -> Vec<PodView> {
        let mut pods: Vec<PodView> = self
            .pods
            .decisions(self.here(), &self.namespaces)
            .filter(|(pod, ..)| are_wanted(&pod.name))
            .map(|(pod, decision, on_enrol)| PodView {
                namespace: pod.name.namespace.to_string(),
                name: pod.name.name.to_string(),
                uid: pod.uid.to_string(),
                addresses: pod.addresses.clone(),
                enrol: decision.is_ok(),
                reason: decision.err().map(|reason| reason.to_string()),
                on_enrol: match on_enrol {
                    OnEnrol::Keep => "keep",
                    OnEnrol::Reconnect => "reconnect",
                    OnEnrol::ReconnectMissed => "reconnect-missed",
                },
            })
            .collect();
        pods.sort_by(|one, other| {
            (&one.namespace, &one.name, &one.uid).cmp(&(&other.namespace, &other.name, &other.uid))
        });
        pods
    }

    /// How the ids of destinations are used.
    pub fn ids(&self) -> IdsView {
        let ids = self.capture.ids();
        IdsView { capacity: ids.capacity(), live: ids.live(), resting: ids.resting() }
    }

    fn service_view(&self, service: &Service, row: &ServiceRow) -> ServiceView {
        let load_balancer = row.load_balancer.iter().map(|address| address.ip);
        let balancing = services::balancing(row);
        ServiceView {
            namespace: row.name.namespace.to_string(),
            name: row.name.name.to_string(),
            addresses: row
                .cluster_ips
                .iter()
                .chain(&row.external_ips)
                .copied()
                .chain(load_balancer)
                .collect(),
            picker: balancing.picker.name(),
            hash_on: balancing.picker.has_table().then(|| balancing.hash_on.to_string()),
            retry: balancing.retry.map(|policy| policy.to_string()),
            circuit_breaker: Some(balancing.circuit_breaker)
                .filter(|said| *said != CircuitBreaker::default()),
            internal_traffic_policy: row.internal_traffic_local.then_some("Local"),
            traffic_distribution: row.traffic_distribution.as_deref().map(str::to_owned),
            ports: row.ports.iter().map(|port| self.port_view(service, row, port)).collect(),
        }
    }

    fn port_view(&self, service: &Service, row: &ServiceRow, port_row: &ServicePortRow) -> PortView {
        let port = service.port(port_row.port).filter(|_| port_row.transport == Transport::Tcp);
        let frontends = port.map(|port| port.frontends.as_slice()).unwrap_or_default();
        let (captured, rest): (Vec<_>, Vec<_>) = frontends
            .iter()
            .partition(|frontend| self.is_captured_for(frontend.address, &row.name, port_row.port));
        let mut straight = match port.map(|port| &port.wanted) {
            None => vec!["not TCP".to_owned()],
            Some(Err(reason)) => vec![reason.to_string()],
            Some(Ok(())) if frontends.is_empty() => vec![no_address(row).to_string()],
            Some(Ok(())) => {
                let told = |frontend: &&Frontend| {
                    Some(format!("{}: {}", frontend.address, self.straight_because(port?, frontend)?))
                };
                rest.iter().filter_map(told).collect()
            }
        };
        if let Some(node_port) = port_row.node_port.filter(|_| port.is_some_and(|port| port.wanted.is_ok())) {
            straight.push(format!("node port {node_port}: the nodes' own addresses are left alone"));
        }
        PortView {
            port: port_row.port,
            name: port_row.name.to_string(),
            app_protocol: port_row.app_protocol.as_deref().map(str::to_owned),
            captured: captured.into_iter().map(|frontend| frontend.address).collect(),
            straight,
            endpoints: port.map_or(0, |port| reachable(port, row)),
            unused: port.map(|port| self.unused(service, row, port, port_row)).unwrap_or_default(),
        }
    }

    /// The endpoints of a port that get no calls from this node; of a port that is not captured, nobody asked.
    fn unused(
        &self,
        service: &Service,
        row: &ServiceRow,
        port: &Port,
        port_row: &ServicePortRow,
    ) -> Vec<UnusedView> {
        if port.wanted.is_err() {
            return Vec::new();
        }
        let unused = service.unused(row, port_row, self.place());
        let unused = unused.filter(|(candidate, _)| port.endpoint(candidate.address).is_none());
        unused
            .map(|(candidate, reason)| UnusedView {
                address: candidate.address,
                pod: candidate.row.pod.as_deref().map(str::to_owned),
                reason: reason.to_string(),
            })
            .collect()
    }

    pub(super) fn is_captured_for(&self, address: SocketAddr, service: &ObjectName, port: u16) -> bool {
        let owner = self.claims.owner(address);
        self.capture.is_captured(address)
            && owner.is_some_and(|owner| owner.service == *service && owner.port == port)
    }

    pub(super) fn straight_because(&self, port: &Port, frontend: &Frontend) -> Option<Straight> {
        let owner = self.claims.owner(frontend.address)?;
        Some(if let Err(reason) = &frontend.capturable {
            reason.clone()
        } else if *owner != port.key {
            Straight::ClaimedBy(owner.clone())
        } else if frontend.policy == TrafficPolicy::Local && self.place().node.is_none() {
            Straight::NodeUnknown
        } else if port.backend_for(frontend.address).is_none() {
            Straight::NoEndpoint(frontend.policy)
        } else {
            Straight::NoId
        })
    }
}

/// How many endpoints clients reach at the addresses that they have: of a Service whose internal traffic stays on the node, those of
/// other nodes are reached from outside alone.
fn reachable(port: &Port, row: &ServiceRow) -> usize {
    let internal = destinations::internal_policy(row);
    let is_local = internal == TrafficPolicy::Local
        && port.frontends.iter().all(|frontend| frontend.policy == TrafficPolicy::Local);
    if !is_local {
        return port.endpoints().count();
    }
    let local = port.backends.under(TrafficPolicy::Local);
    [&local.v4, &local.v6].into_iter().flatten().map(|backend| backend.endpoints.len()).sum()
}

/// Why a Service port that is to be captured has no address: a headless Service's are those of its endpoints.
fn no_address(row: &ServiceRow) -> Straight {
    if row.kind == ServiceKind::Headless {
        Straight::NoEndpoint(destinations::internal_policy(row))
    } else {
        Straight::NoAddress
    }
}

fn endpoint_view(service_port: &ServicePort, endpoint: &Endpoint) -> EndpointView {
    let latency_ns = endpoint.load.latency_ewma_ns.load(Relaxed);
    let now_ns = clock::monotonic_ns();
    let left_out = &endpoint.load.left_out;
    let LeftOutBy { sources: ejected_by, by_all: ejected, until_ns, reason } = left_out.by_whom(now_ns);
    let seconds = |nanoseconds: u64| nanoseconds.div_ceil(1_000_000_000);
    let last_check = left_out.last_check();
    EndpointView {
        service_port: service_port.to_string(),
        address: endpoint.address,
        pod: endpoint.pod.as_deref().map(str::to_owned),
        zone: endpoint.zone.as_deref().map(str::to_owned),
        active: endpoint.load.active(),
        calls: endpoint.load.calls.load(Relaxed),
        failures: endpoint.load.failures.load(Relaxed),
        ejected_by,
        ejected,
        ejections: left_out.times(),
        unhealthy: left_out.is_unhealthy(now_ns),
        ejection_reason: reason,
        ejected_for_seconds: reason.map(|_| seconds(until_ns - now_ns)),
        health_check: last_check.map(|(answer, _)| answer),
        health_checked_seconds: last_check.map(|(_, at_ns)| seconds(now_ns.saturating_sub(at_ns))),
        weight: endpoint.weight,
        share_percent: None,
        latency_us: (latency_ns > 0).then_some(latency_ns / 1_000),
    }
}
