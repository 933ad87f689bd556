//! Whether a server that says nothing still lives.
//!
//! PING ends at each hop, so that a client's own keep-alive only proves that the agent lives. The kernel sees to hosts that
//! are gone (`socket`); a PING sees to a server that hangs. It is sent when the client itself asks, and for the streams of an
//! endpoint that was removed, and rarely: gRPC servers end the connection of a client that asks too often (gRFC A8), with all
//! the calls on it. Their rule, in each implementation: a PING is a strike if it comes within five minutes of the last one,
//! the third strike is too many, and HEADERS or DATA that the server sends in between forgive all.

use super::call::Stage;
use super::downstream::PERIOD_NS;
use super::engine::Engine;
use super::upstream::Phase;

/// Between two PINGs on a connection whose server speaks, where clients ask for them.
pub(super) const EVERY_NS: u64 = 60_000_000_000;
/// Between two while the server says nothing: the five minutes, and what the way there may take from them.
const QUIET_EVERY_NS: u64 = 310_000_000_000;
/// The most that a server's `too_many_pings` makes of it.
const MOST_EVERY_NS: u64 = 3_600_000_000_000;
/// A server that has said nothing for so long after a PING is gone: gRPC's own keep-alive timeout.
const ANSWER_WITHIN_NS: u64 = 20_000_000_000;
/// A removed endpoint is asked once more after this: many a server that is told to end still answers at first.
const AGAIN_NS: u64 = 5_000_000_000;
/// Strikes that are risked, for an endpoint's removal alone: gRPC servers put up with two.
const MAX_STRIKES: u8 = 2;

const PAYLOAD: [u8; 8] = *b"are you?";

/// What a connection knows of its probes.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// When the last PING went out.
    sent_ns: Option<u64>,
    /// It is not answered yet.
    waits: bool,
    /// The server has sent HEADERS or DATA since it answered: it has forgotten what came before.
    has_spoken: bool,
    /// PINGs that came too early, as the server counts.
    strikes: u8,
    /// The endpoint was removed.
    watched: bool,
    /// And is to be asked once more soon.
    asks_again: bool,
}

impl Probe {
    /// HEADERS or DATA have come.
    pub(super) fn server_spoke(&mut self) {
        self.has_spoken |= !self.waits;
    }

    /// Whether a PING that is sent now is a strike against us.
    fn is_strike(&self, now_ns: u64) -> bool {
        !self.has_spoken && self.sent_ns.is_some_and(|sent_ns| now_ns < sent_ns + QUIET_EVERY_NS)
    }

    /// The earliest time for the next PING that nobody minds.
    fn next_ns(&self, every_ns: u64) -> u64 {
        let every_ns = if self.has_spoken { every_ns } else { every_ns.max(QUIET_EVERY_NS) };
        self.sent_ns.map_or(0, |sent_ns| sent_ns + every_ns)
    }
}

impl Engine {
    /// The client wants to know whether its calls' other end lives.
    pub(super) fn client_pinged(&mut self, downstream: u32) {
        let slot = &mut self.downstreams[downstream as usize];
        // gRPC clients measure bandwidth with a PING a round trip: not each of them is worth a look at every call.
        if self.now_ns < slot.ask_again_ns {
            return;
        }
        slot.ask_again_ns = self.now_ns + PERIOD_NS;
        for position in 0..self.downstreams[downstream as usize].calls.len() {
            let call = self.downstreams[downstream as usize].calls[position];
            if let Stage::Open { upstream, .. } = self.calls[call].stage {
                self.probe(upstream, false);
            }
        }
    }

    /// The endpoint was removed: its streams may end in their own time, as long as it lives.
    pub(super) fn watch(&mut self, upstream: u32) {
        let Some(slot) = self.upstreams.get_mut(upstream as usize) else { return };
        slot.probe.watched = true;
        slot.probe.asks_again = true;
        self.probe(upstream, true);
        let slot = &self.upstreams[upstream as usize];
        if !slot.probe.waits && !slot.calls.is_empty() {
            let at = slot.probe.next_ns(self.pools[slot.pool as usize].probe_every_ns);
            self.conn_timers.set(slot.conn.0, at.max(self.now_ns));
        }
    }

    /// Sends a PING if its time has come; where it is urgent, also at the price of a strike.
    fn probe(&mut self, upstream: u32, is_urgent: bool) {
        let slot = &mut self.upstreams[upstream as usize];
        let is_in_use = matches!(slot.phase, Phase::Ready | Phase::Retiring) && !slot.calls.is_empty();
        if !is_in_use || slot.probe.waits {
            return;
        }
        let every_ns = self.pools[slot.pool as usize].probe_every_ns;
        let is_strike = slot.probe.is_strike(self.now_ns);
        // A server that has complained once has limits of its own.
        let may_be_early =
            is_urgent && every_ns == EVERY_NS && !(is_strike && slot.probe.strikes == MAX_STRIKES);
        if self.now_ns < slot.probe.next_ns(every_ns) && !may_be_early {
            return;
        }
        let strikes = if slot.probe.has_spoken { 0 } else { slot.probe.strikes + u8::from(is_strike) };
        slot.probe =
            Probe { sent_ns: Some(self.now_ns), waits: true, has_spoken: false, strikes, ..slot.probe };
        slot.http2.ping(PAYLOAD);
        self.conn_timers.set(slot.conn.0, self.now_ns + ANSWER_WITHIN_NS);
        self.conns.touch(slot.conn);
    }

    /// The server says that it was asked too often (`too_many_pings`), perhaps.
    pub(super) fn probe_less(&mut self, upstream: u32) {
        let slot = &self.upstreams[upstream as usize];
        if slot.probe.sent_ns.is_some() {
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
        if slot.probe.waits && slot.probe.sent_ns.is_some_and(|sent_ns| slot.heard_ns <= sent_ns) {
            self.server_is_silent(upstream);
            return true;
        }
        slot.probe.waits = false;
        if !slot.probe.watched || slot.calls.is_empty() {
            return false;
        }
        let asks_again = std::mem::take(&mut slot.probe.asks_again);
        self.probe(upstream, asks_again);
        let slot = &self.upstreams[upstream as usize];
        if !slot.probe.waits {
            let at = slot.probe.next_ns(self.pools[slot.pool as usize].probe_every_ns);
            self.conn_timers.set(slot.conn.0, at);
        }
        true
    }

    /// The server has answered a PING.
    pub(super) fn ponged(&mut self, upstream: u32, payload: [u8; 8]) {
        let slot = &mut self.upstreams[upstream as usize];
        if payload != PAYLOAD || !slot.probe.waits {
            return;
        }
        slot.probe.waits = false;
        let is_in_use = matches!(slot.phase, Phase::Ready | Phase::Retiring) && !slot.calls.is_empty();
        if slot.probe.asks_again
            && is_in_use
            && let Some(sent_ns) = slot.probe.sent_ns
        {
            self.conn_timers.set(slot.conn.0, sent_ns + AGAIN_NS);
        }
    }

    fn server_is_silent(&mut self, upstream: u32) {
        self.counters.silent_servers += 1;
        self.fail_upstream_calls(upstream);
        self.remove_upstream(upstream, true);
    }
}
