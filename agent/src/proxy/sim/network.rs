//! Bytes under way.

use super::{ConnId, Engine};
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
