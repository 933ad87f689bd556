//! The better of two random endpoints by expected latency × (active calls + 1).
//!
//! Of two random choices ([`super::choices`]). The cost is that of Finagle's `PeakEwma` balancer.

use super::random::Random;
use super::weights::Weights;
use super::{choices, latency};
use crate::mesh::{Endpoint, Load};
use std::sync::Arc;

pub(super) fn pick(
    endpoints: &[Arc<Endpoint>],
    weights: Option<Weights<'_>>,
    random: &mut Random,
    now_ns: u64,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let is_better = |second, first| is_better_endpoint(endpoints, weights, now_ns, second, first);
    match weights {
        Some(weights) => weights.better_of_two(random, excluded, is_better),
        None => choices::better_of_two(endpoints.len(), random, excluded, is_better),
    }
}

/// Whether the `second` endpoint is better than the `first`.
pub(super) fn is_better_endpoint(
    endpoints: &[Arc<Endpoint>],
    weights: Option<Weights<'_>>,
    now_ns: u64,
    second: usize,
    first: usize,
) -> bool {
    let seen = |index: usize| -> (&Load, f64) { (&endpoints[index].load, active(endpoints, weights, index)) };
    is_better(seen(second), seen(first), now_ns)
}

/// Latency × (active calls + 1), in nanoseconds: what the choice goes by, where latencies differ enough. `None` if never measured.
pub(super) fn cost(
    endpoints: &[Arc<Endpoint>],
    weights: Option<Weights<'_>>,
    now_ns: u64,
    index: usize,
) -> Option<f64> {
    let latency = latency::estimate(&endpoints[index].load, now_ns)?.max(EQUAL_BELOW_NS);
    Some(latency * (active(endpoints, weights, index) + 1.0))
}

fn active(endpoints: &[Arc<Endpoint>], weights: Option<Weights<'_>>, index: usize) -> f64 {
    match weights {
        Some(weights) => weights.active(index),
        None => f64::from(endpoints[index].load.active()),
    }
}

/// Latencies within this factor count as equal. Equal servers differ by noise, and the one of three that seems slowest by a
/// hair would lose each choice of two, and get no call at all while little is in flight.
const EQUAL_WITHIN: f64 = 1.5;

/// Latencies below this count as this, in nanoseconds: they tell of the way (another node is a few hundred microseconds away), not
/// of the server's load, and a fast server on the caller's own node would get all the calls.
const EQUAL_BELOW_NS: f64 = 1e6;

fn is_better((second, active_b): (&Load, f64), (first, active_a): (&Load, f64), now_ns: u64) -> bool {
    let (active_a, active_b) = (active_a + 1.0, active_b + 1.0);
    let latency = |load| latency::estimate(load, now_ns).map(|estimate| estimate.max(EQUAL_BELOW_NS));
    match (latency(first), latency(second)) {
        (Some(x), Some(y)) if x > y * EQUAL_WITHIN || y > x * EQUAL_WITHIN => y * active_b < x * active_a,
        // An endpoint that was never measured is taken to be as fast as the other: neither flooded nor shunned.
        _ => active_b < active_a,
    }
}
