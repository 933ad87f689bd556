//! What a picker would do with a call at this moment, for people: nothing is picked, and nothing changes.

use super::weights::Weights;
use super::{choices, ewma, hash, source_hash, tables};
use crate::http2::FieldList;
use crate::mesh::{Backend, Endpoint, Picker};
use std::sync::Arc;

/// Beyond so many endpoints no odds are reckoned: each is weighed against each, which is to cost milliseconds at most.
const MOST_RECKONED: usize = 256;

/// What a picker would do.
#[derive(Debug, Clone, PartialEq)]
pub enum Prospect {
    /// It would take this one.
    One(usize),
    /// How likely it is to take each: they add up to 1. One that is excluded has 0.
    Odds(Vec<f64>),
    /// Chance decides among too many to say more.
    TooMany,
    /// There is none that it could take.
    Nobody,
}

/// What the backend's picker would do with a call of this `source` with these request headers. The arguments are those of
/// [`pick`](super::pick).
pub fn prospect(
    backend: &Backend,
    endpoints: &[Arc<Endpoint>],
    request: &FieldList,
    source: u64,
    now_ns: u64,
    excluded: impl Fn(usize) -> bool,
) -> Prospect {
    if (0..endpoints.len()).all(&excluded) {
        return Prospect::Nobody;
    }
    let picker = backend.balancing.picker;
    let certain = match picker {
        Picker::RingHash | Picker::Maglev => hash::key_of(&backend.balancing.hash_on, source, request)
            .and_then(|key| tables::pick(backend, key, &excluded)),
        Picker::SourceHash => source_hash::pick(endpoints, source, &excluded),
        Picker::Ewma | Picker::LeastRequest | Picker::RoundRobin | Picker::Random => None,
    };
    if let Some(endpoint) = certain {
        return Prospect::One(endpoint);
    }
    if endpoints.len() > MOST_RECKONED {
        return Prospect::TooMany;
    }
    let weights = Weights::of(backend, endpoints, now_ns);
    let share = |index: usize| match weights {
        _ if excluded(index) => 0.0,
        Some(weights) => weights.share(index),
        None => 1.0,
    };
    let shares: Vec<f64> = (0..endpoints.len()).map(share).collect();
    Prospect::Odds(match picker {
        Picker::Ewma => of_two(&shares, |second, first| {
            ewma::is_better_endpoint(endpoints, weights, now_ns, second, first)
        }),
        Picker::LeastRequest => {
            of_two(&shares, |second, first| choices::has_fewer(endpoints, weights, second, first))
        }
        // Turns go past those that are excluded, and come to the others alike.
        _ => of_one(&shares),
    })
}

/// Latency × (active calls + 1) of an endpoint, in nanoseconds, as the default picker sees it; `None` if never measured.
pub fn cost(backend: &Backend, endpoints: &[Arc<Endpoint>], now_ns: u64, index: usize) -> Option<f64> {
    ewma::cost(endpoints, Weights::of(backend, endpoints, now_ns), now_ns, index)
}

/// An endpoint's share, as a part of the largest that there can be: by its weight, and while it is new, by slow start.
pub fn share(backend: &Backend, endpoints: &[Arc<Endpoint>], now_ns: u64, index: usize) -> f64 {
    Weights::of(backend, endpoints, now_ns).map_or(1.0, |weights| weights.share(index))
}

/// One is drawn.
fn of_one(shares: &[f64]) -> Vec<f64> {
    let all: f64 = shares.iter().sum();
    shares.iter().map(|share| share / all).collect()
}

