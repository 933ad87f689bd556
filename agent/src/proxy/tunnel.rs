//! What is not surely HTTP/2: bytes, both ways, untouched, to where the client wanted to go.
//!
//! Each half ends by itself, as TCP's do; a reset of one side resets the other, behind what was said before it.

use super::budget::Level;
use super::engine::{Action, ConnId, Engine, Role};
use crate::balance;

/// What one direction holds at most before its source is not read any more. A read may go beyond it by its own size.
const HIGH_WATER_BYTES: usize = 128 << 10;
/// Below this the source is read again.
const LOW_WATER_BYTES: usize = 32 << 10;
/// Buffers kept for the next tunnel that needs one.
const SPARE_BUFFERS: usize = 16;
/// Buffers that have grown beyond this are not kept.
const SPARE_BUFFER_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Tunnel {
    client: ConnId,
    server: ConnId,
    pub(super) target: u32,
    connected: bool,
    /// There is nowhere to connect to.
    unreachable: bool,
    /// One side was reset; the other is when it has got what came before.
    broken: bool,
    to_server: Pipe,
    to_client: Pipe,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    buffer: Vec<u8>,
    /// How much of the buffer is written already.
    written: usize,
    /// The source has ended.
    ended: bool,
    /// The destination has been told.
    shut: bool,
}

impl Pipe {
    fn waiting(&self) -> &[u8] {
        &self.buffer[self.written..]
    }
}

impl Tunnel {
    /// Whether the server has accepted.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// What the direction towards this side holds in memory; the tunnel itself counts with its client.
    pub(super) fn held_bytes(&self, to_client: bool) -> usize {
        match to_client {
            true => size_of::<Self>() + self.to_client.buffer.capacity(),
            false => self.to_server.buffer.capacity(),
        }
    }

    pub(super) fn output(&self, to_client: bool) -> &[u8] {
        match to_client {
            true => self.to_client.waiting(),
            false if self.connected => self.to_server.waiting(),
            false => &[],
        }
    }
}

impl Engine {
    /// Turns a client's connection into a tunnel; `received` was read from it already.
    pub(super) fn open_tunnel(&mut self, client: ConnId, target: u32, received: &[u8]) -> u32 {
        let slot = &self.targets.slots[target as usize];
        let pod = slot.origin.pod();
        let address = slot.destination.as_ref().and_then(|destination| {
            if pod.is_some() {
                return Some(destination.original);
            }
            // `evenkeel proxy` was dialled itself: any endpoint may have been meant.
            let backend = &destination.backend;
            // Each connection is a source of its own, as those that speak HTTP/2 are.
            let mut picker = slot.origin.picker(&mut self.random);
            let endpoints = &backend.endpoints;
            balance::pick(backend, endpoints, None, &mut picker, &mut self.random, self.now_ns, |_| false)
                .map(|endpoint| backend.endpoints[endpoint].address)
        });
        let entry = self.tunnels.vacant_entry();
        let tunnel = entry.key() as u32;
        let server = self.conns.insert(Role::TunnelServer(tunnel), slot.budget, self.now_ns);
        self.conns.set_role(client, Role::TunnelClient(tunnel));
        entry.insert(Tunnel {
            client,
            server,
            target,
            connected: false,
            unreachable: address.is_none(),
            broken: false,
            to_server: Pipe { buffer: received.to_vec(), ..Pipe::default() },
            to_client: Pipe::default(),
        });
        match address {
            Some(address) => {
                self.counters.connects += 1;
                self.actions.push(Action::Connect { conn: server, pod, address });
            }
            // Ends once the input that led here is through.
            None => self.conns.touch(server),
        }
        self.charge(client);
        self.charge(server);
        tunnel
    }

    pub(super) fn tunnel_connected(&mut self, tunnel: u32) {
        let slot = &mut self.tunnels[tunnel as usize];
        slot.connected = true;
        self.conns.touch(slot.server);
    }

