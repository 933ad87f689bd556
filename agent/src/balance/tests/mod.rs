//! The pickers over a few endpoints. [`ejection`] has who is left out, [`hashing`] has those that hash, [`shares`] endpoints that are not alike, [`many_nodes`] what becomes of a whole cluster's calls.

mod ejection;
mod hashing;
mod many_nodes;
mod shares;

use super::latency::{self, Sample};
use super::*;
use crate::mesh::{Endpoint, Load, ObjectName, ServicePort};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const MS: u64 = 1_000_000;

const ALL: [Picker; 7] = [
    Picker::Ewma,
    Picker::LeastRequest,
    Picker::RoundRobin,
    Picker::Random,
    Picker::RingHash,
    Picker::Maglev,
    Picker::SourceHash,
];

fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
    let address = |index: usize| format!("10.0.{}.{}:50051", index / 250, index % 250 + 1).parse().unwrap();
    (0..count).map(|index| Arc::new(Endpoint::at(address(index)))).collect()
}

fn backend(picker: Picker, endpoints: &[Arc<Endpoint>]) -> Backend {
    let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
    let backend = Backend::new(service_port, endpoints.into(), picker);
    prepare(&backend, None);
    backend
}

fn shares(picker: Picker, endpoints: &[Arc<Endpoint>], picks: usize, excluded: &[usize]) -> Vec<usize> {
    let mut random = Random::new(7);
    let mut state = PickerState::new(&mut random, 0);
    let backend = backend(picker, endpoints);
    let mut shares = vec![0; endpoints.len()];
    for _ in 0..picks {
        let is_excluded = |index: usize| excluded.contains(&index);
        if let Some(index) = pick(&backend, &backend.endpoints, None, &mut state, &mut random, 1, is_excluded)
        {
            shares[index] += 1;
        }
    }
    shares
}

#[test]
fn round_robin_gives_each_endpoint_the_same_share() {
    assert_eq!(shares(Picker::RoundRobin, &endpoints(3), 600, &[]), [200, 200, 200]);
    assert_eq!(shares(Picker::RoundRobin, &endpoints(4), 600, &[1]), [200, 0, 200, 200]);
}

#[test]
fn nothing_is_picked_where_nothing_may_be() {
    for picker in ALL {
        assert_eq!(shares(picker, &[], 5, &[]), Vec::<usize>::new());
        assert_eq!(shares(picker, &endpoints(1), 5, &[0]), [0]);
        assert_eq!(shares(picker, &endpoints(3), 5, &[0, 1, 2]), [0, 0, 0]);
        assert_eq!(shares(picker, &endpoints(3), 5, &[0, 2]), [0, 5, 0], "{picker:?}");
    }
}

#[test]
fn equal_endpoints_get_about_the_same_share() {
    for picker in [Picker::Ewma, Picker::LeastRequest, Picker::Random] {
        for share in shares(picker, &endpoints(4), 4000, &[]) {
            assert!((900..1100).contains(&share), "{picker:?}: {share}");
        }
        // Those that stay share alike what one gets no more.
        for share in shares(picker, &endpoints(5), 4000, &[2]).into_iter().filter(|share| *share > 0) {
            assert!((850..1150).contains(&share), "{picker:?}: {share}");
        }
    }
}

#[test]
fn the_busier_of_two_unmeasured_endpoints_is_left_alone() {
    let endpoints = endpoints(2);
    endpoints[0].load.active.store(3, Relaxed);
    for picker in [Picker::Ewma, Picker::LeastRequest] {
        assert_eq!(shares(picker, &endpoints, 50, &[]), [0, 50]);
    }
    assert!(shares(Picker::Random, &endpoints, 50, &[])[0] > 10);
}

#[test]
fn least_request_does_not_know_of_latency() {
    let endpoints = endpoints(2);
    latency::observe(&endpoints[0].load, 1, 100 * MS, Sample::Response);
    latency::observe(&endpoints[1].load, 1, MS, Sample::Response);
    assert!(shares(Picker::LeastRequest, &endpoints, 50, &[])[0] > 10);
}

#[test]
fn a_slow_endpoint_competes_by_latency_times_active() {
    let endpoints = endpoints(2);
    latency::observe(&endpoints[0].load, 1, 10 * MS, Sample::Response);
    latency::observe(&endpoints[1].load, 1, MS, Sample::Response);
    assert_eq!(shares(Picker::Ewma, &endpoints, 50, &[]), [0, 50]);
    // 1 ms × (10 + 1) is more than 10 ms × 1.
    endpoints[1].load.active.store(10, Relaxed);
    assert_eq!(shares(Picker::Ewma, &endpoints, 50, &[]), [50, 0]);
}

