//! A client's connection: accept, sniff, and the requests that come over it.
//!
//! The first bytes decide: HTTP/2's preface leads to calls, anything else, and silence, to a [`super::tunnel`]. A request goes
//! on to [`super::dispatch`].

use super::budget::Level;
use super::call::{self, Stage};
use super::conns::{ConnId, Role};
use super::engine::{Action, Engine};
use super::error_reply::{Cause, Oversized};
use crate::balance::PickerState;
use crate::http2::{
    Connection, ConnectionError, ErrorCode, Event, Flood, HeadersKind, LastStream, Name, PREFACE, StreamKey,
};
use crate::telemetry::Flag;
use std::mem;

/// A client that says nothing for so long may be one that waits for the server to speak first. Such protocols are slowed
/// down by this once a connection; an HTTP/2 client speaks at once.
const SILENCE_NS: u64 = 1_000_000_000;

/// A client that has not acknowledged our SETTINGS by then never will (RFC 9113 §6.5.3).
const SETTINGS_TIMEOUT_NS: u64 = 30_000_000_000;

/// What the HTTP/2 layer lets a peer do in a period, it may do anew after this.
pub(super) const PERIOD_NS: u64 = 1_000_000_000;

/// A connection whose protocol is not known yet.
#[derive(Debug)]
pub(super) struct Sniffing {
    conn: ConnId,
    pub(super) target: u32,
    /// Bytes received so far: they are the preface's first.
    matched: usize,
}

/// How far the end of a client's connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// The GOAWAY that lets every stream through is out; the second follows when its PING is answered.
    Announced,
    /// The second GOAWAY is out: closes when its calls have ended and the client has read their answers.
    LastCalls,
    /// Closes when its output is written.
    Closing,
    /// Everything is written; waits for the client's end, so that no TCP reset overtakes what it has not read.
    Lingering,
}

#[derive(Debug)]
pub(super) struct Downstream {
    pub(super) conn: ConnId,
    pub(super) target: u32,
    pub(super) http2: Connection,
    pub(super) calls: Vec<u32>,
    /// A call has begun on it.
    has_carried: bool,
    pub(super) phase: Phase,
    /// Of its own: of two clients in step with each other, a shared turn would give one all the calls to an endpoint.
    pub(super) picker: PickerState,
    period_began_ns: u64,
    /// PINGs of the client that were acted on.
    pings_seen: u32,
    /// When the next one may have its calls' servers asked.
    pub(super) ask_again_ns: u64,
    /// Of the last answers, what was still to be written when its timer was set.
    pub(super) unread_bytes: usize,
}

impl Downstream {
    pub(super) fn wants_settling(&self) -> bool {
        self.http2.wants_advance() || matches!(self.phase, Phase::LastCalls | Phase::Closing)
    }

    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() - size_of::<Connection>()
            + self.http2.held_bytes()
            + self.calls.capacity() * size_of::<u32>()
    }
}

impl Engine {
    // ---- sniffing

    pub(super) fn start_sniffing(&mut self, target: u32) -> ConnId {
        let entry = self.sniffing.vacant_entry();
        let budget = self.targets.slots[target as usize].budget;
        let conn = self.conns.insert(Role::Sniffing(entry.key() as u32), budget, self.now_ns);
        entry.insert(Sniffing { conn, target, matched: 0 });
        self.conn_timers.set(conn.0, self.now_ns + SILENCE_NS);
        conn
    }

    pub(super) fn sniff(&mut self, sniffing: u32, input: &[u8]) {
        let slot = &mut self.sniffing[sniffing as usize];
        let wanted = &PREFACE[slot.matched..];
        let common = wanted.len().min(input.len());
        if wanted[..common] != input[..common] {
            if let Some(tunnel) = self.start_tunnel(sniffing) {
                self.receive_tunnel(tunnel, true, input);
            }
            return;
        }
        if common < wanted.len() {
            slot.matched += common;
            return;
        }
        let before = slot.matched;
        let downstream = self.start_http2(sniffing);
        if before == 0 {
            self.receive_downstream(downstream, input);
        } else {
            // The preface came in pieces, which no client does by intention.
            self.receive_downstream(downstream, &[&PREFACE[..before], input].concat());
        }
    }

