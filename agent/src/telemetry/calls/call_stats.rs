//! A call that is over, in numbers: filled once, where it ends, and read by whoever counts it or tells of it.

use super::Status;

/// How a call ended, when, and how much was in it. Times are nanoseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallStats {
    /// How it ended.
    pub status: Status,
    /// When its request came.
    pub began_ns: u64,
    /// When it was first sent to a server: what was before, it waited for an endpoint, a connection or a stream.
    pub first_sent_ns: Option<u64>,
    /// When a server's response headers came.
    pub headers_ns: Option<u64>,
    /// When it was over: its answer was written to the client's connection, or would never be.
    pub ended_ns: u64,
    /// Body bytes that came from the client.
    pub request_bytes: u64,
    /// Body bytes that came from a server.
    pub response_bytes: u64,
    /// Of a gRPC call: messages that the client began.
    pub request_messages: u32,
    /// And that a server began.
    pub response_messages: u32,
    /// Endpoints that were chosen for it, one after the other; 255 stands for more as well.
    pub attempts: u8,
    /// The client's connection had carried a call before.
    pub on_existing_connection: bool,
}

impl CallStats {
    /// From the request to the end.
    pub fn duration_ns(&self) -> u64 {
        self.ended_ns.saturating_sub(self.began_ns)
    }

    /// From the request to a moment of the call, in milliseconds.
    pub fn since_began_ms(&self, at_ns: u64) -> f64 {
        at_ns.saturating_sub(self.began_ns) as f64 / 1e6
    }
}
