//! A connection to a server, and the responses that come over it.

use super::call::{Response, Stage};
use super::conns::ConnId;
use super::downstream::PERIOD_NS;
use super::engine::Engine;
use super::error_reply::{Cause, Oversized};
use super::finish::Verdict;
use super::probe::Probe;
use super::shared_use::Circuit;
use crate::http2::{Connection, ConnectionError, ErrorCode, Event, HeadersKind, LastStream};
use crate::telemetry::RetryCause;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// An idle connection is closed after this: before servers and middleboxes do, of which 60 s is the shortest in the field.
const IDLE_NS: u64 = 50_000_000_000;

/// How long a server may take to accept a connection that its kernel has accepted: gRPC's own minimum for a connection
/// attempt.
const GREETING_TIMEOUT_NS: u64 = 20_000_000_000;

/// A connection's life, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// TCP is.
    Connecting,
    /// The server's SETTINGS are to come, without which nobody knows how many streams it takes.
    Greeting,
    Ready,
    /// Takes no further calls, and closes when it has none.
    Retiring,
    /// Closes when its output is written.
    Closing,
}

#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) conn: ConnId,
    pub(super) pool: u32,
    pub(super) http2: Connection,
    pub(super) phase: Phase,
    pub(super) calls: Vec<u32>,
    /// It has taken a call.
    pub(super) has_served: bool,
    /// Bytes written to the socket so far: what was never written was never seen by the server.
    pub(super) sent_total: u64,
    idle_since_ns: u64,
    /// When bytes last came.
    pub(super) heard_ns: u64,
    pub(super) probe: Probe,
    period_began_ns: u64,
    /// In which it counts as a connection.
    circuit: Arc<Circuit>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.circuit.connections.fetch_sub(1, Relaxed);
    }
}

impl Upstream {
    /// A connection that is counted in the circuit already.
    pub(super) fn new(conn: ConnId, pool: u32, http2: Connection, circuit: Arc<Circuit>) -> Self {
        Self {
            conn,
            pool,
            circuit,
            http2,
            phase: Phase::Connecting,
            calls: Vec::new(),
            has_served: false,
            sent_total: 0,
            idle_since_ns: 0,
            heard_ns: 0,
            probe: Probe::default(),
            period_began_ns: 0,
        }
    }

    pub(super) fn output(&self) -> &[u8] {
        if self.phase == Phase::Connecting { &[] } else { self.http2.output() }
    }

    pub(super) fn wants_settling(&self) -> bool {
        self.http2.wants_advance() || self.phase == Phase::Closing
    }

    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() - size_of::<Connection>()
            + self.http2.held_bytes()
            + self.calls.capacity() * size_of::<u32>()
    }

    /// Its end now is as good as a refused connection: no call was lost with it, and to dial at once again would go on
    /// for ever with a server that greets everyone and sends everyone away.
    fn is_refusal(&self) -> bool {
        self.phase < Phase::Ready || (self.phase == Phase::Ready && !self.has_served)
    }
}

impl Engine {
    pub(super) fn upstream_connected(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        if slot.phase != Phase::Connecting {
            return;
        }
        slot.phase = Phase::Greeting;
        self.conn_timers.set(slot.conn.0, self.now_ns + GREETING_TIMEOUT_NS);
        self.conns.touch(slot.conn);
    }

    /// The server's SETTINGS have come, for the first time or again: more calls may fit.
    fn settings_received(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        self.pools_to_serve.push(slot.pool);
        if slot.phase == Phase::Greeting {
            slot.phase = Phase::Ready;
            let pool = &mut self.pools[slot.pool as usize];
            pool.opening -= 1;
            pool.failures = 0;
            pool.back_off_until_ns = 0;
            self.conn_timers.clear(slot.conn.0);
        }
    }

    pub(super) fn receive_upstream(&mut self, upstream: u32, mut input: &[u8]) {
        let input_bytes = input.len();
        let slot = &mut self.upstreams[upstream as usize];
        slot.heard_ns = self.now_ns;
        if self.now_ns - slot.period_began_ns >= PERIOD_NS {
            slot.period_began_ns = self.now_ns;
            slot.http2.begin_period();
        }
        self.conns.touch(slot.conn);
        let conn = slot.conn;
        let thrift = self.thrift_of(conn);
        self.upstreams[upstream as usize].http2.set_thrift(thrift);
        loop {
            let http2 = &mut self.upstreams[upstream as usize].http2;
            match http2.receive(&mut input, &mut self.fields) {
                Ok(Some(event)) => self.server_event(upstream, event),
                Ok(None) => break http2.keep(input),
                Err(error) => return self.upstream_is_broken(upstream, &error),
            }
        }
        let frames = self.upstreams[upstream as usize].http2.take_frames();
        self.count_work(self.conns.budget(conn), input_bytes, frames);
    }

