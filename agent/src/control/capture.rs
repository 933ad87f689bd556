//! The captured addresses: which id each has, and where the ids lead, also those that only old connections carry.

use super::delta::Delta;
use super::ids::Ids;
use super::services::empty_backend;
use super::world::Live;
use crate::mesh::{Backend, Destination, DestinationId, ServicePort, Snapshot};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What is to become of connections to an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// They go straight, as if the agent knew nothing of the address.
    Straight,
    /// They go straight, counted as those to a Service port that is to be captured, but has nobody to serve a call.
    WithoutEndpoint(&'a ServicePort),
    /// They are captured, and their calls go here.
    Captured(&'a Arc<Backend>),
}

impl Wanted<'_> {
    fn service_port(&self) -> Option<&ServicePort> {
        match self {
            Wanted::Straight => None,
            Wanted::WithoutEndpoint(port) => Some(port),
            Wanted::Captured(backend) => Some(&backend.service_port),
        }
    }

    fn has_endpoint(&self) -> bool {
        matches!(self, Wanted::Captured(_))
    }
}

/// What the kernel knows of an address.
#[derive(Debug, Clone, Copy)]
struct Known {
    id: DestinationId,
    has_endpoint: bool,
}

/// The captured addresses, and the snapshot that says where their ids lead.
#[derive(Debug)]
pub(super) struct Capture {
    ids: Ids,
    /// How many addresses the kernel's map has room for.
    limit: usize,
    /// The addresses that are in the kernel's map, or on the way there.
    known: HashMap<SocketAddr, Known>,
    /// All ids in the snapshot that lead to a Service port, live ones and resting ones.
    carriers: HashMap<ServicePort, Vec<DestinationId>>,
    /// What a process before this one left in the kernel's map, until the first batch says what is wanted.
    restored: HashMap<SocketAddr, Known>,
    /// Addresses that are wanted, but for which there was no room or no id.
    unplaced: BTreeSet<SocketAddr>,
    /// The next snapshot, in work.
    next: Snapshot,
    changed: bool,
    published: Arc<Snapshot>,
}

impl Capture {
    pub(super) fn new(addresses: u32, ids: u32) -> Self {
        Self {
            ids: Ids::new(ids),
            limit: usize::try_from(addresses).unwrap_or(usize::MAX),
            known: HashMap::new(),
            carriers: HashMap::new(),
            restored: HashMap::new(),
            unplaced: BTreeSet::new(),
            next: Snapshot::default(),
            changed: false,
            published: Arc::default(),
        }
    }

    pub(super) fn restore(
        &mut self,
        live: impl IntoIterator<Item = Live>,
        named: impl IntoIterator<Item = DestinationId>,
        now: Instant,
    ) {
        let known =
            live.into_iter().map(|Live { address, id, has_endpoint }| (address, Known { id, has_endpoint }));
        self.restored = known.collect();
        self.ids.restore(self.restored.values().map(|known| known.id), named, now);
    }

    /// Makes of an address what is wanted. Its id is the same for as long as its Service port is: also while that has no
    /// endpoint, as a connection that carries it is right where it is.
    pub(super) fn settle(&mut self, address: SocketAddr, wanted: Wanted<'_>, delta: &mut Delta) {
        self.unplaced.remove(&address);
        let current = self.known.get(&address).copied();
        if let (Some(current), Some(port)) = (current, wanted.service_port()) {
            let destination = self.next.destinations.get(&current.id);
            if destination.is_some_and(|known| known.backend.service_port == *port) {
                self.tell(address, current, wanted.has_endpoint(), delta);
                return;
            }
        }
        if let Some(Known { id, .. }) = current {
            self.known.remove(&address);
            self.ids.retire(id);
            delta.retired.push(id);
        }
        let placed = wanted.service_port().is_some_and(|port| self.place(address, port, wanted, delta));
        if current.is_some() && !placed {
            delta.remove.push(address);
        }
    }

    /// Has the kernel know whether an address has an endpoint.
    fn tell(&mut self, address: SocketAddr, before: Known, has_endpoint: bool, delta: &mut Delta) {
        if before.has_endpoint != has_endpoint {
            let list = if has_endpoint { &mut delta.add } else { &mut delta.without_endpoint };
            list.push((address, before.id));
        }
        self.known.insert(address, Known { has_endpoint, ..before });
    }

