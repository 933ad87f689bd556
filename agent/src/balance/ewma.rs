//! The better of two random endpoints by expected latency × (active calls + 1).
//!
//! Two choices: Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, 2001. The cost is that of Finagle's
//! `PeakEwma` balancer. The loads are shared by the node's workers: by what one worker sees alone, least-request is no
//! better than random.

use super::latency;
use super::random::Random;
use crate::mesh::{Endpoint, Load};
use std::sync::Arc;

pub(super) fn pick(
    endpoints: &[Arc<Endpoint>],
    random: &mut Random,
    now_ns: u64,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let count = endpoints.len();
    let first = match count {
        0 => return None,
        1 => return (!excluded(0)).then_some(0),
        _ => next_allowed(random.below(count), count, &excluded)?,
    };
    // A second one that is not the first: a random step of 1 to count - 1.
    let second = (first + 1 + random.below(count - 1)) % count;
    let Some(second) = next_allowed(second, count, &excluded) else { return Some(first) };
    Some(better(first, second, |index| &endpoints[index].load, now_ns))
}

/// The first endpoint from `start` on, in a circle, that may be picked.
fn next_allowed(start: usize, count: usize, excluded: impl Fn(usize) -> bool) -> Option<usize> {
    (0..count).map(|step| (start + step) % count).find(|&index| !excluded(index))
}

/// Latencies within this factor count as equal. Equal servers differ by noise, and the one of three that seems slowest by a
/// hair would lose each choice of two, and get no call at all while little is in flight.
const EQUAL_WITHIN: f64 = 1.5;

/// Latencies below this count as this, in nanoseconds: they tell of the way (another node is a few hundred microseconds away), not
/// of the server's load, and a fast server on the caller's own node would get all the calls.
const EQUAL_BELOW_NS: f64 = 1e6;

/// `first`, which is random, where neither is better.
fn better<'a>(first: usize, second: usize, load: impl Fn(usize) -> &'a Load, now_ns: u64) -> usize {
    let (a, b) = (load(first), load(second));
    let (active_a, active_b) = (f64::from(a.active()) + 1.0, f64::from(b.active()) + 1.0);
    let latency = |load| latency::estimate(load, now_ns).map(|estimate| estimate.max(EQUAL_BELOW_NS));
    let (cost_a, cost_b) = match (latency(a), latency(b)) {
        (Some(x), Some(y)) if x > y * EQUAL_WITHIN || y > x * EQUAL_WITHIN => (x * active_a, y * active_b),
        // An endpoint that was never measured is taken to be as fast as the other: neither flooded nor shunned.
        _ => (active_a, active_b),
    };
    if cost_b < cost_a { second } else { first }
}
