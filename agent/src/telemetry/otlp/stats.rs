//! What became of spans: each that a call path had for the exporter is counted once.

use crate::telemetry::DropCount;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the exporter writes down.
#[derive(Debug, Default)]
pub(super) struct TraceStats {
    pub(super) sent: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) failed_exports: AtomicU64,
}

/// What became of spans, to be asked for at any time; all 0 where traces are off.
#[derive(Debug, Clone, Default)]
pub struct TraceCounts {
    pub(super) stats: Arc<TraceStats>,
    pub(super) dropped: DropCount,
}

impl TraceCounts {
    /// There was no room for them: the collector does not keep up.
    pub fn dropped(&self) -> u64 {
        self.dropped.count()
    }

    /// The collector has taken them.
    pub fn sent(&self) -> u64 {
        self.stats.sent.load(Relaxed)
    }

    /// The collector took their batch, but not them.
    pub fn rejected(&self) -> u64 {
        self.stats.rejected.load(Relaxed)
    }

    /// The collector refused their batch, or was out of reach for too long.
    pub fn failed(&self) -> u64 {
        self.stats.failed.load(Relaxed)
    }

    /// Tries to send a batch that did not succeed.
    pub fn failed_exports(&self) -> u64 {
        self.stats.failed_exports.load(Relaxed)
    }
}