    fn place(
        &mut self,
        address: SocketAddr,
        port: &ServicePort,
        wanted: Wanted<'_>,
        delta: &mut Delta,
    ) -> bool {
        let has_endpoint = wanted.has_endpoint();
        let known = if let Some(known) = self.restored.remove(&address) {
            known
        } else {
            if self.room() == 0 {
                if has_endpoint {
                    self.unplaced.insert(address);
                }
                return false;
            }
            // Connections that carry an old id of the same address and Service port are right where they were.
            let old = self.carriers.get(port).into_iter().flatten().copied().find(|id| {
                self.next.destinations.get(id).is_some_and(|known| known.original == address)
                    && self.ids.revive(*id)
            });
            let Some(id) = old.or_else(|| self.ids.allocate()) else {
                // Connections to an address without an endpoint go straight with or without an id.
                if has_endpoint {
                    self.unplaced.insert(address);
                }
                return false;
            };
            // Another than what is wanted, for it to be told.
            Known { id, has_endpoint: !has_endpoint }
        };
        self.tell(address, known, has_endpoint, delta);
        let carriers = self.carriers.entry(port.clone()).or_default();
        if !carriers.contains(&known.id) {
            carriers.push(known.id);
        }
        let backend = match wanted {
            Wanted::Captured(backend) => backend.clone(),
            Wanted::WithoutEndpoint(_) | Wanted::Straight => empty_backend(port),
        };
        self.next.destinations.insert(known.id, Destination { original: address, backend });
        self.changed = true;
        true
    }

    /// Whether any id leads to the Service port.
    pub(super) fn carries(&self, port: &ServicePort) -> bool {
        self.carriers.contains_key(port)
    }

    /// Leads all ids of a Service port to its backends of now: also those that are captured no more, whose connections go
    /// on.
    pub(super) fn refresh<'a>(
        &mut self,
        port: &ServicePort,
        backend_for: impl Fn(SocketAddr) -> Option<&'a Arc<Backend>>,
    ) {
        for id in self.carriers.get(port).into_iter().flatten() {
            let Some(known) = self.next.destinations.get(id) else { continue };
            let backend = match backend_for(known.original) {
                Some(backend) if Arc::ptr_eq(backend, &known.backend) => continue,
                Some(backend) => backend.clone(),
                None if known.backend.endpoints.is_empty() => continue,
                None => empty_backend(port),
            };
            let destination = Destination { original: known.original, backend };
            self.next.destinations.insert(*id, destination);
            self.changed = true;
        }
    }

    /// Addresses that there may be an id for now.
    pub(super) fn retry(&self) -> Vec<SocketAddr> {
        self.unplaced.iter().take(self.ids.available().min(self.room())).copied().collect()
    }

    /// How many more addresses the kernel's map has room for: what is removed from it is so in the same delta.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.known.len() + self.restored.len())
    }

    /// Why there is no room for an address, for people.
    pub(super) fn shortage(&self) -> String {
        match self.room() {
            0 => format!("the kernel's map is full, with {} destinations", self.limit),
            _ => format!("all {} ids of destinations are in use or resting", self.ids.capacity()),
        }
    }

    /// What a process before this one left in the kernel's map and the first batch did not ask for goes.
    pub(super) fn end_restore(&mut self, delta: &mut Delta) {
        for (address, Known { id, .. }) in self.restored.drain() {
            self.ids.retire(id);
            delta.remove.push(address);
            delta.retired.push(id);
        }
    }

    pub(super) fn removed_from_kernel(&mut self, ids: &[DestinationId], now: Instant) {
        for id in ids {
            self.ids.removed_from_kernel(*id, now);
        }
    }

    pub(super) fn quarantine_over(
        &mut self,
        now: Instant,
        in_use: impl Fn(DestinationId) -> u64,
    ) -> Vec<DestinationId> {
        let over = self.ids.advance(now, in_use);
        for id in &over {
            let Some(destination) = self.next.destinations.remove(id) else { continue };
            self.changed = true;
            let port = &destination.backend.service_port;
            if let Some(carriers) = self.carriers.get_mut(port) {
                carriers.retain(|carrier| carrier != id);
                if carriers.is_empty() {
                    self.carriers.remove(port);
                }
            }
        }
        self.publish();
        over
    }

    /// The next snapshot, if anything has changed since the last.
    pub(super) fn publish(&mut self) -> Option<Arc<Snapshot>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.next.version += 1;
        self.published = Arc::new(self.next.clone());
        Some(self.published.clone())
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.published.clone()
    }

    pub(super) fn is_captured(&self, address: SocketAddr) -> bool {
        self.in_kernel(address) == Some(true)
    }

    /// Whether the kernel's map says that the address has an endpoint; `None`: it does not have it.
    pub(super) fn in_kernel(&self, address: SocketAddr) -> Option<bool> {
        self.known.get(&address).map(|known| known.has_endpoint)
    }

    pub(super) fn unplaced(&self) -> &BTreeSet<SocketAddr> {
        &self.unplaced
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }
}
