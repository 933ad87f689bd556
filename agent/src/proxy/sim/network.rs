//! Bytes under way: from a peer to the engine, and back.

use super::{ConnId, Engine, World};
use crate::http2::Connection;
use std::collections::VecDeque;

/// What the kernels of both ends hold of one direction.
const SOCKET_BUFFER_BYTES: usize = 50_000;

/// A TCP connection between the engine and a peer.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) to_engine: VecDeque<u8>,
    pub(super) to_peer: VecDeque<u8>,
    pub(super) to_engine_ends: bool,
    pub(super) to_engine_ended: bool,
    pub(super) to_peer_ends: bool,
}

impl Link {
    pub(super) fn room_to_engine(&self) -> usize {
        SOCKET_BUFFER_BYTES.saturating_sub(self.to_engine.len())
    }

    pub(super) fn room_to_peer(&self) -> usize {
        SOCKET_BUFFER_BYTES.saturating_sub(self.to_peer.len())
    }

    /// What the engine's side of it holds.
    pub(super) fn held_bytes(&self) -> u32 {
        (self.to_engine.len() + self.to_peer.len()) as u32
    }

    /// What a peer has written.
    pub(super) fn take_from(&mut self, http2: &mut Connection) {
        let size = http2.output().len().min(self.room_to_engine());
        self.to_engine.extend(&http2.output()[..size]);
        http2.sent(size);
    }

    /// The engine does not read on.
    pub(super) fn is_stuck(&self, engine: &Engine, conn: ConnId) -> bool {
        !engine.reads(conn)
    }
}

impl World {
    pub(super) fn deliver_to_engine(&mut self, conn: ConnId, size: usize) {
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

    pub(super) fn flush_engine(&mut self, conn: ConnId, size: usize) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let output = self.engine.output(conn);
        let size = size.min(output.len()).min(link.room_to_peer());
        link.to_peer.extend(&output[..size]);
        if size > 0 {
            self.engine.sent(conn, size);
        }
    }

    pub(super) fn deliver_to_peer(&mut self, conn: ConnId, size: usize) {
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

    pub(super) fn peer_acts(&mut self, conn: ConnId) {
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
}
