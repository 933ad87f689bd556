//! A call's life.
//!
//! ```text
//! client's HEADERS → Received → AwaitingEndpoint ─┐            ┌→ retry (→ BackingOff) → AwaitingEndpoint, AwaitingStream
//!                             → AwaitingStream ───┴→ Open ─────┤
//!                                                              └→ Answered → gone
//! ```
//!
//! [`super::dispatch`] takes it to `Open`, [`super::upstream`] and [`super::pump`] move it on, [`super::finish`] counts its
//! end. Slots are used again with the buffers in them: a call costs no allocation once the worker is warm.

use super::error_reply::{self, Cause};
use super::finish::Verdict;
use super::measure::{GrpcStatus, Measured};
use crate::http2::{ErrorCode, Field, FieldList, Name, StreamKey};
use crate::mesh::Endpoint;
use crate::telemetry::{CallTrace, RetryCause, path_alone};
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// How much of a request's body is held so that it can be sent again (gRFC A6: a bounded buffer).
pub(super) const REPLAY_LIMIT_BYTES: usize = 64 << 10;

/// A slot keeps a body buffer of up to this size for its next call.
const KEPT_BODY_BYTES: usize = 4 << 10;
/// And a header list of up to this size.
const KEPT_FIELDS_BYTES: usize = 4 << 10;

/// Free slots that keep their buffers: more calls than that have only come in a burst.
const SLOTS_WITH_BUFFERS: usize = 1_024;

/// Endpoints that a call is tried on when connections are refused.
pub(super) const MAX_ENDPOINTS: usize = 3;

/// Where a call stands on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The slot holds no call.
    Free,
    /// The input that it came in is still being read.
    Received,
    /// For an endpoint of the Service.
    AwaitingEndpoint,
    /// For a stream on one of its pool's connections.
    AwaitingStream,
    /// For the time to be sent again.
    BackingOff,
    /// On a connection to a server.
    Open { upstream: u32, stream: StreamKey },
    /// The server's part is over; the answer may still be on its way to the client.
    Answered,
}

/// What the client has got so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Response {
    Nothing,
    /// Final response headers.
    Headers,
    /// The end of the response, at least to the stream's queue.
    Complete,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A server answered in full, and what that says about it.
    Answered(Verdict),
    /// The agent gave its own answer.
    OwnError(Cause),
    /// The client reset the stream or went away.
    Cancelled,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) stage: Stage,
    pub(super) downstream: u32,
    pub(super) stream: StreamKey,
    /// The call's position among its client connection's calls.
    pub(super) downstream_position: u32,
    /// The call's position among its server connection's calls, while it is open.
    pub(super) upstream_position: u32,
    pub(super) target: u32,
    /// Whose memory it holds, and how much.
    pub(super) budget: u32,
    pub(super) charged: u32,
    /// It counts among those of its circuit that wait.
    pub(super) is_pending: bool,
    /// It counts among those of its circuit.
    pub(super) in_circuit: bool,
    /// And among those that were sent again by policy.
    pub(super) in_retries: bool,

    /// The pool of the endpoint that the call is at, or waits for.
    pub(super) pool: u32,
    /// The endpoint that was chosen last.
    pub(super) server: Option<Arc<Endpoint>>,
    /// The call is part of that endpoint's load.
    pub(super) in_load: bool,
    /// The endpoint's index in its target's list, at the time of the choice.
    pub(super) endpoint: u32,
    /// Endpoints to which no connection could be opened; no more than [`MAX_ENDPOINTS`].
    pub(super) tried: Vec<SocketAddr>,
    /// The endpoint that refused the stream: the one retry that there is goes to another if it can.
    pub(super) refused_by: Option<SocketAddr>,
    /// The endpoints whose answers the Service's policy had the call sent again after: one an attempt.
    pub(super) failed_at: Vec<SocketAddr>,
    /// When it is to be sent again.
    pub(super) again_at_ns: u64,
    /// How often it has waited since a server said how long.
    pub(super) backoffs: u8,
    /// Why its next attempt is not its first; counted when there is one.
    pub(super) again_for: Option<RetryCause>,

    /// The request's fields, kept for sending them again.
    pub(super) request: FieldList,
    /// The body so far, while it may have to be sent again or has not been sent at all.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<Box<FieldList>>,
    /// The body is held from its first byte.
    pub(super) replayable: bool,
    /// The client's END_STREAM has come.
    pub(super) request_ended: bool,
    /// Body bytes that went on to the present server.
    pub(super) request_sent: u64,
    /// Body bytes for which the client has got credit back.
    pub(super) request_granted: u64,

    pub(super) response: Response,
    /// Not gRPC: the HTTP status says so.
    pub(super) server_failed: bool,
    pub(super) is_grpc: bool,
    /// The response has said how long its body is: no trailers can end it early.
    pub(super) response_is_sized: bool,
    pub(super) arrived_ns: u64,
    /// When the present attempt began: the choice of the endpoint, and then the request's way to it.
    pub(super) sent_ns: u64,
    /// Position in the server connection's output at which the request begins.
    pub(super) sent_offset: u64,
    /// `grpc-timeout` as it came.
    pub(super) timeout_ns: Option<u64>,
    pub(super) outcome: Option<Outcome>,
    pub(super) measured: Measured,
    /// Its span, if it is traced.
    pub(super) trace: Option<CallTrace>,
}

