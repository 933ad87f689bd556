//! What goes wrong in a world, and when.

use super::server::Server;
use super::story::Tally;
use super::{ConnId, MS, World};
use crate::balance::Random;
use crate::http2::{Limits, Name};
use crate::mesh::Protection;
use crate::proxy::conns::Role;

/// What may go wrong in a world.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// Connections to servers break, and servers are down for a time, some from the start.
    pub(super) servers_break: bool,
    /// Servers say GOAWAY.
    pub(super) servers_leave: bool,
    /// Servers do nothing for a time, or for ever.
    pub(super) servers_stall: bool,
    /// Clients' connections break.
    pub(super) clients_break: bool,
    /// Clients neither read nor write for a time.
    clients_stall: bool,
    /// Endpoints come and go.
    pub(super) endpoints_change: bool,
    /// There is no endpoint, or not even a Service, for a time.
    pub(super) endpoints_vanish: bool,
    /// The agent goes away.
    pub(super) drains: bool,
    /// Nothing happens for up to a second.
    clock_leaps: bool,
    /// The budget does not suffice for all that the stories have under way.
    pub(super) memory_is_short: bool,
    /// No fault: the Service asks for retries on UNAVAILABLE, and its stories are of that.
    pub(super) retries: bool,
}

impl Faults {
    pub(super) fn random(random: &mut Random) -> Self {
        let mut chance = |share: usize| random.below(100) < share;
        Self {
            servers_break: chance(30),
            servers_leave: chance(30),
            servers_stall: chance(30),
            clients_break: chance(20),
            clients_stall: chance(30),
            endpoints_change: chance(30),
            endpoints_vanish: chance(10),
            drains: chance(10),
            clock_leaps: chance(30),
            memory_is_short: chance(20),
            retries: chance(25),
        }
    }

    /// Whether any call may have found no server, or been ended by the agent.
    pub(super) fn costs_all(self) -> bool {
        self.endpoints_vanish || self.drains
    }

    /// Whether a tunnel may have been lost with its server, or found none.
    pub(super) fn costs_servers(self) -> bool {
        self.servers_break || self.servers_leave || self.servers_stall || self.costs_all()
    }

    /// Whether a client may have been sent away or cut off.
    pub(super) fn costs_clients(self) -> bool {
        self.clients_break || self.endpoints_vanish || self.drains
    }
}

/// What the engine may hold: nearly nothing, up to what most worlds need.
pub(super) fn protection(faults: Faults, random: &mut Random) -> Protection {
    let own_memory = if faults.memory_is_short { 100_000 + random.below(1_000_000) as u64 } else { 1 << 30 };
    // Those who flood have little in any case.
    let pod_memory = 200_000 + random.below(1_000_000) as u64;
    Protection { own_memory, pod_memory, ..Protection::default() }
}

/// Windows and output of the engine, small ones to make every queue fill.
pub(super) fn limits(random: &mut Random) -> Limits {
    match random.below(3) {
        0 => Limits::default(),
        1 => Limits { max_output: 2_000, ..Limits::default() },
        _ => Limits {
            stream_window: 3_000,
            max_stream_window: 20_000,
            max_output: 10_000,
            ..Limits::default()
        },
    }
}

/// The calls at a server, and those that wait for a connection to it to have room.
pub(super) struct CallsOf {
    conn: ConnId,
    open: Vec<usize>,
    waiting: Vec<usize>,
}

impl World {
    /// Which calls would suffer if something happened to a server's connection now.
    pub(super) fn calls_of(&self, conn: ConnId) -> CallsOf {
        let mut calls = CallsOf { conn, open: Vec::new(), waiting: Vec::new() };
        let Role::Upstream(upstream) = self.engine.conns.role(conn) else { return calls };
        let story_of = |call: &u32| -> Option<usize> {
            let path = self.engine.calls[*call].request.find(Name::Path)?;
            std::str::from_utf8(&path[1..]).expect("a story's, or a flood's").parse().ok()
        };
        let upstream = &self.engine.upstreams[upstream as usize];
        calls.open.extend(upstream.calls.iter().filter_map(story_of));
        // The engine may have forgotten the request of one that is being answered.
        if let Some(Server::Http2(server)) = self.servers.get(&conn) {
            calls.open.extend(&server.begun);
        }
        calls.waiting.extend(self.engine.pools[upstream.pool as usize].waiting.iter().filter_map(story_of));
        calls
    }

