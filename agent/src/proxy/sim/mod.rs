//! A simulator: the engine between virtual clients and servers, over a network that cuts, delays and breaks as a seed says.
//!
//! `story` says what each call is to do and what its client may see, `network` carries the bytes, `client` and `server` act
//! the stories out on the project's own HTTP/2 layer, `raw` is what speaks something else, `flood` what speaks too much, `faults` says what goes wrong,
//! `counts` and `traces` compare what was counted and traced with what they saw, and this file is the world with its clock and its dice. `pods` has several pods' calls
//! without dice, for what they learn of servers, `farther` and `sessions` where their calls go then, and `many_nodes` has the agents of a cluster. Every
//! failure replays: `SEED=1234 cargo test -p evenkeel --lib proxy::sim`; `SEEDS=10000` lives through more worlds.

mod client;
mod counts;
mod farther;
mod faults;
mod flood;
mod many_nodes;
mod network;
mod pods;
mod raw;
mod server;
mod sessions;
mod story;
mod traces;

use self::client::SimClient;
use self::faults::Faults;
use self::flood::Flood;
use self::network::Link;
use self::raw::RawClient;
use self::server::Server;
use self::story::{Story, Tally};
use super::shared_use::Ledger;
use super::{Action, ConnId, Engine, Origin};
use crate::balance::Random;
use crate::mesh::{
    Backend, Balancing, Destination, DestinationId, Endpoint, HashOn, ObjectName, Picker, ServicePort,
    Snapshot,
};
use crate::telemetry::{Inlet, Span, Telemetry};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const MS: u64 = 1_000_000;
/// What a connection may hold beyond its source's budget: it is there, a frame's beginning has come, the answers to its calls that are
/// refused wait for it, and what it was sent before.
const EXCUSED_BYTES: u64 = 48 << 10;
/// What comes in a step, as a header list and as its encoded form.
const STEP_BYTES: u64 = 140_000;
/// Steps after which a world that has not come to its end never will.
const MOST_STEPS: usize = 400_000;

struct World {
    engine: Engine,
    telemetry: Arc<Telemetry>,
    /// The agent takes part in traces.
    is_traced: bool,
    spans: Inlet<Span>,
    random: Random,
    now_ns: u64,
    faults: Faults,
    links: BTreeMap<ConnId, Link>,
    clients: BTreeMap<ConnId, SimClient>,
    raw_clients: BTreeMap<ConnId, RawClient>,
    floods: BTreeMap<ConnId, Flood>,
    servers: BTreeMap<ConnId, Server>,
    /// Peers that do nothing, and whether they never will again.
    stalled: BTreeMap<ConnId, bool>,
    /// Servers that have said GOAWAY.
    left: BTreeSet<ConnId>,
    /// The agent has begun to drain.
    drains: bool,
    endpoints: Vec<Arc<Endpoint>>,
    down: Vec<bool>,
    version: u64,
    stories: Vec<Story>,
    tally: Vec<Tally>,
    buffer: Vec<u8>,
}

