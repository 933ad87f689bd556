//! One endpoint at random, or the better of two random ones.
//!
//! Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*, 2001: two choices instead of one make the
//! longest queue exponentially shorter, and more than two add little.

use super::random::Random;
use super::weights::Weights;
use crate::mesh::{Endpoint, Load};
use std::sync::Arc;

/// Any.
pub(super) fn one(count: usize, random: &mut Random, excluded: impl Fn(usize) -> bool) -> Option<usize> {
    match count {
        0 => None,
        _ => {
            let drawn = random.below(count);
            if !excluded(drawn) {
                return Some(drawn);
            }
            // Counted, and not the next one: its neighbour would get the calls of one that is out.
            let allowed = || (0..count).filter(|index| !excluded(*index));
            let left = allowed().count();
            allowed().nth(random.below(left.max(1)))
        }
    }
}

/// The better of two, as `is_better` says of the second and the first; the first, which is random, where neither is.
pub(super) fn better_of_two(
    count: usize,
    random: &mut Random,
    excluded: impl Fn(usize) -> bool,
    is_better: impl FnOnce(usize, usize) -> bool,
) -> Option<usize> {
    let first = match count {
        0 => return None,
        1 => return (!excluded(0)).then_some(0),
        _ => draw(count, &excluded, || random.below(count))?,
    };
    // A second one that is not the first: a random step of 1 to count - 1.
    let second = draw(count, &excluded, || (first + 1 + random.below(count - 1)) % count);
    let Some(second) = second else { return Some(first) };
    Some(if is_better(second, first) { second } else { first })
}

/// How often one is drawn until it is one that may be picked: where a few are out, their neighbours shall not get their calls.
const DRAWS: usize = 4;

fn draw(count: usize, excluded: impl Fn(usize) -> bool, mut drawn: impl FnMut() -> usize) -> Option<usize> {
    let mut last = 0;
    for _ in 0..DRAWS {
        last = drawn();
        if !excluded(last) {
            return Some(last);
        }
    }
    // Nearly all are out: the next one, in a circle.
    (1..count).map(|step| (last + step) % count).find(|&index| !excluded(index))
}

/// The one of two with fewer calls under way. The loads are shared by the node's workers: by what one worker sees alone,
/// least-request is no better than random.
pub(super) fn least_request(
    endpoints: &[Arc<Endpoint>],
    weights: Option<Weights<'_>>,
    random: &mut Random,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let is_better = |second, first| has_fewer(endpoints, weights, second, first);
    match weights {
        Some(weights) => weights.better_of_two(random, excluded, is_better),
        None => better_of_two(endpoints.len(), random, excluded, is_better),
    }
}

/// Whether the `second` endpoint has fewer calls under way than the `first`.
pub(super) fn has_fewer(
    endpoints: &[Arc<Endpoint>],
    weights: Option<Weights<'_>>,
    second: usize,
    first: usize,
) -> bool {
    if let Some(weights) = weights {
        return weights.active(second) < weights.active(first);
    }
    let load = |index: usize| -> &Load { &endpoints[index].load };
    load(second).active() < load(first).active()
}
