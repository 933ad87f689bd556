//! Which of a large Service's endpoints the calls of one pod on one worker go to: 100 pods × 50 endpoints × 16 workers would be
//! 80,000 connections.
//!
//! Rendezvous hashing with a seed of one's own (gRFC A68): endpoints that come and go change a subset by themselves alone, and the
//! subsets of many pods together are even. It has twice as many endpoints as calls are in flight at the peak, so that each has one call
//! at most and there is a choice, and never fewer than [`LEAST`].

use super::hash;
use crate::mesh::{Endpoint, Picker};
use std::sync::Arc;

/// Endpoints of a subset at least: two of them failing is no sixth of the whole, and small Services are used as they are.
pub const LEAST: usize = 12;

/// A subset gets smaller when the peak of two such times allows it: clients have rhythms of seconds to a minute.
pub const WINDOW_NS: u64 = 60_000_000_000;

/// How large a part of the endpoints one source's calls on one worker go to.
#[derive(Debug)]
pub struct Subset {
    seed: u64,
    /// [`LEAST`], twice that, four times that…
    size: usize,
    in_flight: u32,
    /// The most in this window, and in the one before.
    peak: u32,
    peak_before: u32,
    window_ends_ns: u64,
}

impl Subset {
    /// One of the least size. `seed` says which.
    pub fn new(seed: u64, now_ns: u64) -> Self {
        Self { seed, size: LEAST, in_flight: 0, peak: 0, peak_before: 0, window_ends_ns: now_ns + WINDOW_NS }
    }

    /// A call goes to one of the endpoints.
    pub fn call_begins(&mut self) {
        self.in_flight += 1;
        self.peak = self.peak.max(self.in_flight);
    }

    /// It is there no more.
    pub fn call_ends(&mut self) {
        self.in_flight -= 1;
    }

    /// Whether the calls in flight want more endpoints than it has.
    pub fn is_too_small(&self) -> bool {
        self.in_flight as usize * 2 >= self.size
    }

    /// Takes in twice as many.
    pub fn enlarge(&mut self) {
        self.size = self.size.saturating_mul(2);
    }

    /// To be called from time to time; whether it is smaller now.
    pub fn review(&mut self, now_ns: u64) -> bool {
        if now_ns < self.window_ends_ns {
            return false;
        }
        self.window_ends_ns = now_ns + WINDOW_NS;
        let wanted = self.peak.max(self.peak_before) as usize * 2;
        self.peak_before = std::mem::replace(&mut self.peak, self.in_flight);
        let mut size = LEAST;
        while size <= wanted {
            size *= 2;
        }
        let is_smaller = size < self.size;
        self.size = self.size.min(size);
        is_smaller
    }

    /// The part of `all`, in the same order. Pickers that lead a key to its endpoint have to have them all.
    pub fn of(&self, all: &Arc<[Arc<Endpoint>]>, picker: Picker) -> Arc<[Arc<Endpoint>]> {
        if all.len() <= self.size || picker.is_by_hash() {
            return all.clone();
        }
        let rank = |index: usize| hash::of_address(all[index].address, self.seed);
        let mut chosen: Vec<usize> = (0..all.len()).collect();
        chosen.select_nth_unstable_by_key(self.size - 1, |index| rank(*index));
        chosen.truncate(self.size);
        chosen.sort_unstable();
        chosen.into_iter().map(|index| all[index].clone()).collect()
    }
}
