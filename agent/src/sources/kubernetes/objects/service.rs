//! Services.

use super::super::labels;
use super::balancing::balancing;
use super::fields::{addresses, port_number, transport, usable_address};
use super::metadata::{choice, label, object_name, waypoint, with_mesh};
use super::{Refusal, Remarks};
use crate::sources::intern::Interner;
use crate::sources::rows::{Access, LoadBalancerAddress, ServiceKind, ServicePortRow, ServiceRow, Transport};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::HashSet;
use std::net::IpAddr;

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
        balancing: balancing(metadata, remarks),
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

fn balance_headless(metadata: &ObjectMeta, remarks: &mut Remarks) -> bool {
    choice(metadata, labels::HEADLESS, &[("balance", true)], remarks).unwrap_or(false)
}
