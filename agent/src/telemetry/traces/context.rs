//! A request's trace context: read from its fields, and given the agent's own span as the next parent, in the formats that it came in.
//!
//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): `traceparent`; `tracestate` is never touched. B3
//! (<https://github.com/openzipkin/b3-propagation>): `b3`, or the fields `x-b3-…`. What breaks its format's rules is as if it were not there.
//! Nothing here allocates.

use crate::http2::{FieldList, Name};
use std::num::NonZeroU64;

/// The length of a `traceparent` of version 00, and of what is known of any later one.
const TRACEPARENT_BYTES: usize = 55;
/// The flags that are known: sampled, and random (level 2). The others are not to be sent on (§ 3.2.2.5).
const KNOWN_FLAGS: u8 = 0b11;
const SAMPLED: u8 = 0b01;
/// A `b3` with everything: a trace id of 128 bits, a span, a decision, its parent.
const LONGEST_B3_BYTES: usize = 32 + 1 + 16 + 1 + 1 + 1 + 16;

/// What who came before has decided of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is not recorded.
    Deny,
    /// Nothing (B3 only): whoever comes next may.
    Defer,
    /// It is recorded.
    Accept,
    /// It is recorded, whatever ratios say (B3 only).
    Debug,
}

impl Decision {
    fn is_sampled(self) -> bool {
        matches!(self, Self::Accept | Self::Debug)
    }
}

/// What a field, or B3's several, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) trace_id: u128,
    /// The span that sent the request.
    pub(super) parent_id: NonZeroU64,
    pub(super) decision: Decision,
}

/// A request's trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    /// What goes: W3C's word before B3's, and `b3` before `x-b3-…`, as each specification says.
    pub(super) said: Said,
    /// The flags of a `traceparent` that says so.
    traceparent: Option<u8>,
    /// A `b3` says so.
    b3: bool,
    /// `x-b3-…` say so.
    b3_fields: bool,
}

/// What a request's fields hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A context.
    Context(Context),
    /// None, and no word against one.
    Nothing,
    /// None, but the wish that there be none (`b3: 0`, `x-b3-sampled: 0`).
    Denial,
    /// None, but the wish that there be one (`b3: 1`, `b3: d`, `x-b3-sampled: 1`, `x-b3-flags: 1`).
    Wish(Wish),
}

/// B3's decision for a trace that whoever comes next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wish {
    /// Whatever ratios say.
    pub(super) is_debug: bool,
    /// A `b3` says so.
    b3: bool,
    /// `x-b3-…` say so.
    b3_fields: bool,
}

/// One field, unless it comes more than once: then it says nothing.
#[derive(Clone, Copy, Default)]
struct Once<'a> {
    value: Option<&'a [u8]>,
    is_repeated: bool,
}

impl<'a> Once<'a> {
    fn meet(&mut self, value: &'a [u8]) {
        self.is_repeated |= self.value.is_some();
        self.value = Some(value);
    }

    fn value(self) -> Option<&'a [u8]> {
        self.value.filter(|_| !self.is_repeated)
    }
}

/// Reads a request's trace context.
pub(super) fn read(request: &FieldList) -> Found {
    let mut traceparent = Once::default();
    let mut b3 = Once::default();
    let (mut trace_id, mut span_id) = (Once::default(), Once::default());
    let (mut sampled, mut flags) = (Once::default(), Once::default());
    for field in request.iter() {
        match field.known {
            Name::Traceparent => traceparent.meet(field.value),
            Name::B3 => b3.meet(field.value),
            Name::XB3TraceId => trace_id.meet(field.value),
            Name::XB3SpanId => span_id.meet(field.value),
            Name::XB3Sampled => sampled.meet(field.value),
            Name::XB3Flags => flags.meet(field.value),
            _ => {}
        }
    }
    let w3c = traceparent.value().and_then(parse_traceparent);
    let single = b3.value().and_then(parse_b3);
    let decision = decision_of(sampled.value(), flags.value());
    let of_fields = trace_id.value().zip(span_id.value()).and_then(|(trace_id, span_id)| {
        Some(Said { trace_id: parse_b3_trace_id(trace_id)?, parent_id: parse_span_id(span_id)?, decision })
    });
    let single_said = single.and_then(B3::said);
    let Some(said) = w3c.map(|(said, _)| said).or(single_said).or(of_fields) else {
        return found_alone(single, decision);
    };
    // Formats that tell of other traces, or otherwise, are somebody else's.
    let agrees = |other: Said| {
        let same_trace = other.trace_id == said.trace_id
            || other.trace_id >> 64 == 0 && other.trace_id as u64 == said.trace_id as u64;
        same_trace && other.decision.is_sampled() == said.decision.is_sampled()
    };
    Found::Context(Context {
        said,
        traceparent: w3c.map(|(_, flags)| flags),
        b3: single_said.is_some_and(agrees),
        b3_fields: of_fields.is_some_and(agrees),
    })
}

