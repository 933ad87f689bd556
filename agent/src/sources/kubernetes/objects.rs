//! An object of Kubernetes → its row.
//!
//! A fault in a part of an object leaves out that part, and a remark says so; a fault that makes the object as a whole
//! unusable is a [`Refusal`].

use super::{labels, sidecars};
use crate::mesh::{ObjectName, Picker};
use crate::sources::intern::Interner;
use crate::sources::rows::{
    Access, Conditions, Enabled, EndpointRow, Hints, LoadBalancerAddress, NamespaceRow, NodeRow, OnEnrol,
    PodRow, ServiceKind, ServicePortRow, ServiceRow, SlicePortRow, SliceRow, Transport, Waypoint,
};
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// The longest name that Kubernetes allows (a DNS subdomain, RFC 1123).
const MAX_NAME_BYTES: usize = 253;

/// Why an object has no row: one line for people.
pub type Refusal = String;

/// What was left out of an object, and why: a line each, for people.
pub type Remarks = Vec<String>;

/// A Node's row.
pub fn node(metadata: &ObjectMeta, names: &mut Interner) -> Result<NodeRow, Refusal> {
    let zone = label(metadata, labels::ZONE).filter(|zone| !zone.is_empty());
    Ok(NodeRow { name: names.intern(checked_name(metadata)?), zone: zone.map(|zone| names.intern(zone)) })
}

/// A Namespace's row.
pub fn namespace(
    metadata: &ObjectMeta,
    names: &mut Interner,
    remarks: &mut Remarks,
) -> Result<NamespaceRow, Refusal> {
    Ok(NamespaceRow {
        name: names.intern(checked_name(metadata)?),
        enabled: enabled(metadata, remarks),
        on_enrol: on_enrol(metadata, remarks),
        with_mesh: with_mesh(metadata, remarks),
        waypoint: waypoint(metadata, names),
    })
}

/// A Service's row.
pub fn service(object: &Service, names: &mut Interner, remarks: &mut Remarks) -> Result<ServiceRow, Refusal> {
    let metadata = &object.metadata;
    let name = object_name(metadata, names)?;
    let spec = object.spec.as_ref().ok_or("has no spec: passed over")?;

    let cluster_ips: Vec<&str> = match &spec.cluster_ips {
        Some(addresses) if !addresses.is_empty() => addresses.iter().map(String::as_str).collect(),
        _ => spec.cluster_ip.as_deref().into_iter().collect(),
    };
    let kind = if spec.type_.as_deref() == Some("ExternalName") {
        ServiceKind::ExternalName
    } else if cluster_ips.first() == Some(&"None") {
        ServiceKind::Headless
    } else {
        ServiceKind::ClusterIp
    };

    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut seen = HashSet::new();
    let ports = ports
        .iter()
        .filter_map(|port| {
            service_port(port, ports.len(), &mut seen, names).map_err(|cause| remarks.push(cause)).ok()
        })
        .collect();

    Ok(ServiceRow {
        name,
        kind,
        cluster_ips: addresses(
            "clusterIP",
            cluster_ips.into_iter().filter(|ip| !matches!(*ip, "" | "None")),
            remarks,
        ),
        external_ips: addresses(
            "externalIP",
            spec.external_ips.iter().flatten().map(String::as_str),
            remarks,
        ),
        load_balancer: load_balancer(object, remarks),
        internal_traffic_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        source_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        traffic_distribution: spec.traffic_distribution.as_deref().map(|text| names.intern(text)),
        waypoint: waypoint(metadata, names),
        with_mesh: with_mesh(metadata, remarks),
        ports,
        picker: picker(metadata, remarks),
        balance_headless: balance_headless(metadata, remarks),
        other_proxy: label(metadata, labels::SERVICE_PROXY_NAME).is_some(),
    })
}

