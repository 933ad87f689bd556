//! A Service with its EndpointSlices, and what follows from them for each of its ports.

use super::destinations::{self, Frontend, Straight};
use super::endpoints::{self, ByFamily, Candidate, Choice, Place, TrafficPolicy, Unused};
use crate::balance;
use crate::clock;
use crate::mesh::{Backend, Balancing, Endpoint, HashOn, Picker, ServicePort};
use crate::sources::rows::{NamespaceRow, ServiceKind, ServicePortRow, ServiceRow, SliceRow, Transport};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

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

/// What a Service's ports depend on besides the Service and its slices.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    /// Its namespace.
    pub namespace: Option<&'a NamespaceRow>,
    /// Where its clients are.
    pub place: Place<'a>,
}

/// A TCP port of a Service.
#[derive(Debug)]
pub(super) struct Port {
    /// Which.
    pub key: ServicePort,
    /// Whether its connections are to be captured, as far as the Service and its namespace say.
    pub wanted: Result<(), Straight>,
    /// Where its calls go.
    pub backends: Backends,
    /// Where clients reach it, sorted by address.
    pub frontends: Vec<Frontend>,
}

/// Where calls go that come under a traffic policy; `None` for a family that has no endpoint, and for a policy that no call comes
/// under.
#[derive(Debug, Default)]
pub(super) struct Backends {
    pub cluster: ByFamily<Option<Arc<Backend>>>,
    pub local: ByFamily<Option<Arc<Backend>>>,
}

impl Backends {
    pub(super) fn under(&self, policy: TrafficPolicy) -> &ByFamily<Option<Arc<Backend>>> {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }

    fn endpoint(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        find(endpoints_of(self.cluster.of(address)), address)
            .or_else(|| find(endpoints_of(self.local.of(address)), address))
    }

    /// The same, also where it is farther away than hints want it.
    fn known(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        let wider = self.cluster.of(address).as_ref().map_or(&[][..], |backend| &backend.wider);
        self.endpoint(address).or_else(|| find(wider, address))
    }
}

impl Port {
    /// How clients reach it at this address.
    pub(super) fn frontend(&self, address: SocketAddr) -> Option<&Frontend> {
        let at = self.frontends.binary_search_by_key(&address, |frontend| frontend.address).ok()?;
        Some(&self.frontends[at])
    }

    /// Whether connections to this address are to be captured, as far as the Service and its namespace say.
    pub(super) fn wants(&self, address: SocketAddr) -> Result<&Frontend, Straight> {
        self.wanted.clone()?;
        let frontend = self.frontend(address).ok_or(Straight::NoAddress)?;
        frontend.capturable.clone()?;
        Ok(frontend)
    }

