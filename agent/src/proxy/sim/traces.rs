//! Trace contexts: which calls have one, what their servers are to see of it, and that each call has the spans that it should, be it sent
//! however often.

use super::World;
use crate::http2::{FieldList, Name};
use crate::telemetry::{Inlet, Ratio, Span, Tracer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A call's context, as its client sends it.
pub(super) fn context(call: usize) -> Option<(Name, String)> {
    let (trace_id, span_id) = (trace_id(call), client_span(call));
    match call % 4 {
        0 => Some((Name::Traceparent, format!("00-{trace_id:032x}-{span_id:016x}-01"))),
        1 => Some((Name::Traceparent, format!("00-{trace_id:032x}-{span_id:016x}-00"))),
        2 => Some((Name::B3, format!("{trace_id:032x}-{span_id:016x}-1"))),
        _ => None,
    }
}

fn is_sampled(call: usize) -> bool {
    call.is_multiple_of(2)
}

fn trace_id(call: usize) -> u128 {
    (call as u128 + 1) << 64 | 0xa5a5_0000
}

fn client_span(call: usize) -> u64 {
    call as u64 + 0x77_0000
}

/// What a server sees of a call's context: the client's own, but for the span where the agent has put in its own. That span.
pub(super) fn check_request(call: usize, fields: &FieldList, is_traced: bool) -> Option<u64> {
    let Some((name, sent)) = context(call) else {
        assert!(fields.find(Name::Traceparent).is_none() && fields.find(Name::B3).is_none(), "call {call}");
        return None;
    };
    let seen = String::from_utf8_lossy(fields.find(name).expect("its context goes with it")).into_owned();
    if !(is_traced && is_sampled(call)) {
        assert_eq!(seen, sent, "the context of call {call}");
        return None;
    }
    let mut parts = seen.split('-').skip(usize::from(name == Name::Traceparent));
    let hex = |part: Option<&str>| u128::from_str_radix(part.expect("it is there"), 16).expect("digits");
    assert_eq!(hex(parts.next()), trace_id(call), "call {call}: {seen}");
    let span = hex(parts.next()) as u64;
    assert!(span != 0 && span != client_span(call), "call {call}: {seen}");
    assert_eq!(parts.next().map(|decision| decision.trim_start_matches('0')), Some("1"), "{seen}");
    Some(span)
}

/// A tracer that continues what is sampled and starts nothing.
pub(super) fn tracer() -> (Arc<Tracer>, Inlet<Span>) {
    let (tracer, spans) = Tracer::new(Ratio::ALL, Ratio::NONE);
    (Arc::new(tracer), spans)
}

impl World {
    /// One span for each sampled call that the agent has counted, and no other; servers have seen it as their parent.
    pub(super) fn check_spans(&mut self) {
        let mut spans = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(came) = self.spans.poll_next(&mut context, &mut spans, usize::MAX)
            && came > 0
        {}
        let mut by_method: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for span in spans.into_iter().filter(|span| span.stats.status.is_grpc && !span.method.is_empty()) {
            by_method.entry(span.method.to_string()).or_default().push(span);
        }
        let rows = self.telemetry.calls();
        for (call, tally) in self.tally.iter().enumerate() {
            let name = call.to_string();
            let row = rows.iter().find(|(key, _)| *key.method == *name);
            let own = by_method.remove(&name).unwrap_or_default();
            let is_due = self.is_traced && is_sampled(call) && row.is_some();
            assert_eq!(own.len(), usize::from(is_due), "spans of call {call}: {own:?}");
            let (Some(span), Some((key, counts))) = (own.first(), row) else { continue };
            let (trace, status) = (&span.trace, key.status);
            assert_eq!(trace.trace_id, trace_id(call));
            assert_eq!(trace.parent_id.map(Into::into), Some(client_span(call)));
            assert!(tally.parents.iter().all(|parent| *parent == trace.span_id.get()), "{tally:?}");
            assert_eq!(span.stats.status, status);
            assert_eq!(u64::from(span.stats.attempts), counts.attempts);
            assert!(trace.retries().len() <= usize::from(span.stats.attempts), "{span:?}");
            assert!(span.stats.began_ns <= span.stats.ended_ns);
        }
        assert!(by_method.is_empty(), "spans of no call: {by_method:?}");
    }
}