fn load_balancer(object: &Service, remarks: &mut Remarks) -> Vec<LoadBalancerAddress> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ranges = object.spec.as_ref().and_then(|spec| spec.load_balancer_source_ranges.as_deref());
    let mut found: Vec<LoadBalancerAddress> = Vec::new();
    for ingress in status.and_then(|status| status.ingress.as_deref()).unwrap_or_default() {
        let Some(text) = ingress.ip.as_deref().filter(|ip| !ip.is_empty()) else { continue };
        let Some(ip) = usable_address(text) else {
            remarks
                .push(format!("load-balancer IP \"{}\" is not an address: passed over", text.escape_debug()));
            continue;
        };
        // What is not said is VIP; of modes that are not known yet, nothing is known (KEP-1860).
        let access = match ingress.ip_mode.as_deref() {
            None | Some("VIP") if is_restricted(ranges.unwrap_or_default(), ip) => Access::BySourceRange,
            None | Some("VIP") => Access::Direct,
            Some(_) => Access::ThroughLoadBalancer,
        };
        if !found.iter().any(|known| known.ip == ip) {
            found.push(LoadBalancerAddress { ip, access });
        }
    }
    found
}

/// Whether not every source may reach this address of a load balancer: ranges count for addresses of their family, and one
/// of all addresses lets everybody in.
fn is_restricted(ranges: &[String], ip: IpAddr) -> bool {
    let of_family =
        || ranges.iter().map(|range| range.trim()).filter(|range| range.contains(':') == ip.is_ipv6());
    of_family().next().is_some() && !of_family().any(|range| range.ends_with("/0"))
}

fn service_port(
    port: &ServicePort,
    of_ports: usize,
    seen: &mut HashSet<(u16, bool)>,
    names: &mut Interner,
) -> Result<ServicePortRow, String> {
    let number = port_number(port.port)
        .ok_or_else(|| format!("port {} is not between 1 and 65535: this port is passed over", port.port))?;
    let name = port.name.as_deref().unwrap_or_default();
    if name.is_empty() && of_ports > 1 {
        return Err(format!(
            "port {number} has no name: where a Service has several ports each needs one; this port is passed over"
        ));
    }
    let transport = transport(port.protocol.as_deref());
    if !seen.insert((number, transport == Transport::Tcp)) {
        return Err(format!("port {number} is there twice: the first counts"));
    }
    Ok(ServicePortRow {
        name: names.intern(name),
        port: number,
        transport,
        app_protocol: port
            .app_protocol
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| names.intern(text)),
        target: port.target_port.as_ref().map(|target| match target {
            IntOrString::Int(number) => names.intern(&number.to_string()),
            IntOrString::String(name) => names.intern(name),
        }),
        node_port: port.node_port.and_then(port_number),
    })
}

/// An EndpointSlice's row; `None` for a slice that another proxy than the node's serves.
pub fn slice(
    object: &EndpointSlice,
    names: &mut Interner,
    remarks: &mut Remarks,
) -> Result<Option<SliceRow>, Refusal> {
    let metadata = &object.metadata;
    let name = object_name(metadata, names)?;
    if label(metadata, labels::SERVICE_PROXY_NAME).is_some() {
        return Ok(None);
    }
    let service =
        label(metadata, labels::SERVICE_NAME).filter(|service| !service.is_empty()).ok_or_else(|| {
            format!("belongs to no Service, as it has no label {}: passed over", labels::SERVICE_NAME)
        })?;
    let ipv6 = match object.address_type.as_str() {
        "IPv4" => false,
        "IPv6" => true,
        other => return Err(format!("has addressType \"{other}\", not IPv4 or IPv6: passed over")),
    };

    let mut ports = Vec::new();
    for port in object.ports.iter().flatten() {
        // A port without a number means all ports: of no use to a Service.
        let Some(number) = port.port else { continue };
        match port_number(number) {
            Some(number) if transport(port.protocol.as_deref()) == Transport::Tcp => {
                ports.push(SlicePortRow {
                    name: names.intern(port.name.as_deref().unwrap_or_default()),
                    number,
                });
            }
            Some(_) => {}
            None => {
                remarks.push(format!("port {number} is not between 1 and 65535: this port is passed over"));
            }
        }
    }

    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    let mut hints = Vec::new();
    for each in &object.endpoints {
        match endpoint(each, ipv6, &name.namespace, &mut hints, names) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(cause) => remarks.push(cause),
        }
    }
    Ok(Some(SliceRow { name, service: names.intern(service), ports, endpoints }))
}

