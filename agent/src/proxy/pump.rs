//! Bodies and trailers, both ways.
//!
//! A peer gets credit for what it sent when that has gone on to the other side's output, and not before: a call never holds
//! more than the slower side's window. A connection's own credit is the HTTP/2 layer's business, so that no stalled call
//! stalls its neighbours.

use super::PAUSE_READING_BYTES;
use super::budget::Level;
use super::call::{self, Call, REPLAY_LIMIT_BYTES, Response, Stage};
use super::conns::Conns;
use super::downstream::Downstream;
use super::engine::Engine;
use super::error_reply::{Cause, Oversized};
use super::finish;
use super::measure;
use crate::balance::latency::{self, Sample};
use crate::http2::Name;
use crate::telemetry::is_http_failure;
use slab::Slab;
use std::mem;

impl Engine {
    // ---- client to server

    pub(super) fn request_data(&mut self, call: u32, payload: &[u8], end_stream: bool) {
        let Some(slot) = self.calls.find(call) else { return };
        slot.request_ended |= end_stream;
        slot.measured.request_bytes += payload.len() as u64;
        if slot.is_grpc {
            slot.measured.request_messages.take(payload);
        }
        if slot.response != Response::Complete && slot.hold(payload) {
            self.charge_call(call);
        }
        let slot = &mut self.calls[call];
        let Stage::Open { upstream, stream } = slot.stage else {
            let waits =
                matches!(slot.stage, Stage::AwaitingEndpoint | Stage::AwaitingStream | Stage::BackingOff);
            if waits && self.level_of_call(call) >= Level::Full {
                self.fail_for_memory(call);
            }
            return;
        };
        if payload.is_empty() && !end_stream {
            return;
        }
        let connection = &mut self.upstreams[upstream as usize];
        let conn = connection.conn;
        let sent = connection.http2.send_data(stream, payload, end_stream);
        let queued = payload.len() - sent;
        let has_window = queued == 0 || connection.http2.has_window(stream);
        self.conns.touch(conn);
        credit_client(slot, &mut self.downstreams, &mut self.conns, sent);
        if self.has_no_room(call, conn, queued, has_window, end_stream) {
            return;
        }
        if end_stream {
            self.check_done(call);
        }
    }

    /// The trailers are in the engine's field list.
    pub(super) fn request_trailers(&mut self, call: u32) {
        let Some(slot) = self.calls.find(call) else { return };
        slot.request_ended = true;
        if self.has_no_room_for_list(call, true) {
            return;
        }
        let slot = &mut self.calls[call];
        if let Stage::Open { upstream, stream } = slot.stage {
            let connection = &mut self.upstreams[upstream as usize];
            let conn = connection.conn;
            connection.http2.send_trailers(stream, &self.fields);
            self.conns.touch(conn);
            self.charge_list(conn);
        }
        let slot = &mut self.calls[call];
        if slot.replayable && slot.response == Response::Nothing {
            let mut trailers = Box::default();
            call::take_list(&mut self.fields, &mut trailers);
            slot.trailers = Some(trailers);
            self.charge_call(call);
        }
        if matches!(self.calls[call].stage, Stage::Open { .. }) {
            self.check_done(call);
        }
    }

    /// Sends what is held of the request over the stream that was just opened.
    pub(super) fn send_held(&mut self, call: u32) {
        let slot = &mut self.calls[call];
        let Stage::Open { upstream, stream } = slot.stage else { return };
        let http2 = &mut self.upstreams[upstream as usize].http2;
        let ends = slot.request_ended && slot.trailers.is_none();
        if !slot.body.is_empty() || ends {
            let sent = http2.send_data(stream, &slot.body, ends);
            credit_client(slot, &mut self.downstreams, &mut self.conns, sent);
        }
        if let Some(trailers) = &slot.trailers {
            http2.send_trailers(stream, trailers);
        }
        if slot.body.len() > REPLAY_LIMIT_BYTES {
            slot.drop_replay();
            self.charge_call(call);
        }
    }

    /// Windows have opened, or output has gone: queued requests move on.
    pub(super) fn advance_requests(&mut self, upstream: u32) {
        let mut progress = mem::take(&mut self.progress);
        self.upstreams[upstream as usize].http2.advance(&mut progress);
        for step in progress.drain(..) {
            let Some(slot) = self.calls.find(step.token) else { continue };
            credit_client(slot, &mut self.downstreams, &mut self.conns, step.bytes as usize);
            if step.finished {
                self.check_done(step.token);
            }
        }
        self.progress = progress;
    }

    // ---- server to client

    /// The fields are in the engine's field list.
    pub(super) fn informational_headers(&mut self, call: u32) {
        if self.calls.find(call).is_none() {
            return;
        }
        let is_used_up = self.level_of_call(call) == Level::UsedUp;
        let slot = &self.calls[call];
        let client = &mut self.downstreams[slot.downstream as usize];
        // There may be any number of them, and no window bounds them; the answer stands without.
        let is_too_large = self.fields.size() > client.http2.peer_max_header_list() as usize;
        if client.http2.output().len() > PAUSE_READING_BYTES || is_too_large || is_used_up {
            return;
        }
        let conn = client.conn;
        client.http2.send_headers(slot.stream, &self.fields, false);
        self.conns.touch(conn);
        self.charge_list(conn);
    }