#[test]
fn the_average_follows_its_samples_and_sinks_without_them() {
    let load = Load::default();
    assert_eq!(latency::estimate(&load, 5), None);
    latency::observe(&load, 1000 * MS, MS, Sample::Response);
    // A sample at the same moment has the least weight, one τ later 63%.
    latency::observe(&load, 1000 * MS, 33 * MS, Sample::Response);
    assert_eq!(latency::estimate(&load, 1000 * MS), Some(2.0 * MS as f64));
    latency::observe(&load, 1000 * MS + latency::DECAY_NS, MS, Sample::Response);
    let estimate = latency::estimate(&load, 1000 * MS + latency::DECAY_NS).unwrap() / MS as f64;
    assert!((1.36..1.38).contains(&estimate), "{estimate}");
    let later = latency::estimate(&load, 1000 * MS + 3 * latency::DECAY_NS).unwrap() / MS as f64;
    assert!(later < 0.2, "{later}");
}

/// A minute of a thousand calls a second, one at a time, over endpoints of these latencies in microseconds; each call takes up to
/// twice as long, and one of a hundred 5 ms.
fn shares_of_a_minute(latencies_us: &[u64]) -> Vec<f64> {
    const CALLS: u64 = 60_000;
    let endpoints = endpoints(latencies_us.len());
    let mut random = Random::new(11);
    let mut state = PickerState::new(&mut random, 0);
    let mut shares = vec![0.0; endpoints.len()];
    let backend = backend(Picker::Ewma, &endpoints);
    for call in 0..CALLS {
        let now = call * MS;
        let index =
            pick(&backend, &backend.endpoints, None, &mut state, &mut random, now, |_| false).unwrap();
        shares[index] += 1.0 / CALLS as f64;
        let usual = latencies_us[index] * 1000;
        let took = if random.below(100) == 0 { 5 * MS } else { usual + random.below(usual as usize) as u64 };
        latency::observe(&endpoints[index].load, now + took, took, Sample::Response);
    }
    shares
}

#[test]
fn equal_endpoints_get_like_shares_though_their_latencies_flicker() {
    // The last: one on the caller's own node, one on another.
    for latencies in [vec![200; 3], vec![200, 210, 220], vec![5_000; 5], vec![80, 500]] {
        let shares = shares_of_a_minute(&latencies);
        let even = 1.0 / shares.len() as f64;
        assert!(shares.iter().all(|share| (share / even - 1.0).abs() < 0.2), "{latencies:?}: {shares:?}");
    }
}

#[test]
fn a_slow_endpoint_is_tried_now_and_then() {
    let shares = shares_of_a_minute(&[200, 200, 4_000]);
    assert!((0.0001..0.05).contains(&shares[2]), "{shares:?}");
}

#[test]
fn an_endpoint_that_fails_at_once_loses_to_one_that_serves() {
    let endpoints = endpoints(2);
    for step in 0..100 {
        latency::observe(&endpoints[0].load, step * MS, MS / 10, Sample::Failure);
        latency::observe(&endpoints[1].load, step * MS, 2 * MS, Sample::Response);
    }
    assert_eq!(shares(Picker::Ewma, &endpoints, 50, &[]), [0, 50]);
}

#[test]
fn an_endpoint_that_answers_at_once_with_a_failure_is_shunned_and_one_that_fails_now_and_then_is_not() {
    // Each failure has response headers of its own, in the same moment.
    let answers = |load: &Load, now, fails: bool| {
        latency::observe(load, now, MS / 10, Sample::Response);
        if fails {
            latency::observe(load, now, MS / 10, Sample::Failure);
        }
    };
    let endpoints = endpoints(3);
    let backend = backend(Picker::Ewma, &endpoints);
    for call in 1..2_000 {
        answers(&endpoints[0].load, call * MS, true);
        answers(&endpoints[1].load, call * MS, call % 100 == 0);
        answers(&endpoints[2].load, call * MS, false);
    }
    let mut random = Random::new(5);
    let mut state = PickerState::new(&mut random, 0);
    let mut shares = [0; 3];
    for _ in 0..3_000 {
        let picked = pick(&backend, &endpoints, None, &mut state, &mut random, 2_000 * MS, |_| false);
        shares[picked.unwrap()] += 1;
    }
    assert!(shares[0] == 0 && shares[1] > 1_300 && shares[2] > 1_300, "{shares:?}");
}

#[test]
fn an_endpoint_that_hangs_does_not_look_fast() {
    let endpoints = endpoints(3);
    let backend = backend(Picker::Ewma, &endpoints);
    let mut random = Random::new(5);
    let mut state = PickerState::new(&mut random, 0);
    for endpoint in &endpoints {
        latency::observe(&endpoint.load, MS, 20 * MS, Sample::Response);
    }
    // 200 calls a second: each lasts 20 ms, or for ever with the last one.
    let mut ends = std::collections::VecDeque::new();
    for now in (1..10_000).step_by(5).map(|ms| ms * MS) {
        while ends.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, index)) = ends.pop_front() else { break };
            let load: &Load = &endpoints[index as usize].load;
            load.active.fetch_sub(1, Relaxed);
            latency::observe(load, now, 20 * MS, Sample::Response);
        }
        let index = pick(&backend, &endpoints, None, &mut state, &mut random, now, |_| false).unwrap();
        endpoints[index].load.active.fetch_add(1, Relaxed);
        if index < 2 {
            ends.push_back((now + 20 * MS, index as u32));
        }
    }
    let stuck = endpoints[2].load.active();
    assert!((1..20).contains(&stuck), "{stuck} of 2,000 calls are stuck");
}