    fn server_event(&mut self, upstream: u32, event: Event<'_>) {
        if matches!(event, Event::Data { .. } | Event::Headers { .. }) {
            self.upstreams[upstream as usize].probe.server_spoke();
        }
        match event {
            Event::Data { token, payload, end_stream, .. } => self.response_data(token, payload, end_stream),
            Event::Headers { token, kind: HeadersKind::Trailers, .. } => self.response_trailers(token),
            Event::Headers { token, kind: HeadersKind::Response, end_stream, .. } => {
                self.response_headers(token, end_stream);
            }
            Event::Headers { token, kind: HeadersKind::Informational, .. } => {
                self.informational_headers(token);
            }
            Event::Reset { token, code, by_peer, .. } => {
                if by_peer {
                    self.counters.resets += 1;
                } else {
                    self.counters.server_faults += 1;
                }
                self.stream_reset(token, code, by_peer);
            }
            Event::Refused { token, .. } => self.stream_refused(token, Verdict::None),
            Event::GoAway { code, .. } => {
                if code == ErrorCode::EnhanceYourCalm {
                    self.probe_less(upstream);
                }
                self.server_leaves(upstream);
            }
            Event::Settings => self.settings_received(upstream),
            Event::Pong(payload) => self.ponged(upstream, payload),
            // Events of the server's role.
            Event::Headers { .. } => {}
        }
    }

    fn server_leaves(&mut self, upstream: u32) {
        let slot = &self.upstreams[upstream as usize];
        let (pool, is_refusal) = (slot.pool, slot.is_refusal());
        self.retire_upstream(upstream);
        if is_refusal {
            self.counters.connect_failures += 1;
            self.endpoint_refused(pool);
        }
    }

    fn stream_reset(&mut self, call: u32, code: ErrorCode, by_peer: bool) {
        if self.calls.find(call).is_none() {
            return;
        }
        if code == ErrorCode::RefusedStream && by_peer {
            // One that goes on refusing has no call under way, and would look idle.
            return self.stream_refused(call, Verdict::Exhausted);
        }
        let by = self.server_address(call);
        self.detach(call);
        if self.calls[call].response == Response::Complete {
            // The server wants no more of the request; its answer stands.
            self.check_done(call);
        } else if by_peer {
            self.answer(call, Cause::Reset { by, code });
        } else if code == ErrorCode::EnhanceYourCalm {
            self.answer(call, Cause::TooLarge(Oversized::Response { by }));
        } else {
            self.answer(call, Cause::Malformed { by });
        }
    }

    /// The server never processed the call.
    fn stream_refused(&mut self, call: u32, verdict: Verdict) {
        if self.calls.find(call).is_none() {
            return;
        }
        let by = self.server_address(call);
        self.detach(call);
        if self.calls[call].response == Response::Complete {
            self.check_done(call);
        } else if self.calls[call].refused_by.is_none() && self.can_retry(call) {
            self.retry(call, verdict, RetryCause::StreamRefused);
        } else {
            self.answer(call, Cause::Reset { by, code: ErrorCode::RefusedStream });
        }
    }

    /// The server breaks the connection's rules: the GOAWAY that says so is written, and the calls are lost.
    fn upstream_is_broken(&mut self, upstream: u32, error: &ConnectionError) {
        let slot = &self.upstreams[upstream as usize];
        let server = self.pools[slot.pool as usize].address;
        tracing::debug!(%error, %server, "a server's connection ends");
        self.counters.server_protocol_errors += 1;
        if slot.is_refusal() {
            // It may be another protocol's server.
            self.counters.connect_failures += 1;
            return self.upstream_refused(upstream);
        }
        self.fail_upstream_calls(upstream);
        self.close_upstream(upstream);
    }

    /// The connection is gone.
    pub(super) fn lose_upstream(&mut self, upstream: u32) {
        if self.upstreams[upstream as usize].is_refusal() {
            self.counters.connect_failures += 1;
            return self.upstream_refused(upstream);
        }
        self.fail_upstream_calls(upstream);
        self.remove_upstream(upstream, false);
    }

