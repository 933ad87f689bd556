//! What the worker threads ask of each call where traces are on.

use super::context::{self, Decision, Found, Wish};
use super::sampling::{Ratio, lets_through};
use super::span::{CallTrace, Span};
use crate::http2::FieldList;
use crate::telemetry::{Inlet, Outlet, outlet};
use std::num::NonZeroU64;

/// Spans that wait for the exporter: a few hundred bytes each, and as much as a busy node makes while a batch is on its way.
const QUEUE_SPANS: usize = 8_192;

/// Decides which calls are traced, and takes their spans. Shared by all worker threads.
#[derive(Debug)]
pub struct Tracer {
    sample_threshold: u64,
    /// `None`: no call starts a trace.
    start_threshold: Option<u64>,
    spans: Outlet<Span>,
}

impl Tracer {
    /// A tracer that continues `sample` of the traces that are sampled, and starts one for `start` of the calls that have no context;
    /// and where its spans come out.
    pub fn new(sample: Ratio, start: Ratio) -> (Self, Inlet<Span>) {
        let (spans, inlet) = outlet(QUEUE_SPANS);
        let start_threshold = (start != Ratio::NONE).then(|| start.threshold());
        (Self { sample_threshold: sample.threshold(), start_threshold, spans }, inlet)
    }

    /// Reads the request's context. A call that is traced gets a span, which takes its parent's place in the request; of another not a
    /// byte is changed.
    #[inline]
    pub fn begin(&self, request: &mut FieldList, random: impl FnMut() -> u64) -> Option<CallTrace> {
        match context::read(request) {
            Found::Context(context) => {
                let said = context.said;
                let is_traced = match said.decision {
                    Decision::Deny | Decision::Defer => false,
                    Decision::Accept => lets_through(self.sample_threshold, said.trace_id),
                    Decision::Debug => true,
                };
                if !is_traced {
                    return None;
                }
                let span_id = any_id(random);
                context.hand_on(span_id, request);
                Some(CallTrace::new(said.trace_id, span_id, Some(said.parent_id)))
            }
            Found::Nothing => self.start(None, request, random),
            Found::Wish(wish) => self.start(Some(wish), request, random),
            Found::Denial => None,
        }
    }

    /// Where traces may start at all, a caller's wish decides as its context would, and else the ratio does.
    fn start(
        &self,
        wish: Option<Wish>,
        request: &mut FieldList,
        mut random: impl FnMut() -> u64,
    ) -> Option<CallTrace> {
        let start_threshold = self.start_threshold?;
        let threshold = match wish {
            Some(Wish { is_debug: true, .. }) => 0,
            Some(_) => self.sample_threshold,
            None => start_threshold,
        };
        let trace_id = u128::from(any_id(&mut random).get()) << 64 | u128::from(random());
        if !lets_through(threshold, trace_id) {
            return None;
        }
        let span_id = any_id(random);
        match wish {
            Some(wish) => wish.start(trace_id, span_id, request),
            None => context::start(trace_id, span_id, request),
        }
        Some(CallTrace::new(trace_id, span_id, None))
    }

    /// Takes the span of a call that is over. One for which there is no room is not made, but counted.
    pub fn end(&self, span: impl FnOnce() -> Span) {
        self.spans.tell(span);
    }
}

/// Any number but 0, which is no id.
fn any_id(mut random: impl FnMut() -> u64) -> NonZeroU64 {
    loop {
        if let Some(id) = NonZeroU64::new(random()) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Random;
    use crate::http2::Name;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    const DEBUG: &str = "a3ce929d0e0e4736-00f067aa0ba902b7-d";
    const DEFERRED: &str = "a3ce929d0e0e4736-00f067aa0ba902b7";

    /// Whether a call with that field is traced, and the field as it goes on.
    fn begin(sample: &str, start: &str, name: &str, value: &str) -> (bool, String) {
        let ratio = |text: &str| text.parse().expect("a ratio");
        let (tracer, _spans) = Tracer::new(ratio(sample), ratio(start));
        let mut request = FieldList::new();
        request.push(b":path", b"/a.B/C");
        request.push(name.as_bytes(), value.as_bytes());
        let mut random = Random::new(1);
        let trace = tracer.begin(&mut request, || random.next());
        let after = request.find(Name::of(name.as_bytes())).unwrap_or_default();
        (trace.is_some(), String::from_utf8_lossy(after).into_owned())
    }

    #[test]
    fn a_call_is_traced_if_its_trace_is_sampled_and_the_ratio_lets_it_through() {
        for (sample, start, name, value, is_traced) in [
            ("1", "0", "traceparent", SAMPLED, true),
            ("0", "0", "traceparent", SAMPLED, false),
            ("1", "1", "traceparent", UNSAMPLED, false),
            // The random bits of this id are ce929d… of ffffff…: below 0.807 of all.
            ("0.2", "0", "traceparent", SAMPLED, true),
            ("0.19", "0", "traceparent", SAMPLED, false),
            ("0", "0", "b3", DEBUG, true),
            ("1", "1", "b3", DEFERRED, false),
            ("1", "1", "b3", "0", false),
            ("1", "0", "b3", "1", false),
            ("1", "0", "traceparent", "nonsense", false),
            // A wish decides where traces may start, however rarely they do.
            ("1", "1e-9", "b3", "1", true),
            ("0", "1", "b3", "1", false),
            ("0", "1e-9", "b3", "d", true),
            ("1", "0", "b3", "d", false),
            ("1", "1e-9", "b3", "2", false),
        ] {
            let (traced, after) = begin(sample, start, name, value);
            assert_eq!(traced, is_traced, "{sample} {start} {value}");
            assert_eq!(after != value, is_traced, "{after}");
        }
    }

    #[test]
    fn a_trace_that_b3_wishes_for_goes_on_in_b3() {
        let (tracer, _spans) = Tracer::new(Ratio::ALL, "1e-9".parse().unwrap());
        let mut random = Random::new(1);
        for (wish, decision) in [("1", "1"), ("d", "d")] {
            let mut request = FieldList::new();
            request.push(b"b3", wish.as_bytes());
            let trace = tracer.begin(&mut request, || random.next()).expect("it starts");
            assert!(trace.parent_id.is_none() && request.find(Name::Traceparent).is_none());
            let expected = format!("{:032x}-{:016x}-{decision}", trace.trace_id, trace.span_id);
            assert_eq!(request.find(Name::B3), Some(expected.as_bytes()));
        }
    }

    #[test]
    fn a_trace_starts_where_there_is_no_context_as_often_as_asked() {
        let (tracer, _spans) = Tracer::new(Ratio::NONE, "0.1".parse().unwrap());
        let mut random = Random::new(1);
        let (mut started, mut ids) = (0, std::collections::BTreeSet::new());
        for _ in 0..10_000 {
            let mut request = FieldList::new();
            request.push(b":path", b"/a.B/C");
            let trace = tracer.begin(&mut request, || random.next());
            assert_eq!(request.find(Name::Traceparent).is_some(), trace.is_some());
            if let Some(trace) = trace {
                assert!(trace.parent_id.is_none());
                started += 1;
                ids.insert((trace.trace_id, trace.span_id));
            }
        }
        assert!((900..1_100).contains(&started), "{started}");
        assert_eq!(ids.len(), started);
    }
}