    pub(super) fn receive_tunnel(&mut self, tunnel: u32, from_client: bool, input: &[u8]) {
        let slot = &mut self.tunnels[tunnel as usize];
        if slot.broken {
            // Its destination is gone.
            return;
        }
        let (pipe, source, destination) = slot.pipe(from_client);
        if pipe.buffer.capacity() == 0
            && let Some(spare) = self.spare_buffers.pop()
        {
            pipe.buffer = spare;
        }
        pipe.buffer.extend_from_slice(input);
        let is_tight = self.budgets.level(self.conns.budget(source)) >= Level::Tight;
        let most = if is_tight { LOW_WATER_BYTES + 1 } else { HIGH_WATER_BYTES };
        if pipe.waiting().len() >= most {
            self.conns.set_paused(source, true);
        }
        self.conns.touch(destination);
    }

    pub(super) fn tunnel_half_ended(&mut self, tunnel: u32, from_client: bool) {
        let (pipe, _, destination) = self.tunnels[tunnel as usize].pipe(from_client);
        pipe.ended = true;
        self.conns.touch(destination);
    }

    pub(super) fn tunnel_sent(&mut self, tunnel: u32, to_client: bool, bytes: usize) {
        let (pipe, source, destination) = self.tunnels[tunnel as usize].pipe(!to_client);
        pipe.written += bytes;
        let waiting = pipe.waiting().len();
        if waiting == 0 {
            pipe.written = 0;
            pipe.buffer.clear();
            let buffer = std::mem::take(&mut pipe.buffer);
            if self.spare_buffers.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BUFFER_BYTES {
                self.spare_buffers.push(buffer);
            }
            self.conns.touch(destination);
        } else if pipe.written >= HIGH_WATER_BYTES {
            pipe.buffer.drain(..pipe.written);
            pipe.written = 0;
        }
        if waiting <= LOW_WATER_BYTES && self.conns.set_paused(source, false) {
            self.actions.push(Action::Resume { conn: source });
        }
    }

    /// Passes ends on, and closes the tunnel after the second.
    pub(super) fn settle_tunnel(&mut self, tunnel: u32) {
        let slot = &mut self.tunnels[tunnel as usize];
        let is_empty = slot.to_client.waiting().is_empty() && slot.to_server.waiting().is_empty();
        if slot.unreachable || (slot.broken && is_empty) {
            return self.end_tunnel(tunnel, true);
        }
        for to_client in [true, false] {
            let may = to_client || slot.connected;
            let (pipe, _, destination) = slot.pipe(!to_client);
            if may && pipe.ended && !pipe.shut && pipe.waiting().is_empty() {
                pipe.shut = true;
                self.actions.push(Action::ShutdownWrite { conn: destination });
            }
        }
        if slot.to_client.shut && slot.to_server.shut {
            self.end_tunnel(tunnel, false);
        }
    }

    /// A side was reset.
    pub(super) fn tunnel_failed(&mut self, tunnel: u32, of_client: bool) {
        let slot = &mut self.tunnels[tunnel as usize];
        if !slot.connected {
            return self.end_tunnel(tunnel, true);
        }
        slot.broken = true;
        let (toward, _, _) = slot.pipe(!of_client);
        *toward = Pipe::default();
        let (_, side, other) = slot.pipe(of_client);
        self.conns.touch(side);
        self.conns.touch(other);
    }

    /// Closes both sides.
    pub(super) fn end_tunnel(&mut self, tunnel: u32, reset: bool) {
        let slot = self.tunnels.remove(tunnel as usize);
        self.leave_target(slot.target);
        self.close(slot.client, reset);
        self.close(slot.server, reset);
    }
}

impl Tunnel {
    /// The direction that leads away from this side, its source and its destination.
    fn pipe(&mut self, from_client: bool) -> (&mut Pipe, ConnId, ConnId) {
        match from_client {
            true => (&mut self.to_server, self.client, self.server),
            false => (&mut self.to_client, self.server, self.client),
        }
    }
}