    pub(super) fn sniffing_ended(&mut self, sniffing: u32) {
        if let Some(tunnel) = self.start_tunnel(sniffing) {
            self.tunnel_half_ended(tunnel, true);
        }
    }

    /// The client is silent, or has stopped in the middle of the preface.
    pub(super) fn relay_silent(&mut self, sniffing: u32) {
        self.start_tunnel(sniffing);
    }

    /// `None`: its source has no memory left for it, and the connection is reset.
    fn start_tunnel(&mut self, sniffing: u32) -> Option<u32> {
        let budget = self.conns.budget(self.sniffing[sniffing as usize].conn);
        if self.budgets.level(budget) == Level::UsedUp {
            self.count_memory_refusal(budget);
            self.drop_sniffing(sniffing);
            return None;
        }
        let Sniffing { conn, target, matched } = self.sniffing.remove(sniffing as usize);
        self.conn_timers.clear(conn.0);
        Some(self.open_tunnel(conn, target, &PREFACE[..matched]))
    }

    pub(super) fn drop_sniffing(&mut self, sniffing: u32) {
        let Sniffing { conn, target, .. } = self.sniffing.remove(sniffing as usize);
        self.leave_target(target);
        self.close(conn, true);
    }

    fn start_http2(&mut self, sniffing: u32) -> u32 {
        let Sniffing { conn, target, .. } = self.sniffing.remove(sniffing as usize);
        self.conn_timers.clear(conn.0);
        let http2 = Connection::server(&self.limits);
        let picker = self.targets.slots[target as usize].origin.picker(&mut self.random);
        let downstream = Downstream {
            conn,
            target,
            http2,
            calls: Vec::new(),
            has_carried: false,
            phase: Phase::Serving,
            picker,
            period_began_ns: self.now_ns,
            pings_seen: 0,
            ask_again_ns: 0,
            unread_bytes: 0,
        };
        self.conn_timers.set(conn.0, self.now_ns + SETTINGS_TIMEOUT_NS);
        let downstream = self.downstreams.insert(downstream) as u32;
        self.conns.set_role(conn, Role::Downstream(downstream));
        if self.drain.is_some() {
            self.announce_end(downstream);
        }
        downstream
    }

    // ---- HTTP/2

    pub(super) fn receive_downstream(&mut self, downstream: u32, mut input: &[u8]) {
        let input_bytes = input.len();
        let slot = &mut self.downstreams[downstream as usize];
        if slot.phase >= Phase::Closing {
            return;
        }
        if self.now_ns - slot.period_began_ns >= PERIOD_NS {
            slot.period_began_ns = self.now_ns;
            slot.http2.begin_period();
        }
        self.conns.touch(slot.conn);
        let conn = slot.conn;
        let thrift = self.thrift_of(conn);
        self.downstreams[downstream as usize].http2.set_thrift(thrift);
        loop {
            let http2 = &mut self.downstreams[downstream as usize].http2;
            match http2.receive(&mut input, &mut self.fields) {
                Ok(Some(event)) => self.client_event(downstream, event),
                Ok(None) => break http2.keep(input),
                Err(error) => {
                    self.count_protocol_error(&error);
                    self.cancel_calls(downstream, Flag::ClientFault);
                    break self.close_downstream(downstream);
                }
            }
        }
        let frames = self.downstreams[downstream as usize].http2.take_frames();
        self.count_work(self.conns.budget(conn), input_bytes, frames);
        self.dispatch_received();
        let slot = &mut self.downstreams[downstream as usize];
        self.counters.client_faults += u64::from(slot.http2.take_faults());
        let pings = slot.http2.pings_received();
        if pings != slot.pings_seen {
            slot.pings_seen = pings;
            self.client_pinged(downstream);
        }
    }