fn endpoint(
    endpoint: &Endpoint,
    ipv6: bool,
    namespace: &str,
    known_hints: &mut Vec<Arc<Hints>>,
    names: &mut Interner,
) -> Result<EndpointRow, String> {
    let text = endpoint.addresses.first().ok_or("an endpoint has no address: passed over")?;
    let address = usable_address(text).filter(|address| address.is_ipv6() == ipv6).ok_or_else(|| {
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        format!("\"{text}\" is not an {family} address of an endpoint: passed over")
    })?;
    let conditions = endpoint.conditions.as_ref();
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(EndpointRow {
        address,
        conditions: conditions.map_or_else(Conditions::default, |conditions| Conditions {
            ready: conditions.ready,
            serving: conditions.serving,
            terminating: conditions.terminating,
        }),
        zone: endpoint.zone.as_deref().map(|zone| names.intern(zone)),
        node: endpoint.node_name.as_deref().map(|node| names.intern(node)),
        pod: pod.and_then(|pod| {
            let namespace = pod.namespace.as_deref().unwrap_or(namespace);
            Some(format!("{namespace}/{}", pod.name.as_deref()?).into())
        }),
        hints: endpoint.hints.as_ref().and_then(|written| hints(written, known_hints, names)),
    })
}

/// An endpoint's hints, shared with the endpoints of its slice that have the same.
fn hints(written: &EndpointHints, known: &mut Vec<Arc<Hints>>, names: &mut Interner) -> Option<Arc<Hints>> {
    let hints = Hints {
        zones: written.for_zones.iter().flatten().map(|zone| names.intern(&zone.name)).collect(),
        nodes: written.for_nodes.iter().flatten().map(|node| names.intern(&node.name)).collect(),
    };
    if hints.zones.is_empty() && hints.nodes.is_empty() {
        return None;
    }
    if let Some(known) = known.iter().find(|known| ***known == hints) {
        return Some(known.clone());
    }
    let hints = Arc::new(hints);
    known.push(hints.clone());
    Some(hints)
}

/// A Pod's row. Of what a cluster fills in, a person who writes the object by hand may leave out all: without a UID its
/// name counts as one, and without a phase it runs.
pub fn pod(object: &Pod, names: &mut Interner, remarks: &mut Remarks) -> Result<PodRow, Refusal> {
    let metadata = &object.metadata;
    let name = object_name(metadata, names)?;
    let uid: Arc<str> = match metadata.uid.as_deref() {
        Some(uid) if !uid.is_empty() => uid.into(),
        _ => name.to_string().into(),
    };
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();

    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let mut declared_ports: Vec<u16> = containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| transport(port.protocol.as_deref()) == Transport::Tcp)
        .filter_map(|port| port_number(port.container_port))
        .collect();
    declared_ports.sort_unstable();
    declared_ports.dedup();

    let ips: Vec<&str> = match status.and_then(|status| status.pod_ips.as_deref()) {
        Some(ips) if !ips.is_empty() => ips.iter().map(|ip| ip.ip.as_str()).collect(),
        _ => status.and_then(|status| status.pod_ip.as_deref()).into_iter().collect(),
    };
    Ok(PodRow {
        cgroup_uid: annotation(metadata, labels::CONFIG_HASH).map_or_else(|| uid.clone(), Arc::from),
        uid,
        name,
        node: spec.and_then(|spec| spec.node_name.as_deref()).map(|node| names.intern(node)),
        finished: matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed")),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        addresses: addresses("podIP", ips.into_iter().filter(|ip| !ip.is_empty()), remarks),
        enabled: enabled(metadata, remarks),
        on_enrol: on_enrol(metadata, remarks),
        netns: netns(metadata, remarks),
        declared_ports,
        mesh: sidecars::mesh(object),
        with_mesh: with_mesh(metadata, remarks),
        runtime_class: spec
            .and_then(|spec| spec.runtime_class_name.as_deref())
            .map(|class| names.intern(class)),
    })
}

fn object_name(metadata: &ObjectMeta, names: &mut Interner) -> Result<ObjectName, Refusal> {
    let name = checked_name(metadata)?.into();
    // What `kubectl apply` would make of an object without one.
    let namespace =
        metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    if !is_name(namespace) {
        return Err(format!(
            "has the namespace \"{}\", which can't be one: passed over",
            namespace.escape_debug()
        ));
    }
    Ok(ObjectName { namespace: names.intern(namespace), name })
}

