//! The world as its executor sees it: batches in, deltas out, carried out against a kernel's map that is kept here.

use super::*;
use crate::control::ids::QUARANTINE;
use crate::control::view::PortView;
use crate::sources::rows::ServiceRow;
use crate::sources::sample;

mod pods;
mod policies;
mod random;
mod scale;
mod services;
mod show;

const NODE: &str = "node-1";

/// A world with what stands around it, each delta carried out as [`Delta`] says.
struct Setup {
    world: World,
    /// The ids of the captured addresses.
    kernel: BTreeMap<SocketAddr, DestinationId>,
    /// The ids of those that are marked as without an endpoint.
    marked: BTreeMap<SocketAddr, DestinationId>,
    now: Instant,
    /// How many addresses the kernel's map has room for.
    limit: usize,
}

impl Setup {
    fn new() -> Self {
        Self::with_capacity(1_000)
    }

    fn with_capacity(ids: u32) -> Self {
        Self::with_room(ids, ids)
    }

    /// A kernel with room for so many addresses, and so many ids.
    fn with_room(addresses: u32, ids: u32) -> Self {
        let explicit_ports = vec![port_of("web", 80)];
        let node = Some(NODE.into());
        let world =
            World::new(Settings { node, own_pod_uid: Some("own".into()), addresses, ids, explicit_ports });
        let limit = addresses as usize;
        Self { world, kernel: BTreeMap::new(), marked: BTreeMap::new(), now: Instant::now(), limit }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Delta {
        let delta = self.world.apply(changes);
        let snapshot = self.world.snapshot();
        if let Some(published) = &delta.snapshot {
            assert!(Arc::ptr_eq(published, &snapshot));
        }
        let written = || delta.add.iter().chain(&delta.without_endpoint);
        for (address, id) in written() {
            assert_eq!(snapshot.destinations[id].original, *address, "a worker would not know {id:?}");
            let others = written().filter(|(other, _)| other == address).count();
            assert!(others == 1 && !delta.remove.contains(address), "{address} is asked for twice");
        }
        for (address, id) in &delta.add {
            self.marked.remove(address);
            self.kernel.insert(*address, *id);
        }
        for (address, id) in &delta.without_endpoint {
            self.kernel.remove(address);
            self.marked.insert(*address, *id);
        }
        for address in &delta.remove {
            self.kernel.remove(address);
            self.marked.remove(address);
        }
        let entries = self.kernel.len() + self.marked.len();
        assert!(entries <= self.limit, "{entries} addresses, and room for {}", self.limit);
        for id in &delta.retired {
            let live = self.kernel.values().chain(self.marked.values()).any(|live| live == id);
            assert!(!live, "{id:?} is still in the kernel's map");
        }
        for id in self.kernel.values() {
            assert!(!snapshot.destinations[id].backend.endpoints.is_empty(), "{id:?} leads nowhere");
        }
        self.world.removed_from_kernel(&delta.retired, self.now);
        delta
    }

    /// What a process before left in the kernel.
    fn restore(&mut self, live: Vec<Live>, named: Vec<DestinationId>) {
        let (taken, marked): (Vec<_>, Vec<_>) = live.iter().partition(|live| live.has_endpoint);
        let entries = |live: Vec<Live>| live.into_iter().map(|live| (live.address, live.id)).collect();
        (self.kernel, self.marked) = (entries(taken), entries(marked));
        self.world.restore(live, named, self.now);
    }

    /// Lets the quarantine of all ids end, and says which those were.
    fn rest(&mut self) -> Vec<DestinationId> {
        self.now += QUARANTINE;
        let over = self.world.quarantine_over(self.now, |_| 0);
        assert_eq!(self.world.quarantine_over(self.now, |_| 0), []);
        over
    }

    fn id(&self, address: &str) -> DestinationId {
        self.kernel[&addr(address)]
    }

    /// Where a connection with this id goes: the Service port and its endpoints.
    fn leads_to(&self, id: DestinationId) -> (String, Vec<String>) {
        let backend = &self.world.snapshot().destinations[&id].backend;
        let endpoints = backend.endpoints.iter().map(|endpoint| endpoint.address.to_string());
        (backend.service_port.to_string(), endpoints.collect())
    }

    fn captured(&self) -> Vec<String> {
        self.kernel.keys().map(SocketAddr::to_string).collect()
    }

    /// What is said of connections to a port of a Service that go straight.
    fn straight(&self, service: &str, port: u16) -> Vec<String> {
        self.port_view(service, port).straight
    }

    /// The endpoints of a port that are not used, each with the reason.
    fn unused(&self, service: &str, port: u16) -> Vec<(String, String)> {
        let unused = self.port_view(service, port).unused;
        unused.into_iter().map(|unused| (unused.address.ip().to_string(), unused.reason)).collect()
    }

    fn port_view(&self, service: &str, port: u16) -> PortView {
        let services = self.world.services();
        let service = services.into_iter().find(|view| view.name == service).unwrap();
        service.ports.into_iter().find(|view| view.port == port).unwrap()
    }

    fn told(&self) -> Vec<String> {
        self.world.problems().current().iter().map(Problem::to_string).collect()
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn port_of(service: &str, port: u16) -> ServicePort {
    ServicePort { service: ObjectName::new("shop", service), port }
}

fn service(name: &str, ips: &[&str], ports: &[(&str, u16)]) -> ServiceRow {
    ServiceRow {
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: ports.iter().map(|(name, port)| sample::service_port(name, *port)).collect(),
        ..sample::service(name)
    }
}

fn set(row: ServiceRow) -> Change {
    Change::Set(Row::Service(Arc::new(row)))
}

fn remove(name: &str) -> Change {
    Change::Remove(RowKey::Service(ObjectName::new("shop", name)))
}

fn set_slice(row: SliceRow) -> Change {
    Change::Set(Row::Slice(Arc::new(row)))
}

fn slice(name: &str, service: &str, ports: &[(&str, u16)], ready: &[&str]) -> Change {
    set_slice(sample::slice(name, service, ports, ready.iter().map(|ip| sample::endpoint(ip))))
}

const GRPC: [(&str, u16); 1] = [("grpc", 9000)];

fn cart(ready: &[&str]) -> Vec<Change> {
    vec![set(service("cart", &["10.96.0.1"], &[("grpc", 80)])), slice("cart-1", "cart", &GRPC, ready)]
}
