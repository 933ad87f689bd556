//! Peers that stall: that give no window, or a byte of it at a time, do not read, or never end what they began to say. Each is
//! looked at from time to time; its streams end, or, where it is all of it, its connection, and nobody else's.
//!
//! HTTP/2 lets a receiver take its time, and flow control is there for it: with memory to spare the limit is far above what a slow
//! consumer needs. A source whose memory is tight is looked at with less patience.

use super::budget::Level;
use super::call::Stage;
use super::conns::{ConnId, Role};
use super::downstream;
use super::engine::Engine;
use super::error_reply::Cause;
use super::upstream;
use crate::http2::{ErrorCode, LastStream};
use crate::telemetry::Flag;

/// Between two looks at a connection.
pub(super) const LOOK_EVERY_NS: u64 = 10_000_000_000;
/// Not all of them are looked at in one turn, for which every call would have to wait, but a share of them each second.
const SLICES: usize = 10;
pub(super) const SLICE_EVERY_NS: u64 = LOOK_EVERY_NS / SLICES as u64;
/// Who takes less than this between two looks, of what waits for it, has taken too little: 400 bytes a second.
const LEAST_BYTES: usize = 4 << 10;
/// Times between two looks that a peer may take too little in: five minutes, Envoy's idle time-out of a stream.
const LOOKS: u32 = 30;
/// And if its source's memory has been tight for as long: gRPC's keep-alive time-out.
const HURRIED_LOOKS: u32 = 2;
/// Looks that a frame, or a header block, may take to come whole: up to half a minute for what fits into a few packets. Nothing
/// but the peer's own slowness keeps it.
const UNFINISHED_LOOKS: u32 = 3;

impl Engine {
    /// Looks at the next share of all connections.
    pub(super) fn look_for_stalls(&mut self) {
        if self.look_slice == 0 {
            self.budgets.look();
        }
        for index in (self.look_slice..self.conns.bound()).step_by(SLICES) {
            match self.conns.role(ConnId(index as u32)) {
                Role::Downstream(downstream) => self.look_at_downstream(downstream),
                Role::Upstream(upstream) => self.look_at_upstream(upstream),
                Role::TunnelClient(tunnel) => self.look_at_tunnel(tunnel),
                Role::Sniffing(_) | Role::TunnelServer(_) | Role::Closed => {}
            }
        }
        self.look_slice = (self.look_slice + 1) % SLICES;
        self.end_stalled();
    }

    fn look_at_downstream(&mut self, downstream: u32) {
        let slot = &mut self.downstreams[downstream as usize];
        if slot.phase >= downstream::Phase::Closing {
            return;
        }
        let conn = slot.conn;
        let has_waited = self.conns.has_waited(conn, self.now_ns, LOOK_EVERY_NS);
        let waits = slot.http2.look(has_waited, LEAST_BYTES);
        self.charge(conn);
        let looks = self.looks_for(self.conns.budget(conn));
        if waits.unfinished >= UNFINISHED_LOOKS {
            self.counters.unfinished_headers += 1;
            let http2 = &mut self.downstreams[downstream as usize].http2;
            http2.go_away(ErrorCode::EnhanceYourCalm, LastStream::Seen);
            self.cancel_calls(downstream, Flag::ClientFault);
            return self.close_downstream(downstream);
        }
        if waits.unread >= looks {
            self.counters.stalled_clients += 1;
            self.cancel_calls(downstream, Flag::ClientStalled);
            return self.lose_downstream(downstream, true);
        }
        let mut slow = std::mem::take(&mut self.slow);
        self.downstreams[downstream as usize].http2.look_at_queues(LEAST_BYTES, looks, &mut slow);
        for call in slow.drain(..) {
            self.counters.stalled_streams += 1;
            self.cut_call(call, ErrorCode::EnhanceYourCalm, Flag::ClientStalled);
        }
        self.slow = slow;
    }

    fn look_at_upstream(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        if !matches!(slot.phase, upstream::Phase::Ready | upstream::Phase::Retiring) {
            return;
        }
        let conn = slot.conn;
        let has_waited = self.conns.has_waited(conn, self.now_ns, LOOK_EVERY_NS);
        let waits = slot.http2.look(has_waited, LEAST_BYTES);
        self.charge(conn);
        let looks = self.looks_for(self.conns.budget(conn));
        if waits.unread >= looks || waits.unfinished >= UNFINISHED_LOOKS {
            self.counters.stalled_servers += 1;
            self.fail_upstream_calls(upstream);
            return self.remove_upstream(upstream, true);
        }
        let mut slow = std::mem::take(&mut self.slow);
        self.upstreams[upstream as usize].http2.look_at_queues(LEAST_BYTES, looks, &mut slow);
        for call in slow.drain(..) {
            if matches!(self.calls[call].stage, Stage::Open { .. }) {
                self.counters.stalled_streams += 1;
                let by = self.server_address(call);
                self.give_up(call, Cause::Unread { by });
            }
        }
        self.slow = slow;
    }

    /// A tunnel is left alone while there is memory: nobody knows what its ends have agreed on.
    fn look_at_tunnel(&mut self, tunnel: u32) {
        let (client, server) = self.tunnels[tunnel as usize].conns();
        let waits = [client, server].map(|conn| self.conns.has_waited(conn, self.now_ns, LOOK_EVERY_NS));
        let slow_looks = self.tunnels[tunnel as usize].look(waits, LEAST_BYTES);
        let budget = self.conns.budget(client);
        if slow_looks >= HURRIED_LOOKS && self.budgets.level(budget) >= Level::Full {
            self.count_memory_refusal(budget);
            self.end_tunnel(tunnel, true);
        }
    }

    fn looks_for(&self, budget: u32) -> u32 {
        if self.budgets.has_been_tight(budget, HURRIED_LOOKS) { HURRIED_LOOKS } else { LOOKS }
    }
}
