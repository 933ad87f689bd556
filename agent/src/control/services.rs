//! A Service with its EndpointSlices, and what follows from them for each of its ports.

use super::destinations::{self, Straight};
use super::endpoints::{self, ByFamily};
use crate::mesh::{Backend, Endpoint, ServicePort};
use crate::sources::rows::{ServiceKind, ServiceRow, SliceRow, Transport};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// What is known of a Service. Slices may come before it, and stay after it.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// Its row.
    pub row: Option<Arc<ServiceRow>>,
    /// Its slices, by name.
    pub slices: BTreeMap<Arc<str>, Arc<SliceRow>>,
    /// What follows: its TCP ports, in the row's order.
    pub ports: Vec<Port>,
}

/// A TCP port of a Service.
#[derive(Debug)]
pub(super) struct Port {
    /// Which.
    pub key: ServicePort,
    /// Whether its connections are to be captured, as far as the Service says.
    pub wanted: Result<(), Straight>,
    /// Where its calls go, for those whom calls can come to; `None` for a family that has no endpoint.
    pub backends: ByFamily<Option<Arc<Backend>>>,
    /// Where clients reach it.
    pub addresses: Vec<SocketAddr>,
}

impl Port {
    /// Where calls go that were sent to this address; `None` if no endpoint of its family may serve one.
    pub(super) fn backend_for(&self, address: SocketAddr) -> Option<&Arc<Backend>> {
        self.backends.of(address).as_ref()
    }
}

impl Service {
    /// Whether nothing is known of it any more.
    pub(super) fn is_unknown(&self) -> bool {
        self.row.is_none() && self.slices.is_empty()
    }

    /// The port that clients dial at this number.
    pub(super) fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.key.port == number)
    }

    /// Derives the ports anew, and returns the old ones. A backend that comes out the same is the same. `keep` says of a port
    /// that is not wanted whether it needs a backend all the same.
    pub(super) fn rebuild(&mut self, keep: impl Fn(&ServicePort) -> bool) -> Vec<Port> {
        let old = std::mem::take(&mut self.ports);
        let Some(row) = &self.row else { return old };
        for port_row in row.ports.iter().filter(|port| port.transport == Transport::Tcp) {
            let key = ServicePort { service: row.name.clone(), port: port_row.port };
            let wanted = destinations::wanted(row, port_row);
            let before = old.iter().find(|port| port.key == key).map(|port| &port.backends);
            let needs_backend = row.kind != ServiceKind::ExternalName && (wanted.is_ok() || keep(&key));
            let backends = if needs_backend {
                let found = endpoints::endpoints(
                    self.slices.values().map(Arc::as_ref),
                    &port_row.name,
                    &ByFamily {
                        v4: endpoints_of(before.and_then(|before| before.v4.as_ref())),
                        v6: endpoints_of(before.and_then(|before| before.v6.as_ref())),
                    },
                );
                let same_or_new = |found, before: Option<&Arc<Backend>>| backend(&key, row, found, before);
                ByFamily {
                    v4: same_or_new(found.v4, before.and_then(|before| before.v4.as_ref())),
                    v6: same_or_new(found.v6, before.and_then(|before| before.v6.as_ref())),
                }
            } else {
                ByFamily::default()
            };
            let found =
                ByFamily { v4: endpoints_of(backends.v4.as_ref()), v6: endpoints_of(backends.v6.as_ref()) };
            let addresses = destinations::addresses(row, port_row, &found);
            self.ports.push(Port { key, wanted, backends, addresses });
        }
        old
    }
}

fn endpoints_of(backend: Option<&Arc<Backend>>) -> &[Arc<Endpoint>] {
    backend.map_or(&[], |backend| &backend.endpoints)
}

fn backend(
    key: &ServicePort,
    row: &ServiceRow,
    found: Vec<Arc<Endpoint>>,
    before: Option<&Arc<Backend>>,
) -> Option<Arc<Backend>> {
    if found.is_empty() {
        return None;
    }
    let same_endpoints = before.filter(|before| {
        before.endpoints.len() == found.len()
            && before.endpoints.iter().zip(&found).all(|(one, other)| Arc::ptr_eq(one, other))
    });
    match same_endpoints {
        Some(before) if before.picker == row.picker => Some(before.clone()),
        same_endpoints => Some(Arc::new(Backend {
            service_port: key.clone(),
            endpoints: same_endpoints.map_or_else(|| found.into(), |before| before.endpoints.clone()),
            picker: row.picker,
        })),
    }
}

/// A backend that no call can go to: that of a destination whose Service port has no endpoint, or is gone.
pub(super) fn empty_backend(key: &ServicePort) -> Arc<Backend> {
    Arc::new(Backend { service_port: key.clone(), endpoints: Arc::default(), picker: Default::default() })
}
