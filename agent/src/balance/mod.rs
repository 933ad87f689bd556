//! Which endpoint serves a call. Pure: endpoints, their loads, a random number and the time in; an index out.
//!
//! [`ewma`] weighs two random endpoints against each other, [`round_robin`] takes each in its turn, [`source_hash`] gives
//! each source one of its own, and [`latency`] is the average that the first of them looks at. The chosen endpoint's connections are the
//! [`crate::proxy`] pool's business.

mod ewma;
pub mod latency;
mod random;
mod round_robin;
mod source_hash;

pub use random::Random;

use crate::mesh::{Endpoint, Picker};
use std::sync::Arc;

/// What a picker remembers from pick to pick, for one client connection.
#[derive(Debug, Clone, Copy)]
pub struct PickerState {
    /// The position of the last endpoint that round robin took.
    turn: usize,
    /// Stands for who sends the calls.
    source: u64,
}

impl PickerState {
    /// Starts at a random position, so that many turns do not fall on one endpoint at the same time. `source` is a hash of who
    /// sends the calls.
    pub fn new(random: &mut Random, source: u64) -> Self {
        Self { turn: random.next() as u32 as usize, source }
    }
}

/// Picks an endpoint by its index; `None` if there is none, or `excluded` holds for all of them.
pub fn pick(
    picker: Picker,
    endpoints: &[Arc<Endpoint>],
    state: &mut PickerState,
    random: &mut Random,
    now_ns: u64,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    match picker {
        Picker::Ewma => ewma::pick(endpoints, random, now_ns, excluded),
        Picker::RoundRobin => round_robin::pick(endpoints.len(), &mut state.turn, excluded),
        Picker::SourceHash => source_hash::pick(endpoints, state.source, excluded),
    }
}

#[cfg(test)]
mod tests;
