//! Rows for tests, in which nothing is said.

use super::rows::{
    Conditions, Enabled, EndpointRow, Hints, NamespaceRow, PodRow, ServiceKind, ServicePortRow, ServiceRow,
    SlicePortRow, SliceRow, Transport, Waypoint,
};
use crate::mesh::{Balancing, Endpoint, ObjectName, Workload};
use std::sync::Arc;

/// A Service of the namespace `shop`, with a cluster address.
pub(crate) fn service(name: &str) -> ServiceRow {
    ServiceRow {
        name: ObjectName::new("shop", name),
        kind: ServiceKind::ClusterIp,
        cluster_ips: Vec::new(),
        external_ips: Vec::new(),
        load_balancer: Vec::new(),
        internal_traffic_local: false,
        source_affinity: false,
        traffic_distribution: None,
        waypoint: Waypoint::Unset,
        with_mesh: None,
        ports: Vec::new(),
        balancing: Balancing::default(),
        balance_headless: false,
        other_proxy: false,
    }
}

/// A TCP port of a Service.
pub(crate) fn service_port(name: &str, port: u16) -> ServicePortRow {
    ServicePortRow {
        name: name.into(),
        port,
        transport: Transport::Tcp,
        app_protocol: None,
        target: None,
        node_port: None,
    }
}

/// A slice of a Service of `shop`.
pub(crate) fn slice(
    name: &str,
    service: &str,
    ports: &[(&str, u16)],
    endpoints: impl IntoIterator<Item = EndpointRow>,
) -> SliceRow {
    let port = |(name, number): &(&str, u16)| SlicePortRow { name: (*name).into(), number: *number };
    SliceRow {
        name: ObjectName::new("shop", name),
        service: service.into(),
        ports: ports.iter().map(port).collect(),
        endpoints: endpoints.into_iter().collect(),
        weight: Endpoint::WEIGHT,
    }
}

/// An endpoint of which nothing is said.
pub(crate) fn endpoint(address: &str) -> EndpointRow {
    EndpointRow {
        address: address.parse().expect("an address"),
        conditions: Conditions::default(),
        zone: None,
        node: None,
        pod: None,
        hints: None,
    }
}

/// Hints for zones and nodes.
pub(crate) fn hints(zones: &[&str], nodes: &[&str]) -> Option<Arc<Hints>> {
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    Some(Arc::new(Hints { zones: names(zones), nodes: names(nodes) }))
}

/// The namespace `shop`.
pub(crate) fn namespace(enabled: Enabled) -> NamespaceRow {
    NamespaceRow {
        name: "shop".into(),
        enabled,
        on_enrol: None,
        with_mesh: None,
        waypoint: Waypoint::Unset,
        ambient: false,
    }
}

/// A running pod of `shop` on `node-1`.
pub(crate) fn pod(name: &str, enabled: Enabled) -> PodRow {
    PodRow {
        uid: format!("uid-{name}").into(),
        cgroup_uid: format!("uid-{name}").into(),
        name: ObjectName::new("shop", name),
        node: Some("node-1".into()),
        finished: false,
        host_network: false,
        addresses: Vec::new(),
        enabled,
        on_enrol: None,
        netns: None,
        declared_ports: Vec::new(),
        mesh: None,
        with_mesh: None,
        ambient: None,
        runtime_class: None,
        workload: Arc::new(Workload::named("shop", name, "Pod")),
        status_label: None,
    }
}
