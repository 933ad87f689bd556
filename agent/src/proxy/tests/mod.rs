//! The data path over real sockets on the loopback: clients and servers on the `h2` crate, and plain TCP.

mod bodies;
mod calls;
mod cancels;
mod circuits;
mod crowd;
mod ends;
mod fairness;
mod faults;
mod handover;
mod hang;
mod look;
mod peers;
mod probes;
mod protection;
mod retries;
mod rules;
mod traces;
mod tunnels;
mod turns;
mod verdicts;

use super::{ListenerId, ListenerSpec, OwnNamespace, Source, Workers, WorkersConfig};
use crate::http2::Limits;
use crate::mesh::Protection;
use crate::mesh::{
    Backend, Destination, DestinationId, Endpoint, ObjectName, Picker, Pod, PodKey, ServicePort, Snapshot,
    Workload,
};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// No test is judged by the time it takes; one that hangs ends here.
const PATIENCE: Duration = Duration::from_secs(60);

fn fixed() -> DestinationId {
    DestinationId::new(7).expect("in the space")
}

/// Workers with one listener, all of whose calls go to a Service of the test's own.
struct Path {
    workers: Workers,
    address: SocketAddr,
    listener: ListenerId,
    state: Mutex<Snapshot>,
}

impl Path {
    fn start(endpoints: &[SocketAddr]) -> Self {
        Self::with_source(endpoints, 1, Source::Fixed(fixed()), "127.0.0.1")
    }

    fn with_source(endpoints: &[SocketAddr], threads: usize, source: Source, listen: &str) -> Self {
        let ticks: Vec<&'static AtomicU64> =
            (0..threads).map(|_| &*Box::leak(Box::new(AtomicU64::new(0)))).collect();
        let workers = Workers::start(&config(), &ticks).unwrap();
        let socket = TcpListener::bind((listen, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = workers.listen(ListenerSpec { socket, source }).unwrap();
        let path = Self { workers, address, listener, state: Mutex::default() };
        path.publish(endpoints, Picker::RoundRobin, address);
        path
    }

    fn publish(&self, endpoints: &[SocketAddr], picker: Picker, original: SocketAddr) {
        let snapshot = {
            let mut state = self.state.lock().unwrap();
            *state = Snapshot::clone(&snapshot(state.version + 1, endpoints, picker, original));
            Arc::new(state.clone())
        };
        self.workers.publish(&snapshot);
        assert!(self.workers.wait_applied(snapshot.version, PATIENCE));
    }

    /// Waits until nothing is left of all calls and connections of clients.
    async fn quiesce(&self) {
        eventually("no client is connected", || self.workers.connections(fixed()) == 0).await;
        eventually("no call is left", || {
            let counters = self.workers.counters();
            let ended = counters.answered + counters.own_errors + counters.cancelled;
            counters.calls_open == 0 && counters.calls == ended
        })
        .await;
        let state = self.state.lock().unwrap();
        for endpoint in state.destinations[&fixed()].backend.endpoints.iter() {
            assert_eq!(endpoint.load.active(), 0, "calls count as active on {}", endpoint.address);
        }
    }
}

fn config() -> WorkersConfig {
    WorkersConfig {
        limits: Limits::default(),
        protection: Protection::default(),
        max_pod_connections: 100,
        dialer: Arc::new(OwnNamespace),
        give_memory_back: || (),
        share_upstreams: false,
        telemetry: None,
        audience: Arc::default(),
        tracer: None,
        seed: 1,
    }
}

/// A world of the one Service.
fn snapshot(version: u64, endpoints: &[SocketAddr], picker: Picker, original: SocketAddr) -> Arc<Snapshot> {
    let mut endpoints: Vec<_> = endpoints.iter().map(|address| Arc::new(Endpoint::at(*address))).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
    let backend = Arc::new(Backend::new(service_port, endpoints.into(), picker));
    let mut snapshot = Snapshot { version, ..Snapshot::default() };
    snapshot.destinations.insert(fixed(), Destination { original, backend });
    Arc::new(snapshot)
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Runs a test on a runtime of its own, and ends it if it hangs.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// An address that refuses connections for as long as the socket is held: it is bound, so that no other test is given the port, and does
/// not listen.
fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn pod() -> Arc<Pod> {
    pod_named("client", 1)
}

fn pod_named(name: &str, cookie: u64) -> Arc<Pod> {
    Arc::new(Pod {
        key: PodKey { uid: format!("u-{cookie}").into(), netns_cookie: cookie },
        name: ObjectName::new("shop", name),
        workload: Arc::new(Workload::named("shop", "client", "Deployment")),
        netns: std::fs::File::open("/proc/self/ns/net").unwrap().into(),
    })
}
