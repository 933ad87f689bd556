//! Which endpoint serves a call. Pure: endpoints, their loads, a random number and the time in; an index out.
//!
//! [`ewma`] weighs two random endpoints against each other, [`round_robin`] takes each in its turn, and
//! [`latency`] is the average that the first of them looks at. The chosen endpoint's connections are the
//! [`crate::proxy`] pool's business.

mod ewma;
pub mod latency;
mod random;
mod round_robin;

pub use random::Random;

use crate::mesh::{Endpoint, Picker};
use std::sync::Arc;

/// What a picker remembers from pick to pick, for one client connection.
#[derive(Debug, Clone, Copy)]
pub struct PickerState {
    /// The position of the last endpoint that round robin took.
    turn: usize,
}

impl PickerState {
    /// Starts at a random position, so that many turns do not fall on one endpoint at the same time.
    pub fn new(random: &mut Random) -> Self {
        Self { turn: random.next() as u32 as usize }
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
    }
}

#[cfg(test)]
mod tests;