    /// The fields are in the engine's field list.
    pub(super) fn response_headers(&mut self, call: u32, end_stream: bool) {
        if self.is_too_large_for_client(call) {
            return;
        }
        if end_stream && self.retries_after_status(call) {
            return;
        }
        if self.calls.find(call).is_none() || self.has_no_room_for_list(call, end_stream) {
            return;
        }
        let slot = &mut self.calls[call];
        slot.response = Response::Headers;
        slot.measured.headers_ns = self.now_ns;
        slot.measured.http_status = measure::http_status(self.fields.find(Name::Status));
        if slot.drop_replay() {
            self.charge_call(call);
        }
        let slot = &mut self.calls[call];
        // An answer that is nothing but a failure is no sample of the latency: it is charged where the call ends.
        let fails = end_stream && finish::is_failure(&self.fields, slot.is_grpc);
        if let Some(server) = slot.server.as_ref().filter(|_| slot.in_load && !fails) {
            latency::observe(&server.load, self.now_ns, self.now_ns - slot.sent_ns, Sample::Response);
        }
        let client = &mut self.downstreams[slot.downstream as usize];
        let conn = client.conn;
        client.http2.send_headers(slot.stream, &self.fields, end_stream);
        self.conns.touch(conn);
        if slot.is_grpc {
            slot.response_is_sized = self.fields.find(Name::ContentLength).is_some();
        } else {
            slot.server_failed = is_http_failure(slot.measured.http_status);
        }
        self.charge_list(conn);
        if end_stream {
            self.response_complete(call);
        }
    }

    /// The header list is larger than the client takes (RFC 9113 §6.5.2), and the call has failed with it.
    fn is_too_large_for_client(&mut self, call: u32) -> bool {
        let Some(slot) = self.calls.find(call) else { return true };
        let limit = self.downstreams[slot.downstream as usize].http2.peer_max_header_list();
        if self.fields.size() <= limit as usize {
            return false;
        }
        let by = self.server_address(call);
        self.fail(call, Cause::TooLarge(Oversized::ResponseForClient { by, limit }));
        true
    }

    pub(super) fn response_data(&mut self, call: u32, payload: &[u8], end_stream: bool) {
        let Some(slot) = self.calls.find(call) else { return };
        let Stage::Open { upstream, stream } = slot.stage else { return };
        if payload.is_empty() && !end_stream {
            return;
        }
        slot.measured.response_bytes += payload.len() as u64;
        if slot.is_grpc {
            slot.measured.response_messages.take(payload);
        }
        let client = &mut self.downstreams[slot.downstream as usize];
        let conn = client.conn;
        let sent = client.http2.send_data(slot.stream, payload, end_stream);
        let queued = payload.len() - sent;
        let has_window = queued == 0 || client.http2.has_window(slot.stream);
        self.conns.touch(conn);
        if sent > 0 {
            self.upstreams[upstream as usize].http2.grant(stream, sent as u32);
        }
        if self.has_no_room(call, conn, queued, has_window, end_stream) {
            return;
        }
        if end_stream {
            self.fields.clear();
            self.response_complete(call);
        }
    }

    /// The fields are in the engine's field list.
    pub(super) fn response_trailers(&mut self, call: u32) {
        if self.is_too_large_for_client(call) {
            return;
        }
        if self.has_no_room_for_list(call, true) {
            return;
        }
        let slot = &self.calls[call];
        let client = &mut self.downstreams[slot.downstream as usize];
        let conn = client.conn;
        client.http2.send_trailers(slot.stream, &self.fields);
        self.conns.touch(conn);
        self.charge_list(conn);
        self.response_complete(call);
    }

    /// Windows have opened, or output has gone: queued responses move on.
    pub(super) fn advance_responses(&mut self, downstream: u32) {
        let mut progress = mem::take(&mut self.progress);
        self.downstreams[downstream as usize].http2.advance(&mut progress);
        for step in progress.drain(..) {
            let Some(slot) = self.calls.find(step.token) else { continue };
            if let Stage::Open { upstream, stream } = slot.stage {
                let server = &mut self.upstreams[upstream as usize];
                server.http2.grant(stream, step.bytes);
                self.conns.touch(server.conn);
            }
            if step.finished {
                self.check_done(step.token);
            }
        }
        self.progress = progress;
    }
}

/// Gives the client credit for body bytes that went on. What is sent a second time was paid for the first time.
fn credit_client(call: &mut Call, downstreams: &mut Slab<Downstream>, conns: &mut Conns, sent: usize) {
    call.request_sent += sent as u64;
    let due = call.request_sent.saturating_sub(call.request_granted);
    if due > 0 {
        call.request_granted = call.request_sent;
        let client = &mut downstreams[call.downstream as usize];
        client.http2.grant(call.stream, due as u32);
        conns.touch(client.conn);
    }
}
