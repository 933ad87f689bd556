//! Which endpoints may serve a call to a Service port: what `candidates` finds in the slices, of which a [`Choice`] takes those
//! that clients of this node are sent to.
//!
//! The rules are kube-proxy's (`CategorizeEndpoints` in `pkg/proxy/topology.go`), and so a client reaches whom it would reach
//! without Evenkeel. One differs: a terminating endpoint that counts as ready, as `publishNotReadyAddresses` has it, gets calls
//! only where no other endpoint is left, as each of its calls would be lost with it.

use crate::mesh::{Endpoint, Load};
use crate::sources::rows::{Conditions, EndpointRow, Hints, SliceRow};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The endpoints of a Service port, each family for itself: a pod of a dual-stack Service has one of each, and a client
/// that dials an address of one family is served by endpoints of that family, as without Evenkeel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ByFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> ByFamily<T> {
    /// The one for the family of an address.
    pub fn of(&self, address: SocketAddr) -> &T {
        if address.is_ipv6() { &self.v6 } else { &self.v4 }
    }

    /// The same of each family.
    pub fn map<U>(self, mut with: impl FnMut(T) -> U) -> ByFamily<U> {
        ByFamily { v4: with(self.v4), v6: with(self.v6) }
    }
}

/// Where the clients are: on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place<'a> {
    /// Its name, if it is known.
    pub node: Option<&'a str>,
    /// Its topology zone, if it has one.
    pub zone: Option<&'a str>,
}

/// Which endpoints traffic may go to (`internalTrafficPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All, or those that are hinted for the client's node or zone.
    Cluster,
    /// Those on the client's node, and no other.
    Local,
}

/// What an endpoint is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Serves calls.
    Calls,
    /// Serves calls if there is nobody else: it still serves while it terminates.
    LastResort,
    /// Serves none.
    None,
}

/// Why an endpoint gets no calls from this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// It is not ready.
    NotReady,
    /// It terminates, and others do not.
    Terminating,
    /// It is hinted for other nodes, and others for this one.
    HintedForOtherNodes,
    /// It is hinted for other zones, and others for this one.
    HintedForOtherZones,
    /// It is not on this node, and `internalTrafficPolicy` is `Local`.
    NotLocal,
}

/// An endpoint of a port, as the slices have it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is known of it.
    pub row: &'a EndpointRow,
    /// Its weight.
    pub weight: u32,
    good_for: Use,
}

/// What an endpoint is good for, by its conditions. What is not said counts as ready, as serving and as not terminating, and so
/// an endpoint of which nothing is said serves.
fn good_for(conditions: Conditions) -> Use {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(true);
    match conditions.terminating.unwrap_or(false) {
        false if ready => Use::Calls,
        true if ready || serving => Use::LastResort,
        _ => Use::None,
    }
}

/// The endpoints of a Service's port of this name, good for something or not: sorted by address, each address once, however
/// many slices it stands in.
pub fn candidates<'a>(
    slices: impl Iterator<Item = &'a SliceRow>,
    port_name: &str,
) -> ByFamily<Vec<Candidate<'a>>> {
    let mut found: Vec<Candidate<'a>> = Vec::new();
    for slice in slices {
        for port in slice.ports.iter().filter(|port| *port.name == *port_name) {
            found.extend(slice.endpoints.iter().map(|row| Candidate {
                address: SocketAddr::new(row.address, port.number),
                row,
                weight: slice.weight,
                good_for: good_for(row.conditions),
            }));
        }
    }
    // Of an address that several slices name, as they do while endpoints move between them, the best word counts.
    found.sort_by_key(|candidate| (candidate.address, candidate.good_for));
    found.dedup_by_key(|candidate| candidate.address);
    let first_v6 = found.partition_point(|candidate| candidate.address.is_ipv4());
    let v6 = found.split_off(first_v6);
    ByFamily { v4: found, v6 }
}

/// Which of a family's candidates get the calls of this node's clients.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    place: Place<'a>,
    policy: TrafficPolicy,
    wanted: Use,
    hinted: Hinted,
}

/// Which hints are heeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hinted {
    ForNode,
    ForZone,
    Ignored,
}

