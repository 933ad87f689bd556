//! The addresses whose connections are taken, and those that such connections may have in the kernel's eyes.

use crate::mesh::Snapshot;
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// The captured addresses.
#[derive(Debug, Default)]
pub(super) struct Captured {
    addresses: Arc<HashSet<SocketAddr>>,
    /// Where their calls go.
    snapshot: Arc<Snapshot>,
    /// Whether a socket load balancer, as Cilium's, is attached where it sees what the agent leaves alone.
    load_balancer: bool,
    /// [`Self::peers`] with endpoints, once somebody has asked.
    with_endpoints: RefCell<Option<Arc<HashSet<SocketAddr>>>>,
}

impl Captured {
    /// Those that a process before this one left in the kernel's map.
    pub(super) fn restored(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { addresses: Arc::new(addresses.into_iter().collect()), ..Self::default() }
    }

    /// An address is captured from now on.
    pub(super) fn insert(&mut self, address: SocketAddr) {
        Arc::make_mut(&mut self.addresses).insert(address);
        self.with_endpoints.take();
    }

    /// An address is captured no more.
    pub(super) fn remove(&mut self, address: &SocketAddr) {
        Arc::make_mut(&mut self.addresses).remove(address);
        self.with_endpoints.take();
    }

    /// Where calls go is another now.
    pub(super) fn set_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.with_endpoints.take();
    }

    /// Says whether there is a socket load balancer.
    pub(super) fn set_load_balancer(&mut self, load_balancer: bool) {
        self.load_balancer = load_balancer;
    }

    /// The peers, in the kernel's eyes, of connections that would be taken if they were opened now: the captured addresses; with a
    /// socket load balancer, which puts an endpoint's address in their place, the endpoints too. (Without one, a connection to an
    /// endpoint was dialled by its own address, and would not be taken.)
    pub(super) fn peers(&self) -> Arc<HashSet<SocketAddr>> {
        if !self.load_balancer {
            return self.addresses.clone();
        }
        let mut known = self.with_endpoints.borrow_mut();
        known.get_or_insert_with(|| Arc::new(self.addresses_and_endpoints())).clone()
    }

    fn addresses_and_endpoints(&self) -> HashSet<SocketAddr> {
        let captured = self.snapshot.destinations.values();
        let captured = captured.filter(|destination| self.addresses.contains(&destination.original));
        let endpoints = captured.flat_map(|destination| destination.backend.endpoints.iter());
        self.addresses.iter().copied().chain(endpoints.map(|endpoint| endpoint.address)).collect()
    }
}
