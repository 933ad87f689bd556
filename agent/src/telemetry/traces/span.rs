//! A call's span: what the call carries of it while it is under way, and all of it at the end.

use super::context;
use crate::http2::FieldList;
use crate::mesh::Endpoint;
use crate::telemetry::{CallStats, Link};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

/// So many of a call's retries are told of one by one; no policy allows as many.
const MOST_RETRIES: usize = 16;

/// The trace that a call belongs to.
#[derive(Debug)]
pub struct CallTrace {
    /// The trace.
    pub trace_id: u128,
    /// The agent's own span, which the server sees as its parent.
    pub span_id: NonZeroU64,
    /// The client's span; `None`: the trace begins here.
    pub parent_id: Option<NonZeroU64>,
    retries: Vec<Retry>,
}

/// Why a call left an endpoint for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCause {
    /// The endpoint took no connection.
    ConnectionRefused,
    /// The server refused the stream, and had not looked at the call.
    StreamRefused,
    /// The connection was lost before the call was on it.
    ConnectionLost,
    /// The endpoint was taken away before the call was on a connection to it.
    EndpointGone,
    /// The call had failed with this gRPC status, and the Service's policy has it sent again.
    Status(u8),
}

/// An attempt that was not the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// When it was over, in nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Which endpoint it was at.
    pub endpoint: SocketAddr,
    /// Why.
    pub cause: RetryCause,
}

impl CallTrace {
    pub(super) fn new(trace_id: u128, span_id: NonZeroU64, parent_id: Option<NonZeroU64>) -> Self {
        Self { trace_id, span_id, parent_id, retries: Vec::new() }
    }

    /// The call goes to another endpoint, or to the same once more.
    pub fn retried(&mut self, retry: Retry) {
        if self.retries.len() < MOST_RETRIES {
            self.retries.push(retry);
        }
    }

    /// The request goes without the span, which is not made then.
    pub fn take_back(&self, request: &mut FieldList) {
        context::take_back(self.parent_id, request);
    }

    /// Bytes of heap behind it.
    pub fn held_bytes(&self) -> usize {
        self.retries.capacity() * size_of::<Retry>()
    }

    /// The attempts that were not the last, as they were over.
    pub fn retries(&self) -> &[Retry] {
        &self.retries
    }
}

/// A traced call that is over.
#[derive(Debug)]
pub struct Span {
    /// Its place in the trace.
    pub trace: CallTrace,
    /// `tracestate` as it came and went on; empty without one.
    pub trace_state: Box<str>,
    /// Who called which Service port.
    pub link: Arc<Link>,
    /// The endpoint that was chosen last.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Of a gRPC call, `package.Service/Method`; empty for other requests.
    pub method: Arc<str>,
    /// Of another request, its HTTP method; empty for a gRPC call.
    pub http_method: Box<str>,
    /// How it ended, when, and how much was in it.
    pub stats: CallStats,
}
