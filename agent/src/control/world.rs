//! Everything that is known, and what follows from it.

use super::capture::{Capture, Wanted};
use super::claims::{Claim, Claims};
use super::delta::{Delta, Refused};
use super::destinations::{self, Frontend};
use super::endpoints::{Place, TrafficPolicy};
use super::enrolment::Here;
use super::pods::Pods;
use super::services::{Service, Surroundings, empty_backend};
use crate::mesh::{Backend, DestinationId, ObjectName, ServicePort, Snapshot};
use crate::sources::rows::{Change, NamespaceRow, NodeRow, PodRow, Row, RowKey, SliceRow};
use crate::sources::{Problem, Problems};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// How many contested addresses are told one by one: who has more has one mistake, not as many.
const MAX_CONTESTED_TOLD: usize = 100;

/// What the world does not learn from rows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name. Pods of other nodes are not enrolled; `None`: all pods are this node's.
    pub node: Option<Arc<str>>,
    /// The agent's own pod, which is never enrolled.
    pub own_pod_uid: Option<Arc<str>>,
    /// How many addresses the kernel's map of destinations has room for.
    pub addresses: u32,
    /// How many ids the kernel has room for, live and resting: they are below this.
    pub ids: u32,
    /// Service ports that are asked for by name, be they gRPC or not: [`World::backend`] knows these too.
    pub explicit_ports: Vec<ServicePort>,
}

/// A destination that stands in the kernel's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// What apps dial.
    pub address: SocketAddr,
    /// The id that stands for it.
    pub id: DestinationId,
    /// Whether its connections are taken: it has an endpoint.
    pub has_endpoint: bool,
}

/// Everything that is known, and what follows from it.
#[derive(Debug)]
pub struct World {
    node: Option<Arc<str>>,
    own_pod_uid: Option<Arc<str>>,
    explicit_ports: HashSet<ServicePort>,
    /// This node's topology zone.
    zone: Option<Arc<str>>,
    pub(super) namespaces: HashMap<Arc<str>, Arc<NamespaceRow>>,
    pub(super) pods: Pods,
    pub(super) services: BTreeMap<ObjectName, Service>,
    /// The Service of each slice.
    slices: HashMap<ObjectName, Arc<str>>,
    pub(super) claims: Claims,
    pub(super) capture: Capture,
    problems: Problems,
    /// What is in the way of pods that were asked for: no fault of the rows.
    refusals: Problems,
}

