//! Peers that stall: that give no window, or a byte of it at a time, do not read, or never end what they began to say. Each is
//! looked at from time to time; its streams end, or, where it is all of it, its connection, and nobody else's.
//!
//! HTTP/2 lets a receiver take its time, and flow control is there for it: with memory to spare the limit is far above what a slow
//! consumer needs. A source whose memory is tight is looked at with less patience.

use super::budget::Level;
use super::call::Stage;
use super::downstream;
use super::engine::Engine;
use super::error_reply::Cause;
use super::upstream;
use crate::http2::{ErrorCode, LastStream};
use crate::telemetry::Flag;

/// Between two looks at everything.
pub(super) const LOOK_EVERY_NS: u64 = 10_000_000_000;
/// Who takes less than this between two looks, of what waits for it, has taken too little: 400 bytes a second.
const LEAST_BYTES: usize = 4 << 10;
/// Looks that a peer may take too little in: five minutes, Envoy's idle time-out of a stream.
const LOOKS: u32 = 30;
/// And if its source's memory is tight: gRPC's keep-alive time-out.
const HURRIED_LOOKS: u32 = 2;
/// Looks that a frame, or a header block, may take to come whole: up to half a minute for what fits into a few packets. Nothing
/// but the peer's own slowness keeps it.
const UNFINISHED_LOOKS: u32 = 3;

impl Engine {
    /// Looks at all connections.
    pub(super) fn look_for_stalls(&mut self) {
        let downstreams: Vec<u32> = self.downstreams.iter().map(|(index, _)| index as u32).collect();
        for downstream in downstreams {
            self.look_at_downstream(downstream);
        }
        let upstreams: Vec<u32> = self.upstreams.iter().map(|(index, _)| index as u32).collect();
        for upstream in upstreams {
            // Another one's end may have taken it along.
            if self.upstreams.contains(upstream as usize) {
                self.look_at_upstream(upstream);
            }
        }
    }

    fn look_at_downstream(&mut self, downstream: u32) {
        let slot = &mut self.downstreams[downstream as usize];
        if slot.phase >= downstream::Phase::Closing {
            return;
        }
        let waits = slot.http2.look(LEAST_BYTES);
        let conn = slot.conn;
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
            self.cut_call(call, ErrorCode::EnhanceYourCalm);
        }
        self.slow = slow;
    }

    fn look_at_upstream(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        if !matches!(slot.phase, upstream::Phase::Ready | upstream::Phase::Retiring) {
            return;
        }
        let waits = slot.http2.look(LEAST_BYTES);
        let conn = slot.conn;
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
                self.fail(call, Cause::Unread { by });
            }
        }
        self.slow = slow;
    }

    fn looks_for(&self, budget: u32) -> u32 {
        if self.budgets.level(budget) >= Level::Tight { HURRIED_LOOKS } else { LOOKS }
    }
}