    /// Sends on the calls that began in the input that was just read. What was cancelled in the same input goes nowhere: servers punish
    /// the connection on which many requests are cancelled before they have looked at them, whoever's they are.
    fn dispatch_received(&mut self) {
        let mut received = mem::take(&mut self.received);
        for call in received.drain(..) {
            if self.calls[call].stage != Stage::Received {
                continue;
            }
            self.calls[call].stage = Stage::Answered;
            if self.level_of_call(call) == Level::UsedUp {
                self.fail_for_memory(call);
            } else if self.enter_circuit(call) {
                self.dispatch(call);
            }
        }
        self.received = received;
    }

    fn count_protocol_error(&mut self, error: &ConnectionError) {
        tracing::debug!(%error, "a client's connection ends");
        let counters = &mut self.counters;
        counters.protocol_errors += 1;
        match error.flood {
            Some(Flood::Control) => counters.floods_of_control += 1,
            Some(Flood::Cancels) => counters.floods_of_cancels += 1,
            Some(Flood::Faults) => counters.floods_of_faults += 1,
            Some(Flood::Headers) => counters.floods_of_headers += 1,
            Some(Flood::Unread) => counters.floods_unread += 1,
            None => {}
        }
    }

    fn client_event(&mut self, downstream: u32, event: Event<'_>) {
        match event {
            Event::Data { token, payload, end_stream, .. } => self.request_data(token, payload, end_stream),
            Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                let call = self.begin_call(downstream, stream, end_stream);
                self.calls[call].stage = Stage::Received;
                self.received.push(call);
            }
            Event::Headers { stream, kind: HeadersKind::RequestTooLarge, end_stream, .. } => {
                let call = self.begin_call(downstream, stream, end_stream);
                let limit = self.limits.max_header_list;
                self.answer(call, Cause::TooLarge(Oversized::Request { limit }));
            }
            Event::Headers { stream, kind: HeadersKind::Connect, end_stream, .. } => {
                let call = self.begin_call(downstream, stream, end_stream);
                self.answer(call, Cause::Connect);
            }
            Event::Headers { token, kind: HeadersKind::Trailers, .. } => self.request_trailers(token),
            Event::Reset { token, code, by_peer, .. } => {
                if self.calls.find(token).is_some() {
                    match by_peer {
                        true => self.cancel(token, code, Flag::ClientCancelled),
                        false => self.cancel_reset(token, code, Flag::ClientFault, false),
                    }
                }
            }
            Event::Pong(payload) => self.client_ponged(downstream, payload),
            // The client opens no further stream; those that are open end as ever, and it closes then.
            Event::GoAway { .. } | Event::Settings => {}
            // Events of the client's role.
            Event::Headers { .. } | Event::Refused { .. } => {}
        }
    }

    fn begin_call(&mut self, downstream: u32, stream: StreamKey, end_stream: bool) -> u32 {
        let call = self.calls.insert(stream);
        let connection = &mut self.downstreams[downstream as usize];
        connection.http2.set_token(stream, call);
        let slot = &mut self.calls[call];
        slot.downstream = downstream;
        slot.downstream_position = connection.calls.len() as u32;
        connection.calls.push(call);
        slot.target = connection.target;
        slot.budget = self.conns.budget(connection.conn);
        call::take_list(&mut self.fields, &mut slot.request);
        if let Some(tracer) = &self.tracer {
            slot.trace = tracer.begin(&mut slot.request, || self.random.next());
        }
        slot.request_ended = end_stream;
        slot.arrived_ns = self.now_ns;
        slot.measured.on_existing_connection = mem::replace(&mut connection.has_carried, true);
        slot.read_request();
        if slot.is_grpc
            && let Some((path, hash)) = slot.request.find_hashed(Name::Path)
        {
            let methods = &mut self.targets.slots[connection.target as usize].methods;
            slot.measured.method = methods.intern(path, hash);
        }
        self.counters.calls += 1;
        if slot.timeout_ns.is_some() {
            self.set_call_timer(call);
        }
        self.charge_call(call);
        call
    }

    pub(super) fn cancel_calls(&mut self, downstream: u32, why: Flag) {
        while let Some(&call) = self.downstreams[downstream as usize].calls.last() {
            self.cancel(call, ErrorCode::Cancel, why);
        }
    }

    /// The client's connection is gone, or has to go at once.
    pub(super) fn lose_downstream(&mut self, downstream: u32, reset: bool) {
        self.cancel_calls(downstream, Flag::ClientGone);
        let slot = self.downstreams.remove(downstream as usize);
        self.leave_target(slot.target);
        self.close(slot.conn, reset);
    }

    /// Closes the connection once its output is written. It has no calls any more.
    pub(super) fn close_downstream(&mut self, downstream: u32) {
        let slot = &mut self.downstreams[downstream as usize];
        debug_assert!(slot.calls.is_empty());
        if slot.phase < Phase::Closing {
            slot.phase = Phase::Closing;
            self.conn_timers.set(slot.conn.0, self.now_ns + super::LINGER_NS);
            self.conns.touch(slot.conn);
        }
    }

    pub(super) fn settle_downstream(&mut self, downstream: u32) {
        let thrift = self.thrift_of(self.downstreams[downstream as usize].conn);
        self.downstreams[downstream as usize].http2.set_thrift(thrift);
        if self.downstreams[downstream as usize].http2.wants_advance() {
            self.advance_responses(downstream);
        }
        let slot = &mut self.downstreams[downstream as usize];
        let (conn, output) = (slot.conn, slot.http2.output().len());
        if slot.phase == Phase::LastCalls && slot.calls.is_empty() {
            if output == 0 {
                slot.phase = Phase::Lingering;
                self.conn_timers.set(conn.0, self.now_ns + super::LINGER_NS);
                self.actions.push(Action::ShutdownWrite { conn });
            } else if slot.unread_bytes == 0 {
                self.await_last_read(downstream);
            }
        } else if slot.phase == Phase::Closing && output == 0 {
            slot.phase = Phase::Lingering;
            self.actions.push(Action::ShutdownWrite { conn });
        }
        self.pause_at(conn, output);
    }

    pub(super) fn downstream_timer_fired(&mut self, downstream: u32) {
        match self.downstreams[downstream as usize].phase {
            Phase::Serving if self.drain.is_some() => self.announce_end(downstream),
            Phase::Serving => self.check_settings_ack(downstream),
            Phase::Announced => self.end_announced(downstream),
            Phase::LastCalls => self.last_calls_timer_fired(downstream),
            Phase::Closing => self.lose_downstream(downstream, true),
            Phase::Lingering => self.lose_downstream(downstream, false),
        }
    }

    fn check_settings_ack(&mut self, downstream: u32) {
        let http2 = &mut self.downstreams[downstream as usize].http2;
        if !http2.has_settings_ack() {
            http2.go_away(ErrorCode::SettingsTimeout, LastStream::Seen);
            self.counters.protocol_errors += 1;
            self.counters.settings_timeouts += 1;
            self.cancel_calls(downstream, Flag::ClientFault);
            self.close_downstream(downstream);
        }
    }

    /// Takes a call out of its connection's list.
    pub(super) fn leave_downstream(&mut self, call: u32) {
        let slot = &self.calls[call];
        debug_assert!(slot.stage == Stage::Answered);
        let position = slot.downstream_position as usize;
        let connection = &mut self.downstreams[slot.downstream as usize];
        connection.calls.swap_remove(position);
        if let Some(&moved) = connection.calls.get(position) {
            self.calls[moved].downstream_position = position as u32;
        }
        self.conns.touch(connection.conn);
    }
}
