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
    if let Some(weights) = weights {
        return weights.better_of_two(random, excluded, |second, first| {
            let (active, other) = (weights.active(second), weights.active(first));
            is_better((&endpoints[second].load, active), (&endpoints[first].load, other), now_ns)
        });
    }
    choices::better_of_two(endpoints.len(), random, excluded, |second, first| {
        let (second, first) = (&endpoints[second].load, &endpoints[first].load);
        is_better((second, f64::from(second.active())), (first, f64::from(first.active())), now_ns)
    })
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
