//! Any bytes at all from a client: what begins as HTTP/2 never reaches a server as it came, and everything else reaches the
//! address that was dialled byte for byte, and comes back so.
#![no_main]

use evenkeel_fuzz::http2::{Limits, PREFACE};
use evenkeel_fuzz::mesh::{
    Backend, Destination, DestinationId, Endpoint, ObjectName, Picker, Pod, PodKey, ServicePort, Snapshot,
    Workload,
};
use evenkeel_fuzz::pieces::pieces;
use evenkeel_fuzz::proxy::{Action, ConnId, Engine, Origin};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

/// Longer than a client may be silent before it counts as one that waits for the server to speak.
const SILENCE_NS: u64 = 2_000_000_000;
/// For what the engine keeps of an earlier read.
const ROOM: usize = 32 << 10;

/// Whose connection it is. Nothing is opened in its network namespace.
static POD: LazyLock<Arc<Pod>> = LazyLock::new(|| {
    let netns = std::fs::File::open("/proc/self/ns/net").expect("a process has a network namespace");
    Arc::new(Pod {
        key: PodKey { uid: "u-1".into(), netns_cookie: 1 },
        name: ObjectName::new("shop", "client"),
        workload: Arc::new(Workload::named("shop", "client", "Deployment")),
        netns: netns.into(),
    })
});

fn snapshot(id: DestinationId, original: SocketAddr) -> Arc<Snapshot> {
    let endpoint = Endpoint::at(([10, 0, 0, 1], 8080).into());
    let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
    let backend = Backend::new(service_port, [Arc::new(endpoint)].into(), Picker::RoundRobin);
    let mut snapshot = Snapshot { version: 1, ..Snapshot::default() };
    snapshot.destinations.insert(id, Destination { original, backend: Arc::new(backend) });
    Arc::new(snapshot)
}

struct World {
    engine: Engine,
    original: SocketAddr,
    client: ConnId,
    client_is_open: bool,
    /// The tunnel's other end, which sends back what it gets.
    server: Option<ConnId>,
    at_server: Vec<u8>,
    back_at_client: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let id = DestinationId::new(7).expect("in the space");
        let original = ([10, 96, 0, 1], 50051).into();
        let mut engine = Engine::new(Limits::default(), 1, 1);
        engine.publish(snapshot(id, original));
        let client = engine.accepted(Origin::Pod(Arc::clone(&POD)), id).expect("the destination is known");
        let (at_server, back_at_client) = (Vec::new(), Vec::new());
        Self { engine, original, client, client_is_open: true, server: None, at_server, back_at_client }
    }

    fn deliver(&mut self, conn: ConnId, bytes: &[u8]) {
        let mut buffer = vec![0; ROOM + bytes.len()];
        let held = self.engine.restore(conn, &mut buffer);
        buffer[held..held + bytes.len()].copy_from_slice(bytes);
        self.engine.receive(conn, &buffer[..held + bytes.len()]);
        self.settle();
    }

    /// Does what the engine asks for, and carries what it has to say, until there is nothing more.
    fn settle(&mut self) {
        loop {
            let (mut flush, mut actions) = (Vec::new(), Vec::new());
            self.engine.settle(&mut flush);
            self.engine.take_actions(&mut actions);
            let is_quiet = actions.is_empty();
            for action in actions {
                match action {
                    Action::Connect { conn, address, .. } if address == self.original => {
                        self.server = Some(conn);
                        self.engine.connected(conn);
                    }
                    Action::Connect { conn, .. } => self.engine.connect_failed(conn),
                    Action::Close { conn, .. } => {
                        self.client_is_open &= conn != self.client;
                        self.engine.closed(conn);
                    }
                    Action::ShutdownWrite { .. } | Action::Resume { .. } => {}
                }
            }
            if !self.carry() && is_quiet {
                return;
            }
        }
    }

    fn carry(&mut self) -> bool {
        let mut carried = false;
        if let Some(server) = self.server {
            let bytes = self.engine.output(server).to_vec();
            if !bytes.is_empty() {
                self.engine.sent(server, bytes.len());
                self.at_server.extend(&bytes);
                self.engine.receive(server, &bytes);
                carried = true;
            }
        }
        if self.client_is_open {
            let bytes = self.engine.output(self.client).to_vec();
            if !bytes.is_empty() {
                self.engine.sent(self.client, bytes.len());
                self.back_at_client.extend(&bytes);
                carried = true;
            }
        }
        carried
    }
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let mut world = World::new();
    for piece in pieces(bytes, *cut) {
        if !world.client_is_open {
            break;
        }
        world.deliver(world.client, piece);
    }
    world.engine.set_time(SILENCE_NS);
    world.engine.expire();
    world.settle();
    if bytes.starts_with(PREFACE) {
        assert!(world.at_server.is_empty(), "HTTP/2 was relayed as it came");
    } else {
        assert!(world.client_is_open, "a connection that is to be relayed was closed");
        assert_eq!(world.at_server, bytes, "not what the client sent");
        assert_eq!(world.back_at_client, bytes, "not what the server sent");
    }
});
