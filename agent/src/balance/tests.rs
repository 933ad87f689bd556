use super::latency::{self, Sample};
use super::*;
use crate::mesh::Load;
use std::sync::atomic::Ordering::Relaxed;

const MS: u64 = 1_000_000;

fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
    (0..count)
        .map(|index| {
            Arc::new(Endpoint {
                address: format!("10.0.0.{}:50051", index + 1).parse().unwrap(),
                pod: None,
                zone: None,
                load: Arc::new(Load::default()),
            })
        })
        .collect()
}

fn shares(picker: Picker, endpoints: &[Arc<Endpoint>], picks: usize, excluded: &[usize]) -> Vec<usize> {
    let mut random = Random::new(7);
    let mut state = PickerState::new(&mut random);
    let mut shares = vec![0; endpoints.len()];
    for _ in 0..picks {
        if let Some(index) =
            pick(picker, endpoints, &mut state, &mut random, 1, |index| excluded.contains(&index))
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
    for picker in [Picker::RoundRobin, Picker::PeakEwma] {
        assert_eq!(shares(picker, &[], 5, &[]), Vec::<usize>::new());
        assert_eq!(shares(picker, &endpoints(1), 5, &[0]), [0]);
        assert_eq!(shares(picker, &endpoints(3), 5, &[0, 1, 2]), [0, 0, 0]);
        assert_eq!(shares(picker, &endpoints(3), 5, &[0, 2]), [0, 5, 0], "{picker:?}");
    }
}

#[test]
fn equal_endpoints_get_about_the_same_share_of_peak_ewma() {
    for share in shares(Picker::PeakEwma, &endpoints(4), 4000, &[]) {
        assert!((900..1100).contains(&share), "{share}");
    }
}

#[test]
fn the_busier_of_two_unmeasured_endpoints_is_left_alone() {
    let endpoints = endpoints(2);
    endpoints[0].load.active.store(3, Relaxed);
    assert_eq!(shares(Picker::PeakEwma, &endpoints, 50, &[]), [0, 50]);
}

#[test]
fn a_slow_endpoint_competes_by_latency_times_active() {
    let endpoints = endpoints(2);
    latency::observe(&endpoints[0].load, 1, 10 * MS, Sample::Response);
    latency::observe(&endpoints[1].load, 1, MS, Sample::Response);
    assert_eq!(shares(Picker::PeakEwma, &endpoints, 50, &[]), [0, 50]);
    // 1 ms × (10 + 1) is more than 10 ms × 1.
    endpoints[1].load.active.store(10, Relaxed);
    assert_eq!(shares(Picker::PeakEwma, &endpoints, 50, &[]), [50, 0]);
}

#[test]
fn the_average_jumps_up_and_sinks_with_time() {
    let load = Load::default();
    assert_eq!(latency::estimate(&load, 5), None);
    latency::observe(&load, 1000 * MS, MS, Sample::Response);
    latency::observe(&load, 1000 * MS, 8 * MS, Sample::Response);
    assert_eq!(latency::estimate(&load, 1000 * MS), Some(8.0 * MS as f64));
    // A lower sample at the same moment weighs nothing, one τ later 63%.
    latency::observe(&load, 1000 * MS, MS, Sample::Response);
    assert_eq!(latency::estimate(&load, 1000 * MS), Some(8.0 * MS as f64));
    latency::observe(&load, 1000 * MS + latency::DECAY_NS, MS, Sample::Response);
    let estimate = latency::estimate(&load, 1000 * MS + latency::DECAY_NS).unwrap() / MS as f64;
    assert!((3.5..3.6).contains(&estimate), "{estimate}");
    // And without samples it decays.
    let later = latency::estimate(&load, 1000 * MS + 3 * latency::DECAY_NS).unwrap() / MS as f64;
    assert!(later < 0.5, "{later}");
}

#[test]
fn an_endpoint_that_fails_at_once_loses_to_one_that_serves() {
    let endpoints = endpoints(2);
    for step in 0..100 {
        latency::observe(&endpoints[0].load, step * MS, MS / 10, Sample::Failure);
        latency::observe(&endpoints[1].load, step * MS, 2 * MS, Sample::Response);
    }
    assert_eq!(shares(Picker::PeakEwma, &endpoints, 50, &[]), [0, 50]);
}
