//! Which endpoint serves a call. Pure: endpoints, their loads, a random number and the time in; an index out.
//!
//! [`choices`] takes a random endpoint, or weighs two against each other; [`ewma`] says by what the default picker does so, and
//! [`latency`] is the average that it looks at. [`round_robin`] takes each in its turn. [`ring_hash`] and [`maglev`] lead equal
//! hashes ([`hash`]) to one endpoint, by [`tables`] that are made once a backend; [`source_hash`] does it for
//! `sessionAffinity`. [`weights`] has shares where endpoints are not alike, [`subset`] says which of very many one pod's calls go to, [`spill`] how many leave the
//! neighbourhood, [`ejection`] which endpoints are left out for a time, [`order`] who is asked first. [`odds`] says beforehand, for people, what a picker would do.
//! The chosen endpoint's connections are the [`crate::proxy`] pool's business.

mod choices;
pub mod ejection;
mod ewma;
mod hash;
pub mod latency;
mod maglev;
pub mod odds;
pub mod order;
mod random;
mod ring_hash;
mod round_robin;
mod source_hash;
pub mod spill;
pub mod subset;
mod tables;
mod weights;

pub use ejection::{Ejections, Observation};
pub use random::Random;
pub use subset::Subset;
pub use tables::prepare;

use crate::http2::FieldList;
use crate::mesh::{Backend, Endpoint, Picker};
use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use weights::Weights;

/// Stands for a pod where its calls' failures are counted and where a picker hashes by the source.
pub fn source_of(pod_uid: &str) -> u64 {
    FxBuildHasher.hash_one(pod_uid)
}

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

/// Picks one of the backend's `endpoints` by its index; `None` if there is none, or `excluded` holds for all of them. They are all
/// of the backend's, or, where its picker [does not hash](Picker::is_by_hash), any of them. What is not HTTP/2 has no `request`.
pub fn pick(
    backend: &Backend,
    endpoints: &[Arc<Endpoint>],
    request: Option<&FieldList>,
    state: &mut PickerState,
    random: &mut Random,
    now_ns: u64,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    let weights = || Weights::of(backend, endpoints, now_ns);
    match backend.balancing.picker {
        Picker::Ewma => ewma::pick(endpoints, weights(), random, now_ns, excluded),
        Picker::LeastRequest => choices::least_request(endpoints, weights(), random, excluded),
        Picker::RoundRobin => round_robin::pick(endpoints.len(), weights(), &mut state.turn, excluded),
        Picker::Random => match weights() {
            Some(weights) => weights.draw(random, excluded),
            None => choices::one(endpoints.len(), random, excluded),
        },
        Picker::RingHash | Picker::Maglev => {
            let hash_on = &backend.balancing.hash_on;
            let key = match request {
                Some(request) => hash::key_of(hash_on, state.source, request),
                None => Some(state.source),
            };
            tables::pick(backend, key.unwrap_or_else(|| random.next()), excluded)
        }
        Picker::SourceHash => source_hash::pick(endpoints, state.source, excluded),
    }
}

#[cfg(test)]
mod tests;