/// A position in no list.
pub(super) const NOWHERE: u32 = u32::MAX;

impl Call {
    fn free(stream: StreamKey) -> Self {
        Self {
            stage: Stage::Free,
            downstream: NOWHERE,
            stream,
            downstream_position: NOWHERE,
            upstream_position: NOWHERE,
            target: NOWHERE,
            budget: NOWHERE,
            charged: 0,
            is_pending: false,
            in_circuit: false,
            in_retries: false,
            pool: NOWHERE,
            server: None,
            in_load: false,
            endpoint: NOWHERE,
            tried: Vec::new(),
            refused_by: None,
            failed_at: Vec::new(),
            again_at_ns: 0,
            backoffs: 0,
            again_for: None,
            request: FieldList::new(),
            body: Vec::new(),
            trailers: None,
            replayable: true,
            request_ended: false,
            request_sent: 0,
            request_granted: 0,
            response: Response::Nothing,
            server_failed: false,
            is_grpc: false,
            response_is_sized: false,
            arrived_ns: 0,
            sent_ns: 0,
            sent_offset: 0,
            timeout_ns: None,
            outcome: None,
            measured: Measured::default(),
            trace: None,
        }
    }

    /// Back to a fresh call, with the buffers that are worth keeping.
    fn recycle(&mut self, keeps_buffers: bool) {
        let request = std::mem::take(&mut self.request);
        let body = std::mem::take(&mut self.body);
        *self = Self::free(self.stream);
        if !keeps_buffers {
            return;
        }
        if request.held_bytes() <= KEPT_FIELDS_BYTES {
            self.request = request;
            self.request.clear();
        }
        if body.capacity() <= KEPT_BODY_BYTES {
            self.body = body;
            self.body.clear();
        }
    }

    /// Reads what the agent itself needs out of the request's fields.
    pub(super) fn read_request(&mut self) {
        self.is_grpc = self.request.find(Name::ContentType).is_some_and(is_grpc);
        self.timeout_ns = self.request.find(Name::GrpcTimeout).and_then(super::deadline::parse);
    }

    /// The agent answers in full.
    pub(super) fn note_answer(&mut self, cause: Cause) {
        if self.is_grpc && cause != Cause::Connect {
            self.measured.http_status = 200;
            self.measured.grpc_status = GrpcStatus::of(cause.grpc_status());
        } else {
            self.measured.http_status = cause.http_status();
        }
    }

    /// Whether its client has all of the answer, whatever it still sends: so servers' early answers end.
    pub(super) fn has_been_answered(&self) -> bool {
        self.response == Response::Complete && matches!(self.stage, Stage::Open { .. })
    }

    /// The agent ends the client's stream with a reset.
    pub(super) fn note_reset(&mut self, code: ErrorCode) {
        if self.is_grpc {
            self.measured.grpc_status = GrpcStatus::of(error_reply::status_of_reset(code));
        }
    }

