//! What the node's workers know of an endpoint's load, together.

use super::LeftOut;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counters of one endpoint of one backend, shared by all worker threads of the node. Kept in an `Arc` from snapshot to
/// snapshot for as long as the endpoint stands in the backend.
///
/// Why shared: least-request by what one worker sees is no better than random when workers are many.
#[derive(Debug, Default)]
pub struct Load {
    /// Calls under way.
    pub active: AtomicU32,
    /// An exponentially weighted moving average of the time to response headers, in nanoseconds; 0 = never measured.
    pub latency_ewma_ns: AtomicU64,
    /// When the average was last moved, in nanoseconds of the monotonic clock.
    pub latency_at_ns: AtomicU64,
    /// Calls begun since the endpoint was first seen.
    pub calls: AtomicU64,
    /// Calls of those that ended in a failure: an own error, a reset, or a grpc-status that says the server failed.
    pub failures: AtomicU64,
    /// Which pods pass it over, as it failed their calls.
    pub left_out: LeftOut,
}

impl Load {
    /// Calls under way.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
}