    /// Something has happened to it: notes which of the calls have lost their places.
    pub(super) fn note(&mut self, before: &CallsOf, lost: impl Fn(&mut Tally)) {
        let after = self.calls_of(before.conn);
        for call in before.open.iter().filter(|call| !after.open.contains(call)) {
            lost(&mut self.tally[*call]);
        }
        for call in before.waiting.iter().filter(|call| !after.waiting.contains(call)) {
            self.tally[*call].unconnected += 1;
        }
    }

    /// Timers fire. A server that has done nothing for too long may be given up.
    pub(super) fn expire(&mut self) {
        let before: Vec<_> = self.stalled.keys().map(|conn| self.calls_of(*conn)).collect();
        self.engine.expire();
        for calls in before {
            if self.engine.conns.role(calls.conn) == Role::Closed {
                self.note(&calls, |tally| tally.broken += 1);
            }
        }
    }

    /// Now and then something goes wrong.
    pub(super) fn fault(&mut self) {
        if self.random.below(100) != 0 {
            return;
        }
        let faults = self.faults;
        match self.random.below(10) {
            0 if faults.servers_break => self.break_one(true),
            1 if faults.servers_break => {
                let endpoint = self.random.below(self.down.len());
                self.down[endpoint] ^= true;
            }
            2 if faults.servers_leave => {
                if let Some(conn) = self.pick(true) {
                    self.servers.get_mut(&conn).expect("just picked").leave();
                    self.left.insert(conn);
                }
            }
            3 if faults.clients_break => self.break_one(false),
            4 if faults.endpoints_change => {
                let from = self.random.below(self.endpoints.len());
                let count = 1 + self.random.below(self.endpoints.len() - from);
                let some = self.endpoints[from..][..count].to_vec();
                self.publish(Some(&some));
            }
            5 if faults.endpoints_vanish => match self.random.below(3) {
                0 => self.publish(None),
                1 => self.publish(Some(&[])),
                _ => self.publish(Some(&self.endpoints.clone())),
            },
            6 if faults.servers_stall => self.stall_one(true),
            7 if faults.clients_stall => self.stall_one(false),
            8 if faults.drains && !self.drains => {
                self.drains = true;
                let time = self.random.below(2_000) as u64 * MS;
                self.engine.drain(self.now_ns + time);
            }
            9 if faults.clock_leaps => self.now_ns += self.random.below(1_000) as u64 * MS,
            _ => {}
        }
        self.settle();
    }

    /// A connection to a server, or of a client.
    fn pick(&mut self, of_server: bool) -> Option<ConnId> {
        let is_one = |conn: &&ConnId| self.servers.contains_key(conn) == of_server;
        let conns: Vec<ConnId> = self.links.keys().filter(is_one).copied().collect();
        (!conns.is_empty()).then(|| conns[self.random.below(conns.len())])
    }

    fn break_one(&mut self, of_server: bool) {
        if let Some(conn) = self.pick(of_server) {
            self.break_link(conn);
        }
    }

    fn break_link(&mut self, conn: ConnId) {
        let before = self.calls_of(conn);
        self.links.remove(&conn);
        self.stalled.remove(&conn);
        self.left.remove(&conn);
        if let Some(mut client) = self.clients.remove(&conn) {
            client.lost(&mut self.tally);
        }
        if let Some(server) = self.servers.remove(&conn) {
            server.lost(&mut self.tally);
        }
        self.raw_clients.remove(&conn);
        self.floods.remove(&conn);
        self.engine.failed(conn);
        self.note(&before, |tally| tally.broken += 1);
    }

    /// The peer falls silent: until the world is healed or, of servers, some for ever.
    fn stall_one(&mut self, of_server: bool) {
        if let Some(conn) = self.pick(of_server) {
            let for_ever = of_server && self.random.below(3) == 0;
            self.stalled.insert(conn, for_ever);
        }
    }

    /// Nothing more goes wrong: what was down is up, and the kernel has noticed which peers are gone.
    pub(super) fn heal(&mut self) {
        self.down.fill(false);
        for (conn, for_ever) in std::mem::take(&mut self.stalled) {
            if for_ever && self.links.contains_key(&conn) {
                self.break_link(conn);
            }
        }
        self.publish(Some(&self.endpoints.clone()));
        self.settle();
    }
}
