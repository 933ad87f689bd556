//! How much of a share an endpoint has: by its weight, and while it is new, by slow start.
//!
//! Slow start as Envoy has it (with its aggression of 1): an endpoint that has just come gets calls in proportion to the time that it
//! has been there, so that its caches and its just-in-time compiler warm up. Where all are alike, which the backend knows, nothing
//! here is asked.

use super::random::Random;
use crate::mesh::{Backend, Endpoint};
use std::sync::Arc;

/// What a new endpoint gets at least, of its whole share: Envoy's 10%.
const LEAST_OF_SLOW_START: f64 = 0.1;

/// How often one is drawn until its share lets it be taken, before the shares are added up.
const DRAWS: usize = 16;

/// Shares of endpoints at a moment.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    endpoints: &'a [Arc<Endpoint>],
    heaviest: f64,
    slow_start_ns: u64,
    now_ns: u64,
}

impl<'a> Weights<'a> {
    /// `None` where all endpoints count alike.
    pub(super) fn of(backend: &Backend, endpoints: &'a [Arc<Endpoint>], now_ns: u64) -> Option<Self> {
        if backend.is_even(now_ns) {
            return None;
        }
        let heaviest = f64::from(backend.heaviest);
        Some(Self { endpoints, heaviest, slow_start_ns: backend.balancing.slow_start.as_ns(), now_ns })
    }

    /// An endpoint's share, as a part of the largest that there can be: more than 0, and 1 at most.
    pub(super) fn share(&self, endpoint: usize) -> f64 {
        let endpoint = &self.endpoints[endpoint];
        let age_ns = self.now_ns.saturating_sub(endpoint.ready_since_ns);
        let warmth = if endpoint.ready_since_ns > 0 && age_ns < self.slow_start_ns {
            (age_ns as f64 / self.slow_start_ns as f64).max(LEAST_OF_SLOW_START)
        } else {
            1.0
        };
        f64::from(endpoint.weight) / self.heaviest * warmth
    }

    /// A random endpoint, as likely as its share says.
    pub(super) fn draw(&self, random: &mut Random, excluded: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.endpoints.len();
        if count == 0 {
            return None;
        }
        for _ in 0..DRAWS {
            let drawn = random.below(count);
            if !excluded(drawn) && random.unit() < self.share(drawn) {
                return Some(drawn);
            }
        }
        // Nearly all are light beside one, or out: rare enough to be done exactly.
        let allowed = || (0..count).filter(|index| !excluded(*index));
        let mut left = random.unit() * allowed().map(|index| self.share(index)).sum::<f64>();
        let drawn = allowed().find(|index| {
            left -= self.share(*index);
            left < 0.0
        });
        drawn.or_else(|| allowed().last())
    }

    /// The better of two such, as `is_better` says of the second and the first.
    pub(super) fn better_of_two(
        &self,
        random: &mut Random,
        excluded: impl Fn(usize) -> bool,
        is_better: impl FnOnce(usize, usize) -> bool,
    ) -> Option<usize> {
        let first = self.draw(random, &excluded)?;
        let second = self.draw(random, |index| index == first || excluded(index));
        Some(second.filter(|second| is_better(*second, first)).unwrap_or(first))
    }

    /// Calls under way, as of an endpoint with the largest share: one with half of it is as busy with half the calls.
    pub(super) fn active(&self, endpoint: usize) -> f64 {
        f64::from(self.endpoints[endpoint].load.active()) / self.share(endpoint)
    }
}
