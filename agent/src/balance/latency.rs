//! The moving average of an endpoint's latency, shared by all workers.
//!
//! An exponentially weighted moving average over *time* (Finagle's `PeakEwma`): a sample that comes `t` after the one
//! before weighs 1 − e^(−t/τ), a sample above the average replaces it at once (a slow endpoint is shunned quickly and trusted
//! slowly), and without samples the average decays toward zero, so that an endpoint that was shunned is tried again.

use crate::mesh::Load;
use std::sync::atomic::Ordering::Relaxed;

/// τ: after this long an old sample weighs 37%. Finagle's default.
pub const DECAY_NS: u64 = 10_000_000_000;

/// What a failed call is taken to have lasted at least: an endpoint that fails at once must not look fast.
pub const FAILURE_FLOOR_NS: u64 = 1_000_000_000;

/// What a sample means for the average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The time to the response headers.
    Response,
    /// A failed call: at least [`FAILURE_FLOOR_NS`], and always averaged: one failure of a thousand calls must not
    /// shun an endpoint as a whole second's latency would.
    Failure,
}

/// The latency to expect, in nanoseconds; `None` if never measured.
pub fn estimate(load: &Load, now_ns: u64) -> Option<f64> {
    let average = load.latency_ewma_ns.load(Relaxed);
    if average == 0 {
        return None;
    }
    let at = load.latency_at_ns.load(Relaxed);
    Some(average as f64 * decay(now_ns.saturating_sub(at)))
}

/// Adds a sample. Two workers that add at the same moment may lose one of both samples, which an average bears.
pub fn observe(load: &Load, now_ns: u64, latency_ns: u64, sample: Sample) {
    let latency = match sample {
        Sample::Response => latency_ns.max(1),
        Sample::Failure => latency_ns.max(FAILURE_FLOOR_NS),
    };
    let average = load.latency_ewma_ns.load(Relaxed);
    let at = load.latency_at_ns.load(Relaxed);
    let next = if average == 0 || (sample == Sample::Response && latency > average) {
        latency
    } else {
        let weight = decay(now_ns.saturating_sub(at));
        (average as f64 * weight + latency as f64 * (1.0 - weight)) as u64
    };
    load.latency_ewma_ns.store(next.max(1), Relaxed);
    load.latency_at_ns.store(now_ns.max(at), Relaxed);
}

/// e^(−t/τ).
fn decay(elapsed_ns: u64) -> f64 {
    (-(elapsed_ns as f64) / DECAY_NS as f64).exp()
}
