//! What goes wrong in a world, and when.

use super::{ConnId, MS, World};
use crate::balance::Random;
use crate::http2::Limits;
use crate::mesh::Protection;

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
    endpoints_change: bool,
    /// There is no endpoint, or not even a Service, for a time.
    pub(super) endpoints_vanish: bool,
    /// The agent goes away.
    pub(super) drains: bool,
    /// Nothing happens for up to a second.
    clock_leaps: bool,
    /// The budget does not suffice for all that the stories have under way.
    pub(super) memory_is_short: bool,
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
        }
    }

    /// Whether a call may have been lost with its server, or found none.
    pub(super) fn costs_servers(self) -> bool {
        self.servers_break || self.servers_leave || self.servers_stall || self.endpoints_vanish || self.drains
    }

    /// Whether a client may have been sent away or cut off.
    pub(super) fn costs_clients(self) -> bool {
        self.clients_break || self.endpoints_vanish || self.drains
    }
}

/// What the engine may hold: nearly nothing, up to what most worlds need.
pub(super) fn protection(faults: Faults, random: &mut Random) -> Protection {
    let own_memory = if faults.memory_is_short { 100_000 + random.below(1_000_000) as u64 } else { 1 << 30 };
    Protection { own_memory, ..Protection::default() }
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

impl World {
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
        self.links.remove(&conn);
        self.stalled.remove(&conn);
        if let Some(mut client) = self.clients.remove(&conn) {
            client.lost(&mut self.tally);
        }
        if let Some(server) = self.servers.remove(&conn) {
            server.lost(&mut self.tally);
        }
        self.raw_clients.remove(&conn);
        self.engine.failed(conn);
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
