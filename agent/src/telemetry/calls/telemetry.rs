//! Everything that is counted of calls, for those who read it. Who writes: [`Recorder`](super::Recorder).

use super::family::Family;
use super::series::{CallCounts, CallGroup, CallKey, CallSeries, EdgeCounts, EdgeGroup, EdgeSeries};
use std::time::{Duration, Instant};

/// How often what writers have left is taken in, if nobody reads.
pub const TIDY_EVERY: Duration = Duration::from_secs(30);

/// Everything that is counted of calls.
#[derive(Debug)]
pub struct Telemetry {
    pub(super) calls: Family<CallSeries>,
    pub(super) edges: Family<EdgeSeries>,
    has_sizes: bool,
}

impl Telemetry {
    /// Nothing counted yet. The distributions of sizes are Istio's metrics' alone: counted where those are wanted.
    pub fn new(has_sizes: bool) -> Self {
        Self { calls: Family::default(), edges: Family::default(), has_sizes }
    }

    /// Whether [`Self::sizes`] are counted.
    pub fn has_sizes(&self) -> bool {
        self.has_sizes
    }

    /// Calls by pod, Service port, endpoint, method and status.
    pub fn calls(&self) -> Vec<(CallKey, CallCounts)> {
        self.calls.rows(Instant::now()).into_iter().collect()
    }

    /// Calls by workloads, Service port, method and status: sums that never fall.
    pub fn call_groups(&self) -> Vec<(CallGroup, CallCounts)> {
        self.calls.groups(Instant::now()).into_iter().collect()
    }

    /// Calls' sizes by workloads, Service port and status: sums that never fall.
    pub fn sizes(&self) -> Vec<(EdgeGroup, EdgeCounts)> {
        self.edges.groups(Instant::now()).into_iter().collect()
    }

    /// Takes in what former writers left. To be called every [`TIDY_EVERY`].
    pub fn tidy(&self) {
        self.calls.tidy(Instant::now());
        self.edges.tidy(Instant::now());
    }

    /// How many series there are.
    pub fn series(&self) -> usize {
        self.calls.len() + self.edges.len()
    }
}
