//! A simulator: the engine between virtual clients and servers, over a network that cuts, delays and breaks as a seed says.
//!
//! `story` says what each call is to do and what its client may see, `network` carries the bytes between the engine and its peers, `client` and
//! `server` act the stories out on the project's own HTTP/2 layer, `raw` is what speaks something else, `flood` what speaks too much, `faults`
//! says what goes wrong, and this file is the world with its clock and its dice. `checks` says what must hold at each step and at the end,
//! `counts` and `traces` compare what was counted and traced with what peers saw. `pods` has several pods' calls without dice, for what they
//! learn of servers, `farther` and `sessions` where their calls go then, and `many_nodes` has the agents of a cluster. Every failure replays:
//! `SEED=1234 cargo test -p evenkeel --lib proxy::sim`; `SEEDS=10000` lives through more worlds.

mod checks;
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