    /// The endpoints that calls go to, under any policy, each once.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let Backends { cluster, local } = &self.backends;
        let cluster_ones = [&cluster.v4, &cluster.v6].into_iter().flat_map(endpoints_of);
        let local_ones = [&local.v4, &local.v6].into_iter().flat_map(endpoints_of);
        let not_twice = local_ones
            .filter(|endpoint| find(endpoints_of(cluster.of(endpoint.address)), endpoint.address).is_none());
        cluster_ones.chain(not_twice)
    }

    /// Endpoints farther away than hints want them that have got calls all the same.
    pub(super) fn farther_in_use(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let Backends { cluster, .. } = &self.backends;
        let wider = [&cluster.v4, &cluster.v6].into_iter().flatten().flat_map(|backend| backend.wider.iter());
        wider.filter(|endpoint| {
            endpoint.load.calls.load(Relaxed) > 0 && self.endpoint(endpoint.address).is_none()
        })
    }

    /// The endpoint at this address, if calls go to it.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.backends.endpoint(address)
    }

    /// Where calls go that were sent to this address; `None` if no endpoint of its family may serve one.
    pub(super) fn backend_for(&self, address: SocketAddr) -> Option<&Arc<Backend>> {
        match self.frontend(address) {
            Some(frontend) => self.backends.under(frontend.policy).of(address).as_ref(),
            // Connections to an address that the Service had once go on.
            None => self.backends.cluster.of(address).as_ref().or(self.backends.local.of(address).as_ref()),
        }
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

    /// Whether it matters to it in which zone its clients are.
    pub(super) fn has_zone_hints(&self) -> bool {
        let endpoints = self.slices.values().flat_map(|slice| &slice.endpoints);
        endpoints.filter_map(|endpoint| endpoint.hints.as_ref()).any(|hints| !hints.zones.is_empty())
    }

    /// What its slices say of a port.
    pub(super) fn candidates(&self, port: &ServicePortRow) -> ByFamily<Vec<Candidate<'_>>> {
        endpoints::candidates(self.slices.values().map(Arc::as_ref), &port.name)
    }

    /// The endpoints of a port that get no calls sent to a cluster address, and why.
    pub(super) fn unused<'a>(
        &'a self,
        row: &ServiceRow,
        port: &ServicePortRow,
        place: Place<'a>,
    ) -> impl Iterator<Item = (Candidate<'a>, Unused)> {
        let (policy, place) = (destinations::internal_policy(row), effective_place(row, place));
        let ByFamily { v4, v6 } = self.candidates(port);
        [v4, v6].into_iter().flat_map(move |candidates| unused(candidates, policy, place))
    }

    /// The endpoints of a port that get no calls sent to this address of its, under this policy, and why.
    pub(super) fn unused_at<'a>(
        &'a self,
        row: &ServiceRow,
        port: &ServicePortRow,
        (address, policy): (SocketAddr, TrafficPolicy),
        place: Place<'a>,
    ) -> Vec<(Candidate<'a>, Unused)> {
        let ByFamily { v4, v6 } = self.candidates(port);
        let of_family = if address.is_ipv6() { v6 } else { v4 };
        unused(of_family, policy, effective_place(row, place)).collect()
    }

    /// Derives the ports anew, and returns the old ones. A backend that comes out the same is the same. `keep` says of a port
    /// that is not wanted whether it needs its backends all the same.
    pub(super) fn rebuild(
        &mut self,
        surroundings: Surroundings<'_>,
        keep: impl Fn(&ServicePort) -> bool,
    ) -> Vec<Port> {
        let old = std::mem::take(&mut self.ports);
        let Some(row) = &self.row else { return old };
        let mut ports = Vec::with_capacity(row.ports.len());
        for port_row in row.ports.iter().filter(|port| port.transport == Transport::Tcp) {
            let key = ServicePort { service: row.name.clone(), port: port_row.port };
            let wanted = destinations::wanted(row, surroundings.namespace, port_row);
            let backends = if row.kind != ServiceKind::ExternalName && (wanted.is_ok() || keep(&key)) {
                let before = old.iter().find(|port| port.key == key).map(|port| &port.backends);
                let candidates = self.candidates(port_row);
                derive(&key, row, surroundings.place, &candidates, before.unwrap_or(&Backends::default()))
            } else {
                Backends::default()
            };
            let families = [&backends.cluster.v4, &backends.cluster.v6];
            let endpoints = families.into_iter().flat_map(endpoints_of);
            let frontends =
                destinations::frontends(row, port_row, endpoints.map(|endpoint| endpoint.address));
            ports.push(Port { key, wanted, backends, frontends });
        }
        self.ports = ports;
        old
    }
}

fn unused<'a>(
    of_family: Vec<Candidate<'a>>,
    policy: TrafficPolicy,
    place: Place<'a>,
) -> impl Iterator<Item = (Candidate<'a>, Unused)> {
    let choice = Choice::new(&of_family, policy, place);
    of_family.into_iter().filter_map(move |candidate| Some((candidate, choice.judge(&candidate).err()?)))
}