    /// Everything that it holds in memory, itself included.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + self.request.held_bytes()
            + self.body.capacity()
            + self.trailers.as_ref().map_or(0, |trailers| size_of::<FieldList>() + trailers.held_bytes())
            + self.trace.as_ref().map_or(0, CallTrace::held_bytes)
            + (self.tried.capacity() + self.failed_at.capacity()) * size_of::<SocketAddr>()
    }

    /// When the agent itself ends the call.
    pub(super) fn deadline_ns(&self) -> Option<u64> {
        let timeout = self.timeout_ns.filter(|_| self.response != Response::Complete)?;
        Some(self.arrived_ns.saturating_add(timeout).saturating_add(super::deadline::GRACE_NS))
    }

    /// The client's own deadline has passed, and the agent's is a moment away.
    pub(super) fn is_out_of_time(&self, now_ns: u64) -> bool {
        self.timeout_ns.is_some_and(|timeout| self.arrived_ns.saturating_add(timeout) <= now_ns)
    }

    /// Keeps body bytes that are not at any server yet, or may have to be sent again. Whether the call holds another amount of
    /// memory now.
    pub(super) fn hold(&mut self, payload: &[u8]) -> bool {
        if !self.replayable {
            return false;
        }
        let waiting = !matches!(self.stage, Stage::Open { .. });
        if waiting || self.body.len() + payload.len() <= REPLAY_LIMIT_BYTES {
            let before = self.body.capacity();
            self.body.extend_from_slice(payload);
            self.body.capacity() != before
        } else {
            self.drop_replay()
        }
    }

    /// The request will not be sent again. Whether the call holds less memory now.
    pub(super) fn drop_replay(&mut self) -> bool {
        self.replayable = false;
        let held_trailers = self.trailers.take().is_some();
        // It has served: the choice is made, the request is at the server.
        let held_request = self.request.held_bytes() > KEPT_FIELDS_BYTES;
        if held_request {
            self.request = self.request.excerpt(KEPT_FIELDS_BYTES / 2, told_at_the_end);
        }
        let held_body = self.body.capacity() > KEPT_BODY_BYTES;
        if held_body {
            self.body = Vec::new();
        } else {
            self.body.clear();
        }
        held_trailers || held_request || held_body
    }
}

/// `application/grpc`, also with a suffix or parameters; gRPC-Web is another protocol.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// What is told of a request when its call is over: what was called, and the trace that it belongs to.
fn told_at_the_end(field: Field<'_>) -> Option<&[u8]> {
    match field.known {
        Name::Path => Some(path_alone(field.value)),
        Name::Method
        | Name::Traceparent
        | Name::Tracestate
        | Name::B3
        | Name::XB3TraceId
        | Name::XB3SpanId
        | Name::XB3Sampled
        | Name::XB3Flags => Some(field.value),
        _ => None,
    }
}

/// Takes the list out of the worker's scratch, whose buffer may have grown with another source's: a small list is copied then.
pub(super) fn take_list(scratch: &mut FieldList, into: &mut FieldList) {
    if scratch.held_bytes() > KEPT_FIELDS_BYTES && scratch.size() <= KEPT_FIELDS_BYTES / 2 {
        into.copy_from(scratch);
        *scratch = FieldList::new();
    } else {
        std::mem::swap(into, scratch);
    }
}

/// All calls of a worker, by small integers that serve as the streams' tokens.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Call>,
    free: Vec<u32>,
}

impl Calls {
    /// A slot with a fresh call for the client's stream.
    pub(super) fn insert(&mut self, stream: StreamKey) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Call::free(stream));
            (self.slots.len() - 1) as u32
        });
        self[slot].stream = stream;
        self[slot].stage = Stage::Answered;
        slot
    }

    pub(super) fn remove(&mut self, call: u32) {
        let keeps_buffers = self.free.len() < SLOTS_WITH_BUFFERS;
        self[call].recycle(keeps_buffers);
        self.free.push(call);
    }

    /// Lets go of the buffers of free slots, and of the slots themselves where all are free.
    pub(super) fn trim(&mut self) {
        if self.free.len() == self.slots.len() {
            *self = Self::default();
        }
        for free in &self.free {
            let slot = &mut self.slots[*free as usize];
            (slot.request, slot.body) = (FieldList::new(), Vec::new());
        }
    }

    /// The call with a stream's token; `None` for a stream that has none.
    pub(super) fn find(&mut self, token: u32) -> Option<&mut Call> {
        self.slots.get_mut(token as usize).filter(|call| call.stage != Stage::Free)
    }

    /// The calls that there are, in no order.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &Call> {
        self.slots.iter().filter(|call| call.stage != Stage::Free)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Index<u32> for Calls {
    type Output = Call;
    fn index(&self, call: u32) -> &Call {
        &self.slots[call as usize]
    }
}

impl IndexMut<u32> for Calls {
    fn index_mut(&mut self, call: u32) -> &mut Call {
        &mut self.slots[call as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(content_type.as_bytes()), expected, "{content_type}");
        }
    }
}