    pub(super) fn fail_upstream_calls(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        slot.phase = slot.phase.max(Phase::Retiring);
        let written = slot.sent_total;
        let to = self.pools[slot.pool as usize].address;
        for call in slot.calls.clone() {
            self.detach(call);
            let slot = &self.calls[call];
            if slot.response == Response::Complete {
                self.check_done(call);
            } else if slot.sent_offset >= written && self.can_retry(call) {
                // Not a byte of it was written: as good as a refused connection.
                self.retry(call, Verdict::None, RetryCause::ConnectionLost);
            } else {
                self.answer(call, Cause::Lost { to });
            }
        }
    }

    /// Whether the call can be sent again as if for the first time.
    pub(super) fn can_retry(&self, call: u32) -> bool {
        let slot = &self.calls[call];
        slot.response == Response::Nothing
            && slot.replayable
            && slot.outcome.is_none()
            && !slot.is_out_of_time(self.now_ns)
    }

    /// Once more, on another endpoint if there is one.
    fn retry(&mut self, call: u32, verdict: Verdict, cause: RetryCause) {
        self.leave_endpoint(call, verdict);
        let by = self.server_address(call);
        self.note_retry(call, by, cause);
        let slot = &mut self.calls[call];
        slot.refused_by = Some(by);
        self.dispatch(call);
    }

    /// The call is not at its server any more. If the stream is not over, this resets it.
    pub(super) fn detach(&mut self, call: u32) {
        let slot = &mut self.calls[call];
        let Stage::Open { upstream, stream } = slot.stage else { return };
        slot.stage = Stage::Answered;
        let position = slot.upstream_position as usize;
        let connection = &mut self.upstreams[upstream as usize];
        connection.http2.release(stream);
        connection.calls.swap_remove(position);
        if let Some(&moved) = connection.calls.get(position) {
            self.calls[moved].upstream_position = position as u32;
        }
        self.conns.touch(connection.conn);
        if !self.pools[connection.pool as usize].waiting.is_empty() {
            self.pools_to_serve.push(connection.pool);
        }
    }

    /// The connection that the call is open on.
    pub(super) fn conn_of_server(&self, call: u32) -> Option<ConnId> {
        let Stage::Open { upstream, .. } = self.calls[call].stage else { return None };
        Some(self.upstreams[upstream as usize].conn)
    }

    pub(super) fn server_address(&self, call: u32) -> std::net::SocketAddr {
        self.pools[self.calls[call].pool as usize].address
    }

    pub(super) fn settle_upstream(&mut self, upstream: u32) {
        let thrift = self.thrift_of(self.upstreams[upstream as usize].conn);
        self.upstreams[upstream as usize].http2.set_thrift(thrift);
        if self.upstreams[upstream as usize].http2.wants_advance() {
            self.advance_requests(upstream);
        }
        let slot = &mut self.upstreams[upstream as usize];
        let (conn, output) = (slot.conn, slot.http2.output().len());
        match slot.phase {
            Phase::Ready if slot.calls.is_empty() => {
                slot.idle_since_ns = self.now_ns;
                if !self.conn_timers.is_set(conn.0) {
                    self.conn_timers.set(conn.0, self.now_ns + IDLE_NS);
                }
            }
            Phase::Retiring if slot.calls.is_empty() => return self.close_upstream(upstream),
            Phase::Closing if output == 0 => return self.remove_upstream(upstream, false),
            _ => {}
        }
        self.pause_at(conn, output);
    }

    /// Says goodbye and closes once that is written.
    fn close_upstream(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        if slot.phase == Phase::Closing {
            return;
        }
        slot.phase = Phase::Closing;
        slot.http2.go_away(ErrorCode::NoError, LastStream::Seen);
        self.conn_timers.set(slot.conn.0, self.now_ns + super::LINGER_NS);
        self.conns.touch(slot.conn);
    }

    pub(super) fn upstream_timer_fired(&mut self, upstream: u32) {
        if self.probe_timer_fired(upstream) {
            return;
        }
        let slot = &self.upstreams[upstream as usize];
        match slot.phase {
            Phase::Connecting | Phase::Greeting => {
                self.counters.connect_failures += 1;
                self.upstream_refused(upstream);
            }
            Phase::Ready if slot.calls.is_empty() => {
                let idle_until = slot.idle_since_ns + IDLE_NS;
                if idle_until <= self.now_ns {
                    self.close_upstream(upstream);
                } else {
                    self.conn_timers.set(slot.conn.0, idle_until);
                }
            }
            Phase::Ready | Phase::Retiring => {}
            Phase::Closing => self.remove_upstream(upstream, true),
        }
    }
}