/// What B3's decisions say without a context: `b3` goes before `x-b3-…`.
fn found_alone(single: Option<B3>, of_fields: Decision) -> Found {
    let of_b3 = match single {
        Some(B3::Decision(decision)) => decision,
        _ => Decision::Defer,
    };
    let decision = if of_b3 == Decision::Defer { of_fields } else { of_b3 };
    match decision {
        Decision::Deny => Found::Denial,
        Decision::Defer => Found::Nothing,
        Decision::Accept | Decision::Debug => Found::Wish(Wish {
            is_debug: decision == Decision::Debug,
            b3: of_b3.is_sampled(),
            b3_fields: of_fields.is_sampled(),
        }),
    }
}

/// The trace that a request belongs to, by the rules by which its calls are traced; `None`: it belongs to none.
pub fn trace_id(request: &FieldList) -> Option<u128> {
    match read(request) {
        Found::Context(context) => Some(context.said.trace_id),
        Found::Nothing | Found::Denial | Found::Wish(_) => None,
    }
}

/// Whether a request's `tracestate` says something: without a `traceparent` that is valid it does not (W3C Trace Context § 4.3).
pub fn heeds_trace_state(request: &FieldList) -> bool {
    matches!(read(request), Found::Context(Context { traceparent: Some(_), .. }))
}

impl Context {
    /// Makes `span_id` the parent of whatever the receiver does, in each format that the context came in, and at its fields' places.
    pub(super) fn hand_on(&self, span_id: NonZeroU64, request: &mut FieldList) {
        if let Some(flags) = self.traceparent {
            request.set(Name::Traceparent, &traceparent(self.said.trace_id, span_id, flags & KNOWN_FLAGS));
        }
        if self.b3 {
            self.hand_on_b3(span_id, request);
        }
        if self.b3_fields {
            // As it came, not as another format has it.
            let mut before = [0; 16];
            if let Some(value) = request.find(Name::XB3SpanId)
                && value.len() == before.len()
            {
                before.copy_from_slice(value);
                request.set(Name::XB3SpanId, &hex_of_64(span_id.get()));
                request.set(Name::XB3ParentSpanId, &before);
            }
        }
    }

    fn hand_on_b3(&self, span_id: NonZeroU64, request: &mut FieldList) {
        let Some(value) = request.find(Name::B3) else { return };
        // TRACE-SPAN-DECISION, of which the first stays as it came.
        let Some(trace_end) = value.iter().position(|byte| *byte == b'-') else { return };
        let (span_at, decision_at) = (trace_end + 1, trace_end + 1 + 16 + 1);
        let (Some(before), Some(&decision)) = (value.get(span_at..span_at + 16), value.get(decision_at))
        else {
            return;
        };
        let mut text = [b'-'; LONGEST_B3_BYTES];
        let length = decision_at + 1 + 1 + 16;
        if length > text.len() {
            return;
        }
        text[..trace_end].copy_from_slice(&value[..trace_end]);
        text[span_at..span_at + 16].copy_from_slice(&hex_of_64(span_id.get()));
        text[decision_at] = decision;
        text[decision_at + 2..length].copy_from_slice(before);
        request.set(Name::B3, &text[..length]);
    }
}