impl<'a> Choice<'a> {
    /// Chooses among the candidates of one family.
    pub fn new(candidates: &[Candidate<'_>], policy: TrafficPolicy, place: Place<'a>) -> Self {
        let mut choice = Self { place, policy, wanted: Use::None, hinted: Hinted::Ignored };
        let reachable = candidates.iter().filter(|candidate| choice.is_reachable(candidate));
        choice.wanted = reachable.map(|candidate| candidate.good_for).min().unwrap_or(Use::None);
        if choice.policy == TrafficPolicy::Cluster && choice.wanted == Use::Calls {
            choice.hinted = hinted(candidates, place);
        }
        choice
    }

    /// Whether a candidate gets calls, or why not.
    pub fn judge(&self, candidate: &Candidate<'_>) -> Result<(), Unused> {
        match candidate.good_for {
            Use::None => return Err(Unused::NotReady),
            _ if !self.is_reachable(candidate) => return Err(Unused::NotLocal),
            Use::LastResort if self.wanted == Use::Calls => return Err(Unused::Terminating),
            Use::LastResort | Use::Calls => {}
        }
        match self.hinted {
            Hinted::ForNode if !hints(candidate).for_node(self.place) => Err(Unused::HintedForOtherNodes),
            Hinted::ForZone if !hints(candidate).for_zone(self.place) => Err(Unused::HintedForOtherZones),
            Hinted::ForNode | Hinted::ForZone | Hinted::Ignored => Ok(()),
        }
    }

    fn is_reachable(&self, candidate: &Candidate<'_>) -> bool {
        match self.policy {
            TrafficPolicy::Cluster => true,
            TrafficPolicy::Local => {
                self.place.node.is_some() && candidate.row.node.as_deref() == self.place.node
            }
        }
    }

    /// Whether hints keep calls near, so that there are [farther](Self::wider) endpoints.
    pub fn is_hinted(&self) -> bool {
        self.hinted != Hinted::Ignored
    }

    /// The same without hints.
    #[must_use]
    pub fn wider(self) -> Self {
        Self { hinted: Hinted::Ignored, ..self }
    }

    /// The candidates that get calls, as endpoints, sorted by address. One that was there before is the same one, or at least
    /// goes on with its [`Load`]. One that was not is ready since `now_ns`.
    pub fn endpoints<'e>(
        &self,
        candidates: &[Candidate<'_>],
        now_ns: u64,
        previous: impl Fn(SocketAddr) -> Option<&'e Arc<Endpoint>>,
    ) -> Vec<Arc<Endpoint>> {
        let chosen = candidates.iter().filter(|candidate| self.judge(candidate).is_ok());
        chosen
            .map(|Candidate { address, row, weight, .. }| match previous(*address) {
                Some(before)
                    if before.pod == row.pod
                        && before.node == row.node
                        && before.zone == row.zone
                        && before.weight == *weight =>
                {
                    before.clone()
                }
                before => Arc::new(Endpoint {
                    address: *address,
                    pod: row.pod.clone(),
                    node: row.node.clone(),
                    zone: row.zone.clone(),
                    weight: *weight,
                    ready_since_ns: before.map_or(now_ns, |before| before.ready_since_ns),
                    load: before.map_or_else(|| Arc::new(Load::default()), |before| before.load.clone()),
                }),
            })
            .collect()
    }
}

/// Hints count if every endpoint that serves has one and one of them is for here: first those for nodes, then those for zones.
fn hinted(candidates: &[Candidate<'_>], place: Place<'_>) -> Hinted {
    let serving = || candidates.iter().filter(|candidate| candidate.good_for == Use::Calls).map(hints);
    // Most slices have none, and are not searched further.
    if serving().all(|hints| !hints.nodes.is_empty()) && serving().any(|hints| hints.for_node(place)) {
        return Hinted::ForNode;
    }
    if serving().all(|hints| !hints.zones.is_empty()) && serving().any(|hints| hints.for_zone(place)) {
        return Hinted::ForZone;
    }
    Hinted::Ignored
}

#[derive(Clone, Copy, Default)]
struct HintLists<'a> {
    nodes: &'a [Arc<str>],
    zones: &'a [Arc<str>],
}

fn hints<'a>(candidate: &Candidate<'a>) -> HintLists<'a> {
    let lists = |hints: &'a Arc<Hints>| HintLists { nodes: &hints.nodes, zones: &hints.zones };
    candidate.row.hints.as_ref().map_or_else(HintLists::default, lists)
}

impl HintLists<'_> {
    fn for_node(&self, place: Place<'_>) -> bool {
        place.node.is_some_and(|node| self.nodes.iter().any(|hint| **hint == *node))
    }

    fn for_zone(&self, place: Place<'_>) -> bool {
        place.zone.is_some_and(|zone| self.zones.iter().any(|hint| **hint == *zone))
    }
}

impl fmt::Display for Unused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unused::NotReady => "not ready",
            Unused::Terminating => "terminating, and others are not",
            Unused::HintedForOtherNodes => "hinted for other nodes, and others for this one",
            Unused::HintedForOtherZones => "hinted for other zones, and others for this one",
            Unused::NotLocal => "not on this node, and internalTrafficPolicy is Local",
        })
    }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
