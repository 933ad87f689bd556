//! Whether a server that says nothing still lives.
//!
//! PING ends at each hop, so that a client's own keep-alive only proves that the agent lives. The kernel sees to hosts that
//! are gone (`socket`); a PING sees to a server that hangs. It is sent when the client itself asks, and for the streams of an
//! endpoint that was removed, and rarely: gRPC servers punish more (gRFC A8).

use super::call::Stage;
use super::engine::Engine;
use super::upstream::Phase;

/// Between two PINGs on a connection, where clients ask for them.
pub(super) const EVERY_NS: u64 = 60_000_000_000;
/// Between two of a removed endpoint that nobody asks for: what gRPC servers allow without being configured.
const WATCH_EVERY_NS: u64 = 300_000_000_000;
/// The most that a server's `too_many_pings` makes of it.
const MOST_EVERY_NS: u64 = 3_600_000_000_000;
/// A server that has said nothing for so long after a PING is gone: gRPC's own keep-alive timeout.
const ANSWER_WITHIN_NS: u64 = 20_000_000_000;

const PAYLOAD: [u8; 8] = *b"are you?";

/// What a connection knows of its probes.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// When the last PING went out.
    sent_ns: u64,
    /// It is not answered yet.
    waits: bool,
    /// The earliest time for another one.
    not_before_ns: u64,
    /// The endpoint was removed.
    watched: bool,
}

impl Engine {
    /// The client wants to know whether its calls' other end lives.
    pub(super) fn client_pinged(&mut self, downstream: u32) {
        for position in 0..self.downstreams[downstream as usize].calls.len() {
            let call = self.downstreams[downstream as usize].calls[position];
            if let Stage::Open { upstream, .. } = self.calls[call].stage {
                self.probe(upstream);
            }
        }
    }

    /// The endpoint was removed: its streams may end in their own time, as long as it lives.
    pub(super) fn watch(&mut self, upstream: u32) {
        if let Some(slot) = self.upstreams.get_mut(upstream as usize) {
            slot.probe.watched = true;
            self.probe(upstream);
        }
    }

    fn probe(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        let is_in_use = matches!(slot.phase, Phase::Ready | Phase::Retiring) && !slot.calls.is_empty();
        if !is_in_use || slot.probe.waits || self.now_ns < slot.probe.not_before_ns {
            return;
        }
        let every = self.pools[slot.pool as usize].probe_every_ns;
        slot.probe.sent_ns = self.now_ns;
        slot.probe.waits = true;
        slot.probe.not_before_ns = self.now_ns + every;
        slot.http2.ping(PAYLOAD);
        self.conn_timers.set(slot.conn.0, self.now_ns + ANSWER_WITHIN_NS);
        self.conns.touch(slot.conn);
    }

    /// The server says that it was asked too often (`too_many_pings`), perhaps.
    pub(super) fn probe_less(&mut self, upstream: u32) {
        let slot = &self.upstreams[upstream as usize];
        if slot.probe.not_before_ns > 0 {
            let pool = &mut self.pools[slot.pool as usize];
            pool.probe_every_ns = (pool.probe_every_ns * 2).min(MOST_EVERY_NS);
        }
    }

    /// True if that settles what the connection's timer was for.
    pub(super) fn probe_timer_fired(&mut self, upstream: u32) -> bool {
        let slot = &mut self.upstreams[upstream as usize];
        if !matches!(slot.phase, Phase::Ready | Phase::Retiring) {
            return false;
        }
        // Whatever came after it is as good as an answer.
        if slot.probe.waits && slot.heard_ns <= slot.probe.sent_ns {
            self.server_is_silent(upstream);
            return true;
        }
        slot.probe.waits = false;
        if !slot.probe.watched || slot.calls.is_empty() {
            return false;
        }
        let next_ns = (slot.probe.sent_ns + WATCH_EVERY_NS).max(slot.probe.not_before_ns);
        if next_ns > self.now_ns {
            self.conn_timers.set(slot.conn.0, next_ns);
        } else {
            self.probe(upstream);
        }
        true
    }

    /// The server has answered.
    pub(super) fn ponged(&mut self, upstream: u32) {
        self.upstreams[upstream as usize].probe.waits = false;
    }

    fn server_is_silent(&mut self, upstream: u32) {
        self.counters.silent_servers += 1;
        self.fail_upstream_calls(upstream);
        self.remove_upstream(upstream, true);
    }
}
