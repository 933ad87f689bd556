//! EndpointSlices.

use super::super::labels;
use super::balancing::weight;
use super::fields::{port_number, transport, usable_address};
use super::metadata::{label, object_name};
use super::{Refusal, Remarks};
use crate::sources::intern::Interner;
use crate::sources::rows::{Conditions, EndpointRow, Hints, SlicePortRow, SliceRow, Transport};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice};
use std::sync::Arc;

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
        other => {
            let other = other.escape_debug();
            return Err(format!("has addressType \"{other}\", not IPv4 or IPv6: passed over"));
        }
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
    let weight = weight(metadata, remarks);
    Ok(Some(SliceRow { name, service: names.intern(service), ports, endpoints, weight }))
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
        format!("\"{}\" is not an {family} address of an endpoint: passed over", text.escape_debug())
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