/// Takes the agent's own span out again, where it is what makes a request too large: its parent, if it has one, is there as it was. Of B3 the
/// parent's parent is not there any more, which is no more than a remark.
pub(super) fn take_back(parent_id: Option<NonZeroU64>, request: &mut FieldList) {
    let Found::Context(context) = read(request) else { return };
    let Some(parent_id) = parent_id else { return context.take_start_back(request) };
    if let Some(flags) = context.traceparent {
        let before = traceparent(context.said.trace_id, parent_id, flags & KNOWN_FLAGS);
        request.set(Name::Traceparent, &before);
    }
    if context.b3 {
        let Some(value) = request.find(Name::B3) else { return };
        let Some(span_at) = value.iter().position(|byte| *byte == b'-').map(|dash| dash + 1) else { return };
        let mut text = [0; LONGEST_B3_BYTES];
        let length = (span_at + 16 + 1 + 1).min(value.len());
        if length > text.len() {
            return;
        }
        text[..length].copy_from_slice(&value[..length]);
        text[span_at..span_at + 16].copy_from_slice(&hex_of_64(parent_id.get()));
        request.set(Name::B3, &text[..length]);
    }
    if context.b3_fields {
        request.set(Name::XB3SpanId, &hex_of_64(parent_id.get()));
        request.remove(Name::XB3ParentSpanId);
    }
}

/// Puts a new trace's context in, in place of what could not be read.
pub(super) fn start(trace_id: u128, span_id: NonZeroU64, request: &mut FieldList) {
    // Once the trace is another, they say nothing (§ 4.3).
    request.remove(Name::Traceparent);
    request.remove(Name::Tracestate);
    request.push(Name::Traceparent.as_bytes(), &traceparent(trace_id, span_id, SAMPLED));
}

impl Wish {
    /// Puts a new trace's context in, in the formats in which it was wished for.
    pub(super) fn start(&self, trace_id: u128, span_id: NonZeroU64, request: &mut FieldList) {
        let (trace, span) = (hex_of_128(trace_id), hex_of_64(span_id.get()));
        // What could not be read would be another trace's, where it can.
        request.remove(Name::Traceparent);
        request.remove(Name::Tracestate);
        if self.b3 {
            let mut text = [b'-'; 32 + 1 + 16 + 1 + 1];
            text[..32].copy_from_slice(&trace);
            text[33..49].copy_from_slice(&span);
            text[50] = if self.is_debug { b'd' } else { b'1' };
            request.set(Name::B3, &text);
        }
        if self.b3_fields {
            // Ids that could not be read, if there are any, and a root has no parent.
            for name in [Name::XB3TraceId, Name::XB3SpanId, Name::XB3ParentSpanId] {
                request.remove(name);
            }
            request.push(Name::XB3TraceId.as_bytes(), &trace);
            request.push(Name::XB3SpanId.as_bytes(), &span);
        }
    }
}

impl Context {
    /// Takes out what [`start`] and [`Wish::start`] have put in.
    fn take_start_back(&self, request: &mut FieldList) {
        if self.traceparent.is_some() {
            request.remove(Name::Traceparent);
        }
        if self.b3
            && let Some(&decision) = request.find(Name::B3).and_then(<[u8]>::last)
        {
            request.set(Name::B3, &[decision]);
        }
        if self.b3_fields {
            request.remove(Name::XB3TraceId);
            request.remove(Name::XB3SpanId);
        }
    }
}

/// Version 00, trace, parent, flags (§ 3.2). Of a later version: what this one knows, if what follows is set off (§ 4.3).
fn parse_traceparent(value: &[u8]) -> Option<(Said, u8)> {
    let known = value.get(..TRACEPARENT_BYTES)?;
    let dashes = [known[2], known[35], known[52]];
    let version = parse_hex(&known[..2])?;
    let ends = match version {
        0 => value.len() == TRACEPARENT_BYTES,
        0xff => false,
        _ => matches!(value.get(TRACEPARENT_BYTES), None | Some(b'-')),
    };
    if dashes != [b'-'; 3] || !ends {
        return None;
    }
    let trace_id = parse_hex(&known[3..35]).filter(|id| *id != 0)?;
    let parent_id = parse_span_id(&known[36..52])?;
    let flags = parse_hex(&known[53..55])? as u8;
    let decision = if flags & SAMPLED != 0 { Decision::Accept } else { Decision::Deny };
    Some((Said { trace_id, parent_id, decision }, flags))
}

