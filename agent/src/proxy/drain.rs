//! The agent's end: clients are sent away, calls end by themselves, and at the deadline with an answer.
//!
//! Per connection as RFC 9113 §6.8 asks: a GOAWAY that lets every stream through and a PING; when that is answered, the
//! client has seen it, and a second GOAWAY names the last stream. The first are spread over time, so that the clients do not
//! all come back in the same moment.

use super::downstream::Phase;
use super::engine::Engine;
use super::error_reply::Cause;
use crate::http2::{ErrorCode, LastStream};
use crate::telemetry::Flag;

/// The GOAWAYs are spread over this much of the time that there is.
const SPREAD_SHARE: u64 = 4;
/// And over no more than this: kubelet's grace period is 30 s by default.
const MAX_SPREAD_NS: u64 = 5_000_000_000;
/// A client that does not answer the PING in this time gets the second GOAWAY all the same: to the streams that it opens meanwhile,
/// not knowing of the first, that is a refusal. Half of the drain's time is the most.
const PONG_WAIT_NS: u64 = 10_000_000_000;

const PING: [u8; 8] = *b"evenkeel";

/// Behind the deadline, how often those are looked for that have connected or called meanwhile.
const END_EVERY_NS: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct Drain {
    deadline_ns: u64,
    /// When all that is open ends, for the first time or again.
    end_ns: u64,
}

impl Drain {
    /// Whether what is open has to end now.
    pub(super) fn is_to_end(&mut self, now_ns: u64) -> bool {
        let is_due = now_ns >= self.end_ns;
        if is_due {
            self.end_ns = now_ns + END_EVERY_NS;
        }
        is_due
    }
}

impl Engine {
    /// Starts to send clients away. At `deadline_ns` what is still open ends.
    pub fn drain(&mut self, deadline_ns: u64) {
        let time = deadline_ns.saturating_sub(self.now_ns);
        self.drain = Some(Drain { deadline_ns, end_ns: deadline_ns });
        let spread = (time / SPREAD_SHARE).clamp(1, MAX_SPREAD_NS);
        for (_, downstream) in &self.downstreams {
            if downstream.phase == Phase::Serving {
                let at = self.now_ns + self.random.below(spread as usize) as u64;
                self.conn_timers.set(downstream.conn.0, at);
            }
        }
    }

    /// Whether no client is connected any more.
    pub fn is_drained(&self) -> bool {
        self.drain.is_some() && self.client_connections() == 0
    }

    pub(super) fn announce_end(&mut self, downstream: u32) {
        let slot = &mut self.downstreams[downstream as usize];
        slot.phase = Phase::Announced;
        slot.http2.go_away(ErrorCode::NoError, LastStream::Max);
        slot.http2.ping(PING);
        let left = self.drain.as_ref().map_or(0, |drain| drain.deadline_ns.saturating_sub(self.now_ns));
        self.conn_timers.set(slot.conn.0, self.now_ns + PONG_WAIT_NS.min(left / 2));
        self.conns.touch(slot.conn);
    }

    /// A client has answered a PING.
    pub(super) fn client_ponged(&mut self, downstream: u32, payload: [u8; 8]) {
        if payload == PING {
            self.end_announced(downstream);
        }
    }

    pub(super) fn end_announced(&mut self, downstream: u32) {
        if self.downstreams[downstream as usize].phase == Phase::Announced {
            self.send_client_away(downstream, LastStream::Seen);
        }
    }

    /// Tells the client to open no further stream here; the connection closes after its last call.
    pub(super) fn send_client_away(&mut self, downstream: u32, last_stream: LastStream) {
        let slot = &mut self.downstreams[downstream as usize];
        if slot.phase < Phase::LastCalls {
            slot.phase = Phase::LastCalls;
            slot.http2.go_away(ErrorCode::NoError, last_stream);
            self.conn_timers.clear(slot.conn.0);
        }
        self.conns.touch(slot.conn);
    }

    /// The last call has ended, but not all of its answer is at the socket. The client gets until the drain's deadline, and beyond
    /// it a moment for as long as it reads.
    pub(super) fn await_last_read(&mut self, downstream: u32) {
        let deadline_ns = self.drain.as_ref().map_or(0, |drain| drain.deadline_ns);
        let unread_bytes = self.unread_bytes(downstream);
        let slot = &mut self.downstreams[downstream as usize];
        slot.unread_bytes = unread_bytes;
        self.conn_timers.set(slot.conn.0, self.now_ns.max(deadline_ns) + super::LINGER_NS);
    }

    /// What is left of the client's last answers: at the output, and in the streams, where it waits for a window or for the output.
    fn unread_bytes(&self, downstream: u32) -> usize {
        let slot = &self.downstreams[downstream as usize];
        let queued = slot.calls.iter().map(|call| slot.http2.queued(self.calls[*call].stream));
        slot.http2.output().len() + queued.sum::<usize>()
    }

    pub(super) fn last_calls_timer_fired(&mut self, downstream: u32) {
        if self.unread_bytes(downstream) < self.downstreams[downstream as usize].unread_bytes {
            self.await_last_read(downstream);
        } else {
            self.cut_off(downstream);
        }
    }

    /// Ends the streams of answers that the client does not read, each for itself: the connection's plain end would look
    /// like an answer's.
    fn cut_off(&mut self, downstream: u32) {
        if self.downstreams[downstream as usize].calls.is_empty() {
            self.counters.cut_off += 1;
        }
        for call in self.downstreams[downstream as usize].calls.clone() {
            self.counters.cut_off += 1;
            self.cut_call(call, ErrorCode::InternalError, Flag::ClientStalled);
        }
        self.close_downstream(downstream);
    }

    /// Ends a call whose client does not read the answer.
    pub(super) fn cut_call(&mut self, call: u32, code: ErrorCode, why: Flag) {
        let slot = &mut self.calls[call];
        let client = &mut self.downstreams[slot.downstream as usize].http2;
        let misses_a_part = client.queued(slot.stream) > 0;
        client.reset(slot.stream, code);
        self.cancel_reset(call, code, why, misses_a_part);
    }

    /// Ends a call whose stream to the client is reset. A client that does not have all of the answer goes by the reset's code, whatever
    /// status was on its way.
    pub(super) fn cancel_reset(&mut self, call: u32, code: ErrorCode, why: Flag, misses_a_part: bool) {
        let slot = &mut self.calls[call];
        if misses_a_part || !slot.has_been_answered() {
            if slot.measured.flag == Flag::None {
                slot.measured.flag = why;
            }
            slot.note_reset(code);
        }
        self.cancel(call, ErrorCode::Cancel, why);
    }

    pub(super) fn drain_is_over(&mut self) {
        let downstreams: Vec<u32> = self.downstreams.iter().map(|(index, _)| index as u32).collect();
        for downstream in downstreams {
            for call in self.downstreams[downstream as usize].calls.clone() {
                self.fail(call, Cause::Draining);
            }
            // What is left are answers that wait for the client to read: for a moment, and then they are cut off.
            self.send_client_away(downstream, LastStream::Seen);
            let slot = &self.downstreams[downstream as usize];
            if slot.phase == Phase::LastCalls && !self.conn_timers.is_set(slot.conn.0) {
                self.await_last_read(downstream);
            }
        }
        let tunnels: Vec<u32> = self.tunnels.iter().map(|(index, _)| index as u32).collect();
        for tunnel in tunnels {
            self.end_tunnel(tunnel, true);
        }
        let sniffing: Vec<u32> = self.sniffing.iter().map(|(index, _)| index as u32).collect();
        for sniffing in sniffing {
            self.drop_sniffing(sniffing);
        }
    }
}