impl World {
    /// A world of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            node: settings.node,
            own_pod_uid: settings.own_pod_uid,
            explicit_ports: settings.explicit_ports.into_iter().collect(),
            zone: None,
            namespaces: HashMap::new(),
            pods: Pods::default(),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            claims: Claims::default(),
            capture: Capture::new(settings.addresses, settings.ids),
            problems: Problems::default(),
            refusals: Problems::default(),
        }
    }

    /// Takes over what a process before this one left in the kernel: `live` is the map of destinations; `named` are the ids
    /// that the kernel still has an original address for. To be called before the first [`Self::apply`]. What the first
    /// batch does not want any more, its delta removes.
    pub fn restore(
        &mut self,
        live: impl IntoIterator<Item = Live>,
        named: impl IntoIterator<Item = DestinationId>,
        now: Instant,
    ) {
        self.capture.restore(live, named, now);
    }

    /// Applies a batch as a whole. Costs what the changes touch, however much else is known.
    pub fn apply(&mut self, changes: Vec<Change>) -> Delta {
        let mut delta = Delta::default();
        let mut touched = BTreeSet::new();
        for change in changes {
            self.take(change, &mut touched);
        }
        let mut addresses = BTreeSet::new();
        for name in &touched {
            self.rebuild(name, &mut addresses);
        }
        addresses.extend(self.capture.retry());
        for address in addresses {
            let wanted = wanted(&self.claims, &self.services, address);
            self.capture.settle(address, wanted, &mut delta);
        }
        self.capture.end_restore(&mut delta);
        let here = Here { node: self.node.as_deref(), own_pod_uid: self.own_pod_uid.as_deref() };
        self.pods.settle(here, &self.namespaces, &mut delta);
        delta.snapshot = self.capture.publish();
        self.problems.replace(self.find_problems());
        self.refusals.replace(self.refused().map(Refused::problem).collect());
        delta
    }

    /// To be called when a delta's `retired` ids are out of the kernel's map of destinations: their quarantine begins.
    pub fn removed_from_kernel(&mut self, ids: &[DestinationId], now: Instant) {
        self.capture.removed_from_kernel(ids, now);
    }

    /// Ends the quarantine of ids whose time is over and that no connection carries, and returns them: they are not in
    /// [`Self::snapshot`] any more, which is to be published, and the kernel may forget their original addresses. They
    /// are used again at the earliest after the next call of this method. To be called from time to time.
    pub fn quarantine_over(
        &mut self,
        now: Instant,
        in_use: impl Fn(DestinationId) -> u64,
    ) -> Vec<DestinationId> {
        self.capture.quarantine_over(now, in_use)
    }

    /// Whether there are ids and room now for addresses that had to do without: [`Self::apply`] with nothing gives them theirs.
    pub fn can_place_more(&self) -> bool {
        !self.capture.retry().is_empty()
    }

    /// The state to publish.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.capture.snapshot()
    }

    /// Where calls to a Service port go: one that is to be captured, or one of [`Settings::explicit_ports`]. `None`: there is
    /// no such Service port. Of a dual-stack Service, the primary family's endpoints, if it has any. Ask again after each
    /// batch.
    pub fn backend(&self, port: &ServicePort) -> Option<Arc<Backend>> {
        let service = self.services.get(&port.service)?;
        let known = service.port(port.port)?;
        let row = service.row.as_ref()?;
        let policy = match self.node {
            Some(_) => destinations::internal_policy(row),
            // Who is on no node of the cluster reaches the Service from outside.
            None => TrafficPolicy::Cluster,
        };
        let backends = known.backends.under(policy);
        let (first, second) = if row.cluster_ips.first().is_some_and(|ip| ip.is_ipv6()) {
            (&backends.v6, &backends.v4)
        } else {
            (&backends.v4, &backends.v6)
        };
        Some(first.as_ref().or(second.as_ref()).cloned().unwrap_or_else(|| empty_backend(port)))
    }

    /// The pods of this node that somebody asked to be enrolled and that can't be: their owners have to be told.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.pods.refused()
    }

    /// The pods whose label ([`PodRow::status_label`]) says what became of a wish that
    /// nobody has any more.
    pub fn labelled_in_vain(&self) -> impl Iterator<Item = &Arc<PodRow>> {
        self.pods.labelled_in_vain()
    }

    /// What is wrong with the rows as a whole: addresses that several Services claim, ids that are used up.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// The pods of [`Self::refused`], as problems.
    pub fn refusals(&self) -> Problems {
        self.refusals.clone()
    }

    /// Where clients are.
    pub(super) fn place(&self) -> Place<'_> {
        Place { node: self.node.as_deref(), zone: self.zone.as_deref() }
    }

    /// What the decision on a pod depends on besides it.
    pub(super) fn here(&self) -> Here<'_> {
        Here { node: self.node.as_deref(), own_pod_uid: self.own_pod_uid.as_deref() }
    }

    fn take(&mut self, change: Change, touched: &mut BTreeSet<ObjectName>) {
        match change {
            Change::Set(Row::Namespace(row)) => self.set_namespace(&row.name.clone(), Some(row), touched),
            Change::Remove(RowKey::Namespace(name)) => self.set_namespace(&name, None, touched),
            Change::Set(Row::Node(row)) => self.set_node(&row.name, Some(&row), touched),
            Change::Remove(RowKey::Node(name)) => self.set_node(&name, None, touched),
            Change::Set(Row::Pod(row)) => self.pods.set(row),
            Change::Remove(RowKey::Pod(uid)) => self.pods.remove(&uid),
            Change::Set(Row::Service(row)) => {
                let name = row.name.clone();
                self.services.entry(name.clone()).or_default().row = Some(row);
                touched.insert(name);
            }
            Change::Remove(RowKey::Service(name)) => {
                if let Some(service) = self.services.get_mut(&name) {
                    service.row = None;
                    touched.insert(name);
                }
            }
            Change::Set(Row::Slice(row)) => self.set_slice(row, touched),
            Change::Remove(RowKey::Slice(name)) => {
                if let Some(service) = self.slices.remove(&name) {
                    self.take_slice_from(&name, service, touched);
                }
            }
        }
    }

    fn set_namespace(
        &mut self,
        name: &Arc<str>,
        row: Option<Arc<NamespaceRow>>,
        touched: &mut BTreeSet<ObjectName>,
    ) {
        let before = self.namespaces.get(name);
        let of_services =
            |row: Option<&Arc<NamespaceRow>>| row.map(|row| (row.waypoint.clone(), row.with_mesh));
        if of_services(before) != of_services(row.as_ref()) {
            let first = ObjectName { namespace: name.clone(), name: "".into() };
            let services = self.services.range(first..).map(|(service, _)| service);
            touched.extend(services.take_while(|service| service.namespace == *name).cloned());
        }
        self.pods.touch_namespace(name);
        match row {
            Some(row) => self.namespaces.insert(name.clone(), row),
            None => self.namespaces.remove(name),
        };
    }

    fn set_node(&mut self, name: &Arc<str>, row: Option<&NodeRow>, touched: &mut BTreeSet<ObjectName>) {
        let zone = row.and_then(|row| row.zone.clone());
        if self.node.as_ref() == Some(name) && self.zone != zone {
            self.zone = zone;
            let hinted = self.services.iter().filter(|(_, service)| service.has_zone_hints());
            touched.extend(hinted.map(|(name, _)| name.clone()));
        }
    }

    fn set_slice(&mut self, row: Arc<SliceRow>, touched: &mut BTreeSet<ObjectName>) {
        let service = ObjectName { namespace: row.name.namespace.clone(), name: row.service.clone() };
        if let Some(before) = self.slices.insert(row.name.clone(), row.service.clone())
            && before != row.service
        {
            self.take_slice_from(&row.name, before, touched);
        }
        self.services.entry(service.clone()).or_default().slices.insert(row.name.name.clone(), row);
        touched.insert(service);
    }

    fn take_slice_from(&mut self, slice: &ObjectName, service: Arc<str>, touched: &mut BTreeSet<ObjectName>) {
        let service = ObjectName { namespace: slice.namespace.clone(), name: service };
        if let Some(known) = self.services.get_mut(&service) {
            known.slices.remove(&slice.name);
            touched.insert(service);
        }
    }

    /// Derives a Service's ports anew, and collects the addresses on which something may be decided anew.
    fn rebuild(&mut self, name: &ObjectName, addresses: &mut BTreeSet<SocketAddr>) {
        let surroundings = Surroundings {
            namespace: self.namespaces.get(&name.namespace).map(Arc::as_ref),
            place: Place { node: self.node.as_deref(), zone: self.zone.as_deref() },
        };
        let Some(service) = self.services.get_mut(name) else { return };
        let old = service
            .rebuild(surroundings, |port| self.explicit_ports.contains(port) || self.capture.carries(port));
        for port in &old {
            let still = service.port(port.key.port);
            for Frontend { address, right, .. } in &port.frontends {
                let kept = still.and_then(|still| still.frontend(*address));
                if kept.is_none_or(|kept| kept.right != *right) {
                    self.claims.remove(*address, &Claim { right: *right, port: port.key.clone() });
                }
                addresses.insert(*address);
            }
        }
        for port in &service.ports {
            for Frontend { address, right, .. } in &port.frontends {
                self.claims.add(*address, &Claim { right: *right, port: port.key.clone() });
                addresses.insert(*address);
            }
        }
        let keys: BTreeSet<&ServicePort> = old.iter().chain(&service.ports).map(|port| &port.key).collect();
        for key in keys {
            let port = service.port(key.port);
            self.capture.refresh(key, |address| port.and_then(|port| port.backend_for(address)));
        }
        if service.is_unknown() {
            self.services.remove(name);
        }
    }

    fn find_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (address, owner, others) in self.claims.contested() {
            let asked_for = |port: &ServicePort| {
                let port_known = self.services.get(&port.service).and_then(|service| service.port(port.port));
                port_known.is_some_and(|known| known.wanted.is_ok())
            };
            if problems.len() < MAX_CONTESTED_TOLD && (asked_for(owner) || others.clone().any(asked_for)) {
                let others: Vec<String> = others.map(ToString::to_string).collect();
                problems.push(Problem::warning(
                    Some(format!("Service {}", owner.service)),
                    format!(
                        "address {address} is also that of {}: {owner} comes first and has it; give each Service \
                         its own address",
                        others.join(", ")
                    ),
                ));
            }
        }
        let unplaced = self.capture.unplaced();
        if let Some(first) = unplaced.first() {
            problems.push(Problem::warning(
                None,
                format!(
                    "{} addresses, {first} first, are not captured: {}; raise --max-destinations",
                    unplaced.len(),
                    self.capture.shortage()
                ),
            ));
        }
        problems
    }
}

/// What is to become of connections to an address.
fn wanted<'a>(
    claims: &Claims,
    services: &'a BTreeMap<ObjectName, Service>,
    address: SocketAddr,
) -> Wanted<'a> {
    let port = claims.owner(address).and_then(|owner| services.get(&owner.service)?.port(owner.port));
    let Some(port) = port.filter(|port| port.wants(address).is_ok()) else { return Wanted::Straight };
    port.backend_for(address).map_or(Wanted::WithoutEndpoint(&port.key), Wanted::Captured)
}

#[cfg(test)]
#[path = "world_tests/mod.rs"]
mod tests;
