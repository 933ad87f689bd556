//! The moving average of an endpoint's latency, shared by all workers.
//!
//! Exponentially weighted over *time*: a sample that comes `t` after the one before weighs 1 − e^(−t/τ), and without samples
//! the average decays toward zero, so that an endpoint that was shunned is tried again. It is Finagle's `PeakEwma` but for two
//! things, both because of fast servers with few calls in flight: a sample above the average does not replace it (one
//! hiccup of milliseconds would shun a server of microseconds for many seconds), and a sample never weighs less than
//! [`LEAST_WEIGHT`] (at a thousand calls a second the first one would else stand for seconds). An endpoint that has calls in hand
//! and answers none is not at rest: its average decays by [`BUSY_DECAY_NS`].

use crate::mesh::Load;
use std::sync::atomic::Ordering::Relaxed;

/// τ of answers, and of an endpoint at rest: one that was shunned for being k times as slow is tried again after about ln k of these.
pub const DECAY_NS: u64 = 1_000_000_000;

/// τ of an endpoint with calls in hand: one that hangs must not look fast within seconds, and one that only holds long streams is
/// tried again.
pub const BUSY_DECAY_NS: u64 = 10_000_000_000;

/// The least that an answer weighs: about the last 32 are seen.
pub const LEAST_WEIGHT: f64 = 1.0 / 32.0;

/// τ of failures, longer than that of answers: one of a thousand calls that fails must not shun its endpoint, though it is charged
/// a second's latency.
pub const FAILURE_DECAY_NS: u64 = 10_000_000_000;

/// The least that a failure weighs: it often comes in the same moment as its own response headers, and is worth a quarter of a
/// millisecond all the same.
pub const LEAST_FAILURE_WEIGHT: f64 = 1.0 / 4096.0;

/// What a failed call is taken to have lasted at least: an endpoint that fails at once must not look fast.
pub const FAILURE_FLOOR_NS: u64 = 1_000_000_000;

/// What a sample means for the average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// The time to the response headers.
    Response,
    /// A failed call: at least [`FAILURE_FLOOR_NS`].
    Failure,
}

/// The latency to expect, in nanoseconds; `None` if never measured.
pub fn estimate(load: &Load, now_ns: u64) -> Option<f64> {
    let average = load.latency_ewma_ns.load(Relaxed);
    if average == 0 {
        return None;
    }
    let at = load.latency_at_ns.load(Relaxed);
    let tau = if load.active() > 0 { BUSY_DECAY_NS } else { DECAY_NS };
    Some(average as f64 * decay(now_ns.saturating_sub(at), tau))
}

/// Adds a sample. Two workers that add at the same moment may lose one of both samples, which an average bears.
pub fn observe(load: &Load, now_ns: u64, latency_ns: u64, sample: Sample) {
    let average = load.latency_ewma_ns.load(Relaxed);
    let at = load.latency_at_ns.load(Relaxed);
    let elapsed = now_ns.saturating_sub(at);
    let (latency, weight) = match sample {
        Sample::Response => (latency_ns, (1.0 - decay(elapsed, DECAY_NS)).max(LEAST_WEIGHT)),
        Sample::Failure => (
            latency_ns.max(FAILURE_FLOOR_NS),
            (1.0 - decay(elapsed, FAILURE_DECAY_NS)).max(LEAST_FAILURE_WEIGHT),
        ),
    };
    let next = match average {
        0 => latency,
        _ => (average as f64 * (1.0 - weight) + latency as f64 * weight) as u64,
    };
    load.latency_ewma_ns.store(next.max(1), Relaxed);
    load.latency_at_ns.store(now_ns.max(at), Relaxed);
}

/// e^(−t/τ).
fn decay(elapsed_ns: u64, tau_ns: u64) -> f64 {
    (-(elapsed_ns as f64) / tau_ns as f64).exp()
}
