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
/// After its removal an endpoint is asked a second time: one that ends answers the first PING, as a rule, and is gone after
/// that. gRPC servers bear with two PINGs too many.
const WATCH_AGAIN_NS: u64 = 5_000_000_000;
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
    /// The endpoint was removed: at this time it is asked again.
    watch_ns: Option<u64>,
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
            let may_ask_again = self.pools[slot.pool as usize].probe_every_ns == EVERY_NS;
            let again = if may_ask_again { WATCH_AGAIN_NS } else { WATCH_EVERY_NS };
            slot.probe.watch_ns = Some(self.now_ns + again);
            self.probe(upstream);
            self.await_next_watch(upstream);
        }
    }

    /// Sets the connection's timer to what comes first: the time for an answer, or for the next question to a removed endpoint.
    fn await_next_watch(&mut self, upstream: u32) {
        let slot = &self.upstreams[upstream as usize];
        if slot.calls.is_empty() {
            return;
        }
        let answer = slot.probe.waits.then_some(slot.probe.sent_ns + ANSWER_WITHIN_NS);
        if let Some(at) = slot.probe.watch_ns.into_iter().chain(answer).min() {
            self.conn_timers.set(slot.conn.0, at);
        }
    }

    fn probe(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        if slot.probe.waits || self.now_ns < slot.probe.not_before_ns {
            return;
        }
        self.ask(upstream);
    }

    fn ask(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        if !matches!(slot.phase, Phase::Ready | Phase::Retiring) || slot.calls.is_empty() {
            return;
        }
        let every = self.pools[slot.pool as usize].probe_every_ns;
        slot.probe.sent_ns = self.now_ns;
        slot.probe.waits = true;
        slot.probe.not_before_ns = self.now_ns + every;
        slot.http2.ping(PAYLOAD);
        let conn = slot.conn;
        self.conn_timers.set(conn.0, self.now_ns + ANSWER_WITHIN_NS);
        self.await_next_watch(upstream);
        self.conns.touch(conn);
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
        if slot.heard_ns > slot.probe.sent_ns {
            slot.probe.waits = false;
        }
        if slot.probe.waits && self.now_ns >= slot.probe.sent_ns + ANSWER_WITHIN_NS {
            self.server_is_silent(upstream);
            return true;
        }
        if slot.probe.watch_ns.is_none() || slot.calls.is_empty() {
            return false;
        }
        if slot.probe.watch_ns.is_some_and(|at| at <= self.now_ns) {
            let every = self.pools[slot.pool as usize].probe_every_ns.max(WATCH_EVERY_NS);
            slot.probe.watch_ns = Some(self.now_ns + every);
            // One that has not answered is waited for.
            if !slot.probe.waits {
                self.ask(upstream);
            }
        }
        self.await_next_watch(upstream);
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