fn checked_name(metadata: &ObjectMeta) -> Result<&str, Refusal> {
    match metadata.name.as_deref() {
        Some(name) if is_name(name) => Ok(name),
        Some(name) if !name.is_empty() => {
            Err(format!("has the name \"{}\", which can't be one: passed over", name.escape_debug()))
        }
        _ => Err("has no metadata.name: passed over".into()),
    }
}

/// Whether this can be the name of an object: names go into log lines and error messages as they are.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(metadata.labels.as_ref(), key)
}

pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    value(metadata.annotations.as_ref(), key)
}

fn value<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    map?.get(key).map(String::as_str)
}

fn enabled(metadata: &ObjectMeta, remarks: &mut Remarks) -> Enabled {
    match label(metadata, labels::ENABLED) {
        None => Enabled::Unset,
        Some("true") => Enabled::Yes,
        Some("false") => Enabled::No,
        Some(other) => {
            remarks.push(format!(
                "label {} is \"{}\", not \"true\" or \"false\": nothing is enrolled by it",
                labels::ENABLED,
                other.escape_debug()
            ));
            Enabled::Invalid(other.into())
        }
    }
}

fn on_enrol(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<OnEnrol> {
    let known = [
        ("reconnect", OnEnrol::Reconnect),
        ("reconnect-missed", OnEnrol::ReconnectMissed),
        ("keep", OnEnrol::Keep),
    ];
    choice(metadata, labels::ON_ENROL, &known, remarks)
}

fn with_mesh(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<bool> {
    choice(metadata, labels::WITH_MESH, &[("true", true), ("false", false)], remarks)
}

fn waypoint(metadata: &ObjectMeta, names: &mut Interner) -> Waypoint {
    match label(metadata, labels::USE_WAYPOINT) {
        None | Some("") => Waypoint::Unset,
        Some("none") => Waypoint::None,
        Some(name) => Waypoint::Named(names.intern(name)),
    }
}

fn picker(metadata: &ObjectMeta, remarks: &mut Remarks) -> Picker {
    let known = [("round-robin", Picker::RoundRobin), ("ewma", Picker::Ewma)];
    choice(metadata, labels::PICKER, &known, remarks).unwrap_or_default()
}

fn balance_headless(metadata: &ObjectMeta, remarks: &mut Remarks) -> bool {
    choice(metadata, labels::HEADLESS, &[("balance", true)], remarks).unwrap_or(false)
}

/// What an annotation says of a few words that it may say.
fn choice<T: Copy>(
    metadata: &ObjectMeta,
    key: &str,
    known: &[(&str, T)],
    remarks: &mut Remarks,
) -> Option<T> {
    let text = annotation(metadata, key)?;
    let chosen = known.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if chosen.is_none() {
        let words: Vec<String> = known.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        remarks.push(format!(
            "annotation {key} is \"{}\", not {}: as if it were not there",
            text.escape_debug(),
            words.join(" or ")
        ));
    }
    chosen
}

fn netns(metadata: &ObjectMeta, remarks: &mut Remarks) -> Option<PathBuf> {
    let path = PathBuf::from(annotation(metadata, labels::NETNS)?);
    if path.is_absolute() {
        return Some(path);
    }
    remarks.push(format!(
        "annotation {} is \"{}\", not an absolute path: as if it were not there",
        labels::NETNS,
        path.display().to_string().escape_debug()
    ));
    None
}

fn transport(protocol: Option<&str>) -> Transport {
    match protocol {
        None | Some("" | "TCP") => Transport::Tcp,
        Some(_) => Transport::Other,
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn addresses<'a>(what: &str, texts: impl Iterator<Item = &'a str>, remarks: &mut Remarks) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in texts {
        match usable_address(text) {
            Some(address) if !addresses.contains(&address) => addresses.push(address),
            Some(_) => {}
            None => {
                remarks.push(format!("{what} \"{}\" is not an address: passed over", text.escape_debug()));
            }
        }
    }
    addresses
}

/// The address, if something can be reached at it. One form of it only: an IPv4 address that is written as an IPv6 one
/// would be captured as the one and dialled as the other.
fn usable_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    (!address.is_unspecified() && !address.is_multicast()).then_some(address)
}