fn traceparent(trace_id: u128, span_id: NonZeroU64, flags: u8) -> [u8; TRACEPARENT_BYTES] {
    let mut text = [b'-'; TRACEPARENT_BYTES];
    text[..2].copy_from_slice(b"00");
    text[3..35].copy_from_slice(&hex_of_128(trace_id));
    text[36..52].copy_from_slice(&hex_of_64(span_id.get()));
    text[53..].copy_from_slice(&[b'0', b'0' + (flags & KNOWN_FLAGS)]);
    text
}

/// What a `b3` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum B3 {
    Context(Said),
    /// A decision alone, on a trace that whoever comes next would start.
    Decision(Decision),
}

impl B3 {
    fn said(self) -> Option<Said> {
        match self {
            Self::Context(said) => Some(said),
            Self::Decision(_) => None,
        }
    }
}

/// `TRACE-SPAN`, `TRACE-SPAN-DECISION`, `TRACE-SPAN-DECISION-PARENT`, or `DECISION`.
fn parse_b3(value: &[u8]) -> Option<B3> {
    if let [decision] = value {
        return b3_decision(*decision).map(B3::Decision);
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let trace_id = parse_b3_trace_id(parts.next()?)?;
    let parent_id = parse_span_id(parts.next()?)?;
    let decision = match parts.next() {
        None => Decision::Defer,
        Some([decision]) => b3_decision(*decision)?,
        Some(_) => return None,
    };
    // The parent's parent is of no use, and so is what its zeroes say.
    if parts.next().is_some_and(|grandparent| grandparent.len() != 16 || parse_hex(grandparent).is_none()) {
        return None;
    }
    parts.next().is_none().then_some(B3::Context(Said { trace_id, parent_id, decision }))
}

fn b3_decision(text: u8) -> Option<Decision> {
    match text {
        b'0' => Some(Decision::Deny),
        b'1' => Some(Decision::Accept),
        b'd' => Some(Decision::Debug),
        _ => None,
    }
}

/// `x-b3-sampled` and `x-b3-flags`; a word for true or false is what the first had before.
fn decision_of(sampled: Option<&[u8]>, flags: Option<&[u8]>) -> Decision {
    match (flags, sampled) {
        (Some(b"1"), _) => Decision::Debug,
        (_, Some(b"1" | b"true")) => Decision::Accept,
        (_, Some(b"0" | b"false")) => Decision::Deny,
        _ => Decision::Defer,
    }
}

/// 64 or 128 bits.
fn parse_b3_trace_id(text: &[u8]) -> Option<u128> {
    if !matches!(text.len(), 16 | 32) {
        return None;
    }
    parse_hex(text).filter(|id| *id != 0)
}

fn parse_span_id(text: &[u8]) -> Option<NonZeroU64> {
    if text.len() != 16 {
        return None;
    }
    NonZeroU64::new(parse_hex(text)? as u64)
}

/// Up to 32 digits, of which the letters are lower-case.
fn parse_hex(text: &[u8]) -> Option<u128> {
    let mut number: u128 = 0;
    for digit in text {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number)
}

fn hex_of_128(number: u128) -> [u8; 32] {
    let mut text = [0; 32];
    text[..16].copy_from_slice(&hex_of_64((number >> 64) as u64));
    text[16..].copy_from_slice(&hex_of_64(number as u64));
    text
}

fn hex_of_64(number: u64) -> [u8; 16] {
    std::array::from_fn(|position| b"0123456789abcdef"[(number >> (60 - 4 * position)) as usize & 0xf])
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