/// Two are drawn, and the second is taken if it is better.
fn of_two(shares: &[f64], is_better: impl Fn(usize, usize) -> bool) -> Vec<f64> {
    let all: f64 = shares.iter().sum();
    let allowed: Vec<usize> = (0..shares.len()).filter(|index| shares[*index] > 0.0).collect();
    let mut odds = vec![0.0; shares.len()];
    for &first in &allowed {
        let first_odds = shares[first] / all;
        if allowed.len() == 1 {
            odds[first] = 1.0;
            continue;
        }
        for &second in allowed.iter().filter(|second| **second != first) {
            let both = first_odds * shares[second] / (all - shares[first]);
            odds[if is_better(second, first) { second } else { first }] += both;
        }
    }
    odds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::{PickerState, Random, pick};
    use crate::mesh::{Balancing, HashOn, ObjectName, ServicePort};
    use std::net::SocketAddr;
    use std::sync::atomic::Ordering::Relaxed;

    const NOW_NS: u64 = 1_000_000_000_000;

    /// Endpoints with (weight, active calls, latency in milliseconds).
    fn backend(balancing: impl Into<Balancing>, endpoints: &[(u32, u32, u64)]) -> Backend {
        let endpoint = |(number, (weight, active, latency_ms)): (usize, &(u32, u32, u64))| {
            let address = SocketAddr::from(([10, 0, (number / 250) as u8, (number % 250) as u8 + 1], 80));
            let endpoint = Endpoint { weight: *weight, ..Endpoint::at(address) };
            endpoint.load.active.store(*active, Relaxed);
            endpoint.load.latency_ewma_ns.store(latency_ms * 1_000_000, Relaxed);
            endpoint.load.latency_at_ns.store(NOW_NS, Relaxed);
            Arc::new(endpoint)
        };
        let endpoints = endpoints.iter().enumerate().map(endpoint).collect();
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 80 };
        Backend::new(service_port, endpoints, balancing)
    }

    fn request(fields: &[(&str, &str)]) -> FieldList {
        let mut request = FieldList::new();
        fields.iter().for_each(|(name, value)| request.push(name.as_bytes(), value.as_bytes()));
        request
    }

    /// How often each is picked of many times.
    fn picked(backend: &Backend, excluded: impl Fn(usize) -> bool) -> Vec<f64> {
        const PICKS: usize = 40_000;
        let mut random = Random::new(7);
        let mut state = PickerState::new(&mut random, 1);
        let mut counts = vec![0.0; backend.endpoints.len()];
        for _ in 0..PICKS {
            let endpoints = &backend.endpoints;
            let picked = pick(backend, endpoints, None, &mut state, &mut random, NOW_NS, &excluded);
            counts[picked.unwrap()] += 1.0 / PICKS as f64;
        }
        counts
    }

    #[test]
    fn the_odds_are_what_becomes_of_many_picks() {
        let even = [(100, 0, 5), (100, 0, 5), (100, 0, 5), (100, 0, 5)];
        let busy = [(100, 9, 5), (100, 0, 5), (100, 3, 5), (100, 3, 5)];
        let slow = [(100, 0, 80), (100, 0, 5), (100, 1, 5), (100, 2, 20)];
        let heavy = [(300, 2, 5), (100, 1, 5), (50, 0, 5), (100, 2, 30)];
        for picker in [Picker::Ewma, Picker::LeastRequest, Picker::Random, Picker::RoundRobin] {
            for endpoints in [even, busy, slow, heavy] {
                for out in [None, Some(1)] {
                    let backend = backend(picker, &endpoints);
                    let excluded = |index| Some(index) == out;
                    let prospect = prospect(&backend, &backend.endpoints, &request(&[]), 1, NOW_NS, excluded);
                    let Prospect::Odds(odds) = prospect else { panic!("{picker:?}: {prospect:?}") };
                    let seen = picked(&backend, excluded);
                    for (index, (odds, seen)) in odds.iter().zip(&seen).enumerate() {
                        let what = format!("{picker:?} {endpoints:?} without {out:?}: {index}");
                        // Draws that fall on one that is out go on as pickers do, which is not quite even.
                        assert!((odds - seen).abs() < 0.03, "{what} has odds {odds}, and was picked {seen}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_a_picker_that_hashes_it_is_said_which_one_it_takes() {
        let endpoints = [(100, 0, 5); 5];
        let by_user = |picker| Balancing {
            picker,
            hash_on: "header:x-user".parse::<HashOn>().unwrap(),
            ..Balancing::default()
        };
        for picker in [Picker::RingHash, Picker::Maglev] {
            let backend = backend(by_user(picker), &endpoints);
            for user in ["anna", "bert", "carl"] {
                let request = request(&[("x-user", user)]);
                for out in [None, Some(0), Some(3)] {
                    let excluded = |index| Some(index) == out;
                    let mut random = Random::new(3);
                    let mut state = PickerState::new(&mut random, 9);
                    let (endpoints, now) = (&backend.endpoints, NOW_NS);
                    let taken =
                        pick(&backend, endpoints, Some(&request), &mut state, &mut random, now, excluded);
                    let said = prospect(&backend, endpoints, &request, 9, now, excluded);
                    assert_eq!(said, Prospect::One(taken.unwrap()), "{picker:?} {user} without {out:?}");
                }
            }
            let without = prospect(&backend, &backend.endpoints, &request(&[]), 9, NOW_NS, |_| false);
            assert_eq!(without, Prospect::Odds(vec![0.2; 5]), "a call without the header goes anywhere");
        }
        let backend = backend(Picker::SourceHash, &endpoints);
        let mut random = Random::new(3);
        for source in 0..20 {
            let mut state = PickerState::new(&mut random, source);
            let endpoints = &backend.endpoints;
            let taken = pick(&backend, endpoints, None, &mut state, &mut random, NOW_NS, |_| false).unwrap();
            let said = prospect(&backend, endpoints, &request(&[]), source, NOW_NS, |_| false);
            assert_eq!(said, Prospect::One(taken));
        }
    }

    #[test]
    fn where_nobody_is_left_or_too_many_are_that_is_said() {
        let few = backend(Picker::Ewma, &[(100, 0, 5); 2]);
        let said = |backend: &Backend, excluded: &dyn Fn(usize) -> bool| {
            prospect(backend, &backend.endpoints, &request(&[]), 1, NOW_NS, excluded)
        };
        assert_eq!(said(&few, &|_| true), Prospect::Nobody);
        assert_eq!(said(&few, &|index| index == 0), Prospect::Odds(vec![0.0, 1.0]));
        let many = backend(Picker::Ewma, &[(100, 0, 5); MOST_RECKONED + 1]);
        assert_eq!(said(&many, &|_| false), Prospect::TooMany);
        assert_eq!(said(&backend(Picker::Ewma, &[]), &|_| false), Prospect::Nobody);
    }
}
