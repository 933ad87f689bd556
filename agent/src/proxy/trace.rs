//! A traced call on its way: what [`Tracer::begin`](crate::telemetry::Tracer::begin) gave it is told of its retries, and becomes its span at
//! its end.

use super::engine::Engine;
use crate::http2::{FieldList, Name};
use crate::telemetry::{CallStats, CallTrace, Retry, RetryCause, Span, heeds_trace_state};
use std::net::SocketAddr;
use std::sync::Arc;

/// A `tracestate` of this length is handed on by everybody (W3C Trace Context § 3.3.1.5); of a longer one the span says nothing.
const MOST_TRACE_STATE_BYTES: usize = 512;

impl Engine {
    /// The call's attempt at an endpoint was not its last.
    #[inline]
    pub(super) fn note_retry(&mut self, call: u32, endpoint: SocketAddr, cause: RetryCause) {
        let slot = &mut self.calls[call];
        slot.again_for = Some(cause);
        let attempts = usize::from(slot.measured.attempts);
        // One that found nobody to go to, and whose answer then asked for a retry, is one attempt all the same.
        if let Some(trace) = slot.trace.as_mut().filter(|trace| trace.retries().len() < attempts) {
            trace.retried(Retry { at_ns: self.now_ns, endpoint, cause });
            self.charge_call(call);
        }
    }

    /// A traced call is over.
    #[cold]
    pub(super) fn end_span(&self, call: u32, trace: CallTrace, stats: CallStats) {
        let slot = &self.calls[call];
        let target = &self.targets.slots[slot.target as usize];
        let Some(tracer) = &self.tracer else { return };
        tracer.end(|| Span {
            trace,
            trace_state: trace_state(&slot.request),
            link: Arc::clone(&target.link),
            endpoint: slot.server.clone(),
            method: Arc::clone(target.methods.name(slot.measured.method)),
            http_method: if slot.is_grpc { Box::default() } else { http_method(&slot.request) },
            stats,
        });
    }
}

/// All `tracestate` fields as one (RFC 9110 § 5.3); empty where there are none, they are not heeded, or are not to be told.
fn trace_state(request: &FieldList) -> Box<str> {
    if !heeds_trace_state(request) {
        return Box::default();
    }
    let mut all = String::new();
    for field in request.iter().filter(|field| field.known == Name::Tracestate) {
        let Ok(value) = str::from_utf8(field.value) else { return Box::default() };
        if field.never_indexed || all.len() + value.len() >= MOST_TRACE_STATE_BYTES {
            return Box::default();
        }
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(value);
    }
    all.into()
}

/// Of the methods that there are; `_OTHER`, as OpenTelemetry's conventions have it, for inventions.
fn http_method(request: &FieldList) -> Box<str> {
    const KNOWN: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"];
    let Some(method) = request.find(Name::Method) else { return Box::default() };
    let known = KNOWN.into_iter().find(|known| known.as_bytes() == method);
    known.unwrap_or("_OTHER").into()
}
