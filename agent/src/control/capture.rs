//! The captured addresses: which id each has, and where the ids lead, also those that only old connections carry.

use super::delta::Delta;
use super::ids::Ids;
use super::services::empty_backend;
use crate::mesh::{Backend, Destination, DestinationId, ServicePort, Snapshot};
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// The captured addresses, and the snapshot that says where their ids lead.
#[derive(Debug)]
pub(super) struct Capture {
    ids: Ids,
    /// The addresses that are in the kernel's map, or on the way there.
    captured: HashMap<SocketAddr, DestinationId>,
    /// All ids in the snapshot that lead to a Service port, live ones and resting ones.
    carriers: HashMap<ServicePort, Vec<DestinationId>>,
    /// What a process before this one left in the kernel's map, until the first batch says what is wanted.
    restored: HashMap<SocketAddr, DestinationId>,
    /// Addresses that are wanted, but for which there was no id.
    unplaced: BTreeSet<SocketAddr>,
    /// The next snapshot, in work.
    next: Snapshot,
    changed: bool,
    published: Arc<Snapshot>,
}

impl Capture {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            ids: Ids::new(capacity),
            captured: HashMap::new(),
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
        live: impl IntoIterator<Item = (SocketAddr, DestinationId)>,
        named: impl IntoIterator<Item = DestinationId>,
        now: Instant,
    ) {
        self.restored = live.into_iter().collect();
        self.ids.restore(self.restored.values().copied(), named, now);
    }

    /// Makes an address captured with this backend, or not captured.
    pub(super) fn settle(&mut self, address: SocketAddr, wanted: Option<&Arc<Backend>>, delta: &mut Delta) {
        self.unplaced.remove(&address);
        let current = self.captured.get(&address).copied();
        if let (Some(id), Some(backend)) = (current, wanted) {
            let destination = self.next.destinations.get(&id);
            if destination.is_some_and(|known| known.backend.service_port == backend.service_port) {
                return;
            }
        }
        if let Some(id) = current {
            self.captured.remove(&address);
            self.ids.retire(id);
            delta.retired.push(id);
        }
        let placed = wanted.is_some_and(|backend| self.place(address, backend, delta));
        if current.is_some() && !placed {
            delta.remove.push(address);
        }
    }

    fn place(&mut self, address: SocketAddr, backend: &Arc<Backend>, delta: &mut Delta) -> bool {
        let port = &backend.service_port;
        let id = if let Some(id) = self.restored.remove(&address) {
            id
        } else {
            // Connections that carry an old id of the same address and Service port are right where they were.
            let old = self.carriers.get(port).into_iter().flatten().copied().find(|id| {
                self.next.destinations.get(id).is_some_and(|known| known.original == address)
                    && self.ids.revive(*id)
            });
            let Some(id) = old.or_else(|| self.ids.allocate().ok()) else {
                self.unplaced.insert(address);
                return false;
            };
            delta.add.push((address, id));
            id
        };
        let carriers = self.carriers.entry(port.clone()).or_default();
        if !carriers.contains(&id) {
            carriers.push(id);
        }
        self.captured.insert(address, id);
        self.next.destinations.insert(id, Destination { original: address, backend: backend.clone() });
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
        self.unplaced.iter().take(self.ids.available()).copied().collect()
    }

    /// What a process before this one left in the kernel's map and the first batch did not ask for goes.
    pub(super) fn end_restore(&mut self, delta: &mut Delta) {
        for (address, id) in self.restored.drain() {
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
        self.captured.contains_key(&address)
    }

    pub(super) fn unplaced(&self) -> &BTreeSet<SocketAddr> {
        &self.unplaced
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }
}