fn destination() -> DestinationId {
    DestinationId::new(7).expect("in the space")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let telemetry = Arc::new(Telemetry::new(true));
        let faults = Faults::random(&mut random);
        let limits = faults::limits(&mut random);
        let protection = faults::protection(faults, &mut random);
        let endpoints: Vec<_> = (1..=1 + random.below(4))
            .map(|host| {
                let address = SocketAddr::from(([10, 0, 0, host as u8], 50051));
                Arc::new(Endpoint::at(address))
            })
            .collect();
        // Without dice: the same stories with traces and without.
        let is_traced = seed.is_multiple_of(2);
        let stories: Vec<_> = (0..1 + random.below(60))
            .map(|_| Story { is_traced, ..Story::random(&mut random, faults.retries) })
            .collect();
        let (tracer, spans) = traces::tracer();
        let mut world = Self {
            engine: Engine::new(limits, seed, MS)
                .counting(Some(Arc::clone(&telemetry)))
                .tracing(is_traced.then_some(tracer))
                .protected(protection, Ledger::default()),
            telemetry,
            is_traced,
            spans,
            now_ns: MS,
            faults,
            links: BTreeMap::new(),
            clients: BTreeMap::new(),
            raw_clients: BTreeMap::new(),
            floods: BTreeMap::new(),
            servers: BTreeMap::new(),
            stalled: BTreeMap::new(),
            left: BTreeSet::new(),
            drains: false,
            down: endpoints.iter().map(|_| faults.servers_break && random.below(4) == 0).collect(),
            endpoints,
            version: 0,
            tally: vec![Tally::default(); stories.len()],
            stories,
            buffer: vec![0; 100_000],
            random,
        };
        world.publish(Some(&world.endpoints.clone()));
        world
    }

    /// The Service has these endpoints; `None`: there is no such Service.
    fn publish(&mut self, endpoints: Option<&[Arc<Endpoint>]>) {
        self.version += 1;
        let (_, picker) = Picker::NAMED[self.random.below(Picker::NAMED.len())];
        let hash_on =
            if self.random.below(2) == 0 { HashOn::Source } else { HashOn::Header("x-user".into()) };
        let original = SocketAddr::from(([10, 96, 0, 1], 50051));
        let mut snapshot = Snapshot { version: self.version, ..Snapshot::default() };
        if let Some(endpoints) = endpoints {
            let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
            let retry = self.faults.retries.then(story::retry_policy);
            let balancing = Balancing { picker, hash_on, retry, ..Balancing::default() };
            let backend = Arc::new(Backend::new(service_port, endpoints.into(), balancing));
            snapshot.destinations.insert(destination(), Destination { original, backend });
        }
        self.engine.publish(Arc::new(snapshot));
    }

    /// Lives through all stories.
    fn run(mut self) {
        let calls: Vec<usize> = (0..self.stories.len()).collect();
        for share in calls.chunks(1 + self.random.below(25)) {
            self.connect_client(share.to_vec());
        }
        for number in 0..self.random.below(3) {
            let conn = self.engine.accepted(Origin::Agent, destination()).expect("the destination is known");
            self.links.insert(conn, Link::default());
            self.raw_clients.insert(conn, RawClient::new(number, &mut self.random));
        }
        for _ in 0..self.random.below(3) {
            let conn =
                self.engine.accepted(pods::origin(1), destination()).expect("the destination is known");
            let (flood, greeting) = Flood::new(&mut self.random);
            let mut link = Link::default();
            link.to_engine.extend(greeting);
            self.links.insert(conn, link);
            self.floods.insert(conn, flood);
            // It does not pass for something else.
            self.deliver_to_engine(conn, 100);
        }
        let faulty_steps = 500 + self.random.below(3_000);
        let mut steps = 0;
        while self.tally.iter().any(|tally| tally.result.is_none()) || !self.raw_clients.is_empty() {
            steps += 1;
            assert!(steps < MOST_STEPS, "never ends: {:?} {}", self.unfinished(), self.raw_clients.len());
            if steps < faulty_steps {
                self.fault();
            } else if steps == faulty_steps {
                self.heal();
            }
            self.step();
        }
        self.check_results();
        self.check_nothing_is_left();
        self.check_counts();
        self.check_spans();
    }

    fn unfinished(&self) -> Vec<(usize, &Story, &Tally)> {
        let all = self.stories.iter().zip(&self.tally).enumerate();
        all.filter(|(_, (_, tally))| tally.result.is_none()).map(|(i, (s, t))| (i, s, t)).collect()
    }

    fn connect_client(&mut self, calls: Vec<usize>) {
        let conn = self.engine.accepted(Origin::Agent, destination()).expect("the destination is known");
        let client = SimClient::new(calls);
        let mut link = Link::default();
        link.to_engine.extend(client.http2.output());
        self.links.insert(conn, link);
        self.clients.insert(conn, client);
        let sent = self.clients[&conn].http2.output().len();
        self.clients.get_mut(&conn).expect("just put there").http2.sent(sent);
        // Its preface, in one piece or in two.
        let first = 1 + self.random.below(40);
        self.deliver_to_engine(conn, first);
        self.deliver_to_engine(conn, 100);
    }

    /// One thing happens, somewhere.
    fn step(&mut self) {
        self.now_ns += self.random.below(300_000) as u64;
        self.engine.set_time(self.now_ns);
        self.something_happens();
        self.expire();
        self.settle();
        self.check_memory();
    }

    fn something_happens(&mut self) {
        let conns: Vec<ConnId> = self.links.keys().copied().collect();
        if conns.is_empty() {
            return;
        }
        let conn = conns[self.random.below(conns.len())];
        let size = match self.random.below(4) {
            0 => 1 + self.random.below(20),
            1 => 1 + self.random.below(1_000),
            _ => 70_000,
        };
        match self.random.below(5) {
            0 => self.deliver_to_engine(conn, size),
            1 => self.flush_engine(conn, size),
            _ if self.stalled.contains_key(&conn) => {}
            2 => self.deliver_to_peer(conn, size),
            _ => self.peer_acts(conn),
        }
        if let Some(link) = self.links.get(&conn) {
            self.engine.kernel_holds(conn, link.held_bytes());
        }
    }

    fn settle(&mut self) {
        let mut flush = Vec::new();
        loop {
            // What has output is found by asking: the dice decide when it is written.
            self.engine.settle(&mut flush);
            let mut actions = Vec::new();
            self.engine.take_actions(&mut actions);
            if actions.is_empty() {
                break;
            }
            for action in &actions {
                self.act(action);
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Connect { conn, address, .. } => {
                let endpoint = self.endpoints.iter().position(|endpoint| endpoint.address == address);
                let endpoint = endpoint.expect("an address of an endpoint");
                if self.down[endpoint] {
                    let before = self.calls_of(conn);
                    self.engine.connect_failed(conn);
                    self.note(&before, |_| unreachable!("it has no calls"));
                } else {
                    self.links.insert(conn, Link::default());
                    self.servers.insert(conn, Server::default());
                    self.engine.connected(conn);
                }
            }
            Action::ShutdownWrite { conn } => {
                if let Some(link) = self.links.get_mut(&conn) {
                    link.to_peer_ends = true;
                }
            }
            Action::Resume { .. } => {}
            Action::Close { conn, reset } => {
                self.engine.closed(conn);
                self.peer_loses(conn, reset);
            }
        }
    }

    /// The connection is gone for its peer.
    fn peer_loses(&mut self, conn: ConnId, reset: bool) {
        let Some(mut link) = self.links.remove(&conn) else { return };
        self.stalled.remove(&conn);
        self.left.remove(&conn);
        // What was written before the close still arrives, as over a socket that is closed in good order.
        let rest: Vec<u8> = link.to_peer.drain(..).collect();
        if let Some(mut client) = self.clients.remove(&conn) {
            client.receive(&rest, &mut self.tally, &self.stories);
            client.lost(&mut self.tally);
        }
        if let Some(mut server) = self.servers.remove(&conn) {
            server.receive(&rest, &mut self.random, &mut self.tally, &self.stories);
            server.lost(&mut self.tally);
        }
        self.floods.remove(&conn);
        if let Some(mut client) = self.raw_clients.remove(&conn) {
            client.receive(&rest);
            let faults = self.faults;
            let costs = faults.costs_servers() || faults.costs_clients() || faults.memory_is_short;
            let excused = reset && costs;
            assert!(client.is_whole() || excused, "a tunnel is cut off");
        }
    }

    // ---- the network

    fn deliver_to_engine(&mut self, conn: ConnId, size: usize) {
        if !self.engine.reads(conn) {
            return;
        }
        let Some(link) = self.links.get_mut(&conn) else { return };
        if link.to_engine.is_empty() {
            if link.to_engine_ends && !link.to_engine_ended {
                link.to_engine_ended = true;
                self.engine.eof(conn);
            }
            return;
        }
        let held = self.engine.restore(conn, &mut self.buffer);
        let size = size.min(link.to_engine.len());
        for (place, byte) in self.buffer[held..].iter_mut().zip(link.to_engine.drain(..size)) {
            *place = byte;
        }
        if !self.left.contains(&conn) {
            return self.engine.receive(conn, &self.buffer[..held + size]);
        }
        let before = self.calls_of(conn);
        self.engine.receive(conn, &self.buffer[..held + size]);
        self.note(&before, |tally| tally.left_behind += 1);
    }

    fn flush_engine(&mut self, conn: ConnId, size: usize) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let output = self.engine.output(conn);
        let size = size.min(output.len()).min(link.room_to_peer());
        link.to_peer.extend(&output[..size]);
        if size > 0 {
            self.engine.sent(conn, size);
        }
    }

    fn deliver_to_peer(&mut self, conn: ConnId, size: usize) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if self.floods.get(&conn).is_some_and(|flood| !flood.reads) {
            return;
        }
        let size = size.min(link.to_peer.len());
        let bytes: Vec<u8> = link.to_peer.drain(..size).collect();
        let ended = link.to_peer_ends && link.to_peer.is_empty();
        if let Some(client) = self.clients.get_mut(&conn) {
            client.receive(&bytes, &mut self.tally, &self.stories);
            if ended {
                client.lost(&mut self.tally);
                link.to_engine_ends = true;
            }
        } else if let Some(client) = self.raw_clients.get_mut(&conn) {
            client.receive(&bytes);
        } else if let Some(server) = self.servers.get_mut(&conn) {
            server.receive(&bytes, &mut self.random, &mut self.tally, &self.stories);
            if ended {
                server.end();
            }
        }
    }

    fn peer_acts(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if let Some(client) = self.clients.get_mut(&conn) {
            client.act(&mut self.random, &mut self.tally, &self.stories);
            link.take_from(&mut client.http2);
        } else if let Some(client) = self.raw_clients.get_mut(&conn) {
            client.act(&mut self.random, link);
        } else if let Some(flood) = self.floods.get_mut(&conn) {
            flood.act(&mut self.random, link);
        } else if let Some(server) = self.servers.get_mut(&conn) {
            server.act(&mut self.random, link, &mut self.tally, &self.stories);
        }
    }

    // ---- what must hold

    /// What is charged is what a walk over everything finds, and a source holds no more than its budget and what its connections may
    /// hold in any case: the kernel's buffers, a frame's beginning, and what came in the step.
    fn check_memory(&self) {
        let found = self.engine.walk();
        for (budget, held) in self.engine.budgets.held() {
            let found = found.get(&budget).copied().unwrap_or(0);
            assert_eq!(held, found, "bytes of budget {budget}: charged, and found");
            let of_budget = self.engine.conns.all().filter(|(_, of)| *of == budget);
            let excused: u64 = of_budget
                .map(|(conn, _)| EXCUSED_BYTES + u64::from(self.engine.conns.kernel_bytes(conn)))
                .sum();
            let limit = self.engine.budgets.limit(budget);
            assert!(held <= limit + excused + STEP_BYTES, "{held} bytes of {limit}, and {excused} excused");
        }
    }

    fn check_results(&self) {
        for (index, (story, tally)) in self.stories.iter().zip(&self.tally).enumerate() {
            story.check(tally, self.faults, self.endpoints.len()).unwrap_or_else(|wrong| {
                panic!("call {index}: {wrong}\n{story:?}\n{tally:?}\n{:?}", self.faults)
            });
        }
        let counters = self.engine.counters();
        // A call whose answer is still on its way to the client has its outcome, and its slot.
        let calls = self.engine.downstreams.iter().flat_map(|(_, downstream)| &downstream.calls);
        let without_outcome = calls.filter(|call| self.engine.calls[**call].outcome.is_none()).count() as u64;
        let outcomes = counters.answered + counters.own_errors + counters.cancelled;
        assert_eq!(counters.calls, outcomes + without_outcome);
    }

    /// All clients go, time passes: every slab is empty, and no endpoint counts a call as under way.
    fn check_nothing_is_left(&mut self) {
        for link in self.links.values_mut() {
            link.to_engine_ends = true;
        }
        for conn in std::mem::take(&mut self.floods).into_keys() {
            self.links.remove(&conn);
            self.engine.failed(conn);
            self.settle();
        }
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            while self.links.get(&conn).is_some_and(|link| !link.to_engine_ended)
                && !self.links[&conn].is_stuck(&self.engine, conn)
            {
                self.deliver_to_engine(conn, 100_000);
                self.settle();
            }
            if self.links.contains_key(&conn) {
                self.links.remove(&conn);
                self.clients.remove(&conn);
                self.engine.failed(conn);
                self.settle();
            }
        }
        assert_eq!(self.engine.calls.len(), 0, "calls are left");
        for (_, target) in &self.engine.targets.slots {
            let circuit = &target.circuit;
            assert_eq!(
                (circuit.calls.load(Relaxed), circuit.pending.load(Relaxed)),
                (0, 0),
                "calls are counted"
            );
        }
        self.check_memory();
        for endpoint in &self.endpoints {
            assert_eq!(endpoint.load.active(), 0, "calls count as under way at {}", endpoint.address);
        }
        for _ in 0..200 {
            self.now_ns += 1_000 * MS;
            self.engine.tick(self.now_ns);
            self.settle();
            for conn in self.servers.keys().copied().collect::<Vec<_>>() {
                self.flush_engine(conn, 100_000);
                self.settle();
                self.deliver_to_peer(conn, 100_000);
            }
        }
        let engine = &self.engine;
        assert_eq!(engine.client_connections(), 0, "client connections are left");
        assert!(!self.drains || engine.is_drained());
        assert_eq!(engine.upstreams.len(), 0, "connections to servers are left");
        assert_eq!(engine.pools.len(), 0, "pools are left");
        assert_eq!(engine.targets.slots.len(), 0, "targets are left");
        assert_eq!(engine.budgets.held().count(), 0, "budgets are left");
        assert_eq!(engine.call_timers.next_in_ns(self.now_ns), None, "a call's timer is left");
        assert_eq!(engine.conn_timers.next_in_ns(self.now_ns), None, "a connection's timer is left");
        assert!(self.links.is_empty(), "sockets are left");
    }
}

/// Worlds that a run of the tests lives through; SEEDS says another number.
const SEEDS: u64 = 2_000;

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().expect("SEED and SEEDS are numbers"))
}

#[test]
fn every_story_comes_to_its_end_whatever_the_network_does() {
    let seeds = match number_from("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("SEEDS").unwrap_or(SEEDS),
    };
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if std::panic::catch_unwind(|| World::new(seed).run()).is_err() {
                        failed.lock().expect("nobody panics with it").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(failed.is_empty(), "worlds that fail, each to be lived again with SEED=…: {failed:?}");
}