/// The backends of a port. An endpoint that stands under both policies is one.
fn derive(
    key: &ServicePort,
    row: &ServiceRow,
    place: Place<'_>,
    candidates: &ByFamily<Vec<Candidate<'_>>>,
    before: &Backends,
) -> Backends {
    let mut backends = Backends::default();
    // Nobody is new among those that a Service is first seen with.
    let is_first = [&before.cluster, &before.local].into_iter().all(|of| of.v4.is_none() && of.v6.is_none());
    let now_ns = if is_first { 0 } else { clock::monotonic_ns() };
    let place = effective_place(row, place);
    // Who is on no node of the cluster reaches a Service from outside.
    if place.node.is_none() || uses_cluster_policy(row) {
        let choose = |candidates: &[Candidate<'_>], before_it: Option<&Arc<Backend>>| {
            let choice = Choice::new(candidates, TrafficPolicy::Cluster, place);
            let found = choice.endpoints(candidates, now_ns, |address| before.known(address));
            let wider = if choice.is_hinted() {
                let known = |address| find(&found, address).or_else(|| before.known(address));
                choice.wider().endpoints(candidates, now_ns, known)
            } else {
                Vec::new()
            };
            backend(key, row, found, wider, before_it)
        };
        backends.cluster.v4 = choose(&candidates.v4, before.cluster.v4.as_ref());
        backends.cluster.v6 = choose(&candidates.v6, before.cluster.v6.as_ref());
    }
    if destinations::internal_policy(row) == TrafficPolicy::Local {
        let choose = |candidates: &[Candidate<'_>], before_it: Option<&Arc<Backend>>| {
            let choice = Choice::new(candidates, TrafficPolicy::Local, place);
            let known = |address| backends.known(address).or_else(|| before.known(address));
            backend(key, row, choice.endpoints(candidates, now_ns, known), Vec::new(), before_it)
        };
        let v4 = choose(&candidates.v4, before.local.v4.as_ref());
        let v6 = choose(&candidates.v6, before.local.v6.as_ref());
        backends.local = ByFamily { v4, v6 };
    }
    backends
}

/// Where the clients of a Service count as being. DNS hands out all endpoints of a headless one, whomever they are hinted for.
fn effective_place<'a>(row: &ServiceRow, place: Place<'a>) -> Place<'a> {
    if row.kind == ServiceKind::Headless { Place::default() } else { place }
}

/// Whether any address of a Service leads to the endpoints under the policy `Cluster`.
fn uses_cluster_policy(row: &ServiceRow) -> bool {
    destinations::internal_policy(row) == TrafficPolicy::Cluster
        || !row.external_ips.is_empty()
        || !row.load_balancer.is_empty()
}

fn endpoints_of(backend: &Option<Arc<Backend>>) -> &[Arc<Endpoint>] {
    backend.as_ref().map_or(&[], |backend| &backend.endpoints)
}

fn find(endpoints: &[Arc<Endpoint>], address: SocketAddr) -> Option<&Arc<Endpoint>> {
    let at = endpoints.binary_search_by_key(&address, |endpoint| endpoint.address).ok()?;
    Some(&endpoints[at])
}

/// How an endpoint is chosen for a call: a client that is to stay with one endpoint wins over any other wish.
pub(super) fn balancing(row: &ServiceRow) -> Balancing {
    let stays = row.balancing.picker.has_table() && row.balancing.hash_on == HashOn::Source;
    if row.source_affinity && !stays {
        Balancing { picker: Picker::SourceHash, ..row.balancing.clone() }
    } else {
        row.balancing.clone()
    }
}

fn backend(
    key: &ServicePort,
    row: &ServiceRow,
    found: Vec<Arc<Endpoint>>,
    wider: Vec<Arc<Endpoint>>,
    before: Option<&Arc<Backend>>,
) -> Option<Arc<Backend>> {
    if found.is_empty() {
        return None;
    }
    let balancing = balancing(row);
    let same = |before: &[Arc<Endpoint>], now: &[Arc<Endpoint>]| {
        before.len() == now.len() && before.iter().zip(now).all(|(one, other)| Arc::ptr_eq(one, other))
    };
    let same_endpoints =
        before.filter(|before| same(&before.endpoints, &found) && same(&before.wider, &wider));
    match same_endpoints {
        Some(unchanged) if unchanged.balancing == balancing => Some(unchanged.clone()),
        same_endpoints => {
            let endpoints = same_endpoints.map_or_else(|| found.into(), |same| same.endpoints.clone());
            let backend = Backend::new(key.clone(), endpoints, balancing).with_wider(wider.into());
            balance::prepare(&backend, before.map(Arc::as_ref));
            Some(Arc::new(backend))
        }
    }
}

/// A backend that no call can go to: that of a destination whose Service port has no endpoint, or is gone.
pub(super) fn empty_backend(key: &ServicePort) -> Arc<Backend> {
    Arc::new(Backend::new(key.clone(), Arc::default(), Balancing::default()))
}
