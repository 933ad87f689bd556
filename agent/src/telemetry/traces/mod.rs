//! Distributed traces on the call path: a call that belongs to a sampled trace gets a span of the agent's own, between its client's and its
//! server's.
//!
//! [`context`] reads a request's trace context and writes the agent's span into it, [`sampling`] decides by trace id; the [`Tracer`] asks both
//! for each call, and takes its [`Span`] at the end. From there spans go on to [`otlp`](super::otlp).

mod context;
mod sampling;
mod span;
mod tracer;

pub use context::{heeds_trace_state, trace_id};
pub use sampling::Ratio;
pub use span::{CallTrace, Retry, RetryCause, Span};
pub use tracer::Tracer;
