//! Endpoints that are not alike: weights, slow start; and subsets of very many.

use super::*;
use crate::balance::subset::{LEAST, Subset, WINDOW_NS};
use crate::mesh::Balancing;
use std::collections::HashSet;

const SECOND: u64 = 1_000_000_000;

fn weighted(weights: &[u32]) -> Vec<Arc<Endpoint>> {
    let of = |(endpoint, weight): (&Arc<Endpoint>, &u32)| {
        Arc::new(Endpoint { weight: *weight, ..Endpoint::at(endpoint.address) })
    };
    endpoints(weights.len()).iter().zip(weights).map(of).collect()
}

#[test]
fn picks_are_as_many_as_weights_say() {
    for picker in [Picker::Ewma, Picker::LeastRequest, Picker::Random, Picker::RoundRobin] {
        let shares = shares(picker, &weighted(&[100, 300, 1000, 200]), 16_000, &[]);
        for (share, expected) in shares.iter().zip([1000, 3000, 10_000, 2000]) {
            let off = (*share as f64 / f64::from(expected) - 1.0).abs();
            assert!(off < 0.1, "{picker:?}: {shares:?}");
        }
        // What one gets no more the others share by their weights.
        let shares = self::shares(picker, &weighted(&[100, 300, 1000, 200]), 6000, &[2]);
        assert_eq!(shares[2], 0);
        assert!((shares[1] as f64 / shares[0] as f64 - 3.0).abs() < 0.6, "{picker:?}: {shares:?}");
    }
}

#[test]
fn one_heavy_endpoint_among_many_light_ones_gets_its_share_and_not_more() {
    for (heavy, light_ones) in [(100, 29), (1000, 9), (1, 9)] {
        let mut weights = vec![1; light_ones];
        weights.push(heavy);
        let whole = f64::from(weights.iter().sum::<u32>());
        for picker in [Picker::Ewma, Picker::LeastRequest, Picker::Random] {
            let picks = 40_000;
            let shares = shares(picker, &weighted(&weights), picks, &[]);
            let of_light = shares[..light_ones].iter().sum::<usize>() as f64 / picks as f64;
            let expected = light_ones as f64 / whole;
            // Of two draws, without putting back, the better; and chance.
            let off = (of_light - expected).abs();
            if picker == Picker::Random {
                assert!(off < 0.1 * expected + 0.002, "{picker:?} {heavy}: {of_light}, not {expected}");
            } else {
                assert!(of_light < 2.0 * expected + 0.01, "{picker:?} {heavy}: {of_light}, not {expected}");
            }
        }
    }
}

#[test]
fn farther_endpoints_count_in_weights_and_slow_start() {
    let near = endpoints(4);
    let backend_of = |far: Endpoint| {
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let balancing = Balancing { slow_start: "20s".parse().unwrap(), ..Picker::Random.into() };
        let wider = [&near[..], &[Arc::new(far)]].concat();
        Backend::new(service_port, near.clone().into(), balancing).with_wider(wider.into())
    };
    let far = || Endpoint::at("10.1.0.1:50051".parse().unwrap());
    let light = backend_of(Endpoint { weight: 10, ..far() });
    assert!(!light.is_even(100 * SECOND));
    let mut random = Random::new(7);
    let mut state = PickerState::new(&mut random, 0);
    let mut of_far = 0;
    for _ in 0..20_000 {
        let picked = pick(&light, &light.wider, None, &mut state, &mut random, 100 * SECOND, |_| false);
        of_far += usize::from(picked == Some(4));
    }
    // 20,000 × 10 ÷ 410.
    assert!((400..580).contains(&of_far), "{of_far}");
    assert_eq!(backend_of(Endpoint { weight: 300, ..far() }).heaviest, 300);
    let new = backend_of(Endpoint { ready_since_ns: 100 * SECOND, ..far() });
    assert!(!new.is_even(110 * SECOND) && new.is_even(120 * SECOND));
}

#[test]
fn tables_are_as_weights_say() {
    let endpoints = weighted(&[100, 300, 1000, 200]);
    for (picker, most_off) in [(Picker::Maglev, 0.01), (Picker::RingHash, 0.2)] {
        let backend = backend(picker, &endpoints);
        let mut random = Random::new(2);
        let mut shares = [0.0; 4];
        for _ in 0..160_000 {
            let key = random.next();
            let mut state = PickerState::new(&mut random, key);
            shares[pick(&backend, &endpoints, None, &mut state, &mut random, 1, |_| false).unwrap()] += 1.0;
        }
        for (share, expected) in shares.iter().zip([10e3, 30e3, 100e3, 20e3]) {
            // And what chance does to so many draws.
            assert!((share / expected - 1.0_f64).abs() < most_off + 0.03, "{picker:?}: {shares:?}");
        }
    }
}

#[test]
fn of_a_heavier_endpoint_more_calls_under_way_are_as_busy() {
    let endpoints = weighted(&[100, 400]);
    for (active, expected) in [([10, 30], 1), ([10, 50], 0)] {
        for (endpoint, active) in endpoints.iter().zip(active) {
            endpoint.load.active.store(active, Relaxed);
        }
        for picker in [Picker::Ewma, Picker::LeastRequest] {
            let shares = shares(picker, &endpoints, 200, &[]);
            assert_eq!(shares[1 - expected], 0, "{picker:?} {active:?}: {shares:?}");
        }
    }
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    const CAME: u64 = 100 * SECOND;
    let mut endpoints = endpoints(4);
    endpoints[1] = Arc::new(Endpoint { ready_since_ns: CAME, ..Endpoint::at(endpoints[1].address) });
    for picker in [Picker::Ewma, Picker::LeastRequest, Picker::Random, Picker::RoundRobin] {
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let balancing = Balancing { slow_start: "20s".parse().unwrap(), ..picker.into() };
        let backend = Backend::new(service_port, endpoints.clone().into(), balancing);
        let mut random = Random::new(7);
        let mut state = PickerState::new(&mut random, 0);
        for (age, share) in [(0, 0.1), (5 * SECOND, 0.25), (10 * SECOND, 0.5), (20 * SECOND, 1.0)] {
            let now = CAME + age;
            assert_eq!(backend.is_even(now), share == 1.0);
            let mut picks = 0;
            for _ in 0..8000 {
                let picked = pick(&backend, &endpoints, None, &mut state, &mut random, now, |_| false);
                picks += u32::from(picked == Some(1));
            }
            let expected = 8000.0 * share / (3.0 + share);
            let off = (f64::from(picks) / expected - 1.0).abs();
            assert!(off < 0.15, "{picker:?} at {age}: {picks}, not {expected}");
        }
    }
}

#[test]
fn a_subset_has_twice_as_many_endpoints_as_calls_are_in_flight() {
    let all: Arc<[_]> = endpoints(200).into();
    let mut now = 0;
    let mut subset = Subset::new(5, now);
    assert_eq!(subset.of(&all, Picker::Ewma).len(), LEAST);
    let few: Arc<[_]> = endpoints(LEAST).into();
    assert!(Arc::ptr_eq(&subset.of(&few, Picker::Ewma), &few), "and few are taken as they are");
    for in_flight in 1..=40 {
        subset.call_begins();
        if subset.is_too_small() {
            subset.enlarge();
        }
        let size = subset.of(&all, Picker::Ewma).len();
        assert!((in_flight * 2..=(in_flight * 4).max(LEAST)).contains(&size), "{in_flight}: {size}");
    }
    let before = subset.of(&all, Picker::Ewma);
    assert!(before.is_sorted_by_key(|endpoint| endpoint.address));
    (0..40).for_each(|_| subset.call_ends());
    // The peak counts on until two windows are over.
    let shrinks = [(); 3].map(|()| {
        now += WINDOW_NS;
        subset.review(now)
    });
    assert_eq!(shrinks, [false, false, true]);
    let after = subset.of(&all, Picker::Ewma);
    assert_eq!(after.len(), LEAST);
    assert!(
        after.iter().all(|endpoint| before.iter().any(|other| Arc::ptr_eq(endpoint, other))),
        "of the same"
    );
    for picker in [Picker::RingHash, Picker::Maglev, Picker::SourceHash] {
        assert_eq!(subset.of(&all, picker).len(), 200, "{picker:?} leads each key to one of all");
    }
}

#[test]
fn many_subsets_together_are_even_and_change_no_more_than_the_endpoints_do() {
    let all: Arc<[_]> = endpoints(50).into();
    let but_one: Arc<[_]> = all[1..].to_vec().into();
    let mut random = Random::new(1);
    let mut counts = [0; 50];
    let mut changed = 0;
    for _ in 0..1000 {
        let subset = Subset::new(random.next(), 0);
        let chosen = subset.of(&all, Picker::Ewma);
        for endpoint in chosen.iter() {
            counts[all.iter().position(|other| Arc::ptr_eq(endpoint, other)).unwrap()] += 1;
        }
        let addresses = |endpoints: &[Arc<Endpoint>]| -> HashSet<_> {
            endpoints.iter().map(|endpoint| endpoint.address).collect()
        };
        let gone = addresses(&chosen).difference(&addresses(&subset.of(&but_one, Picker::Ewma))).count();
        assert!(gone <= 1);
        changed += gone;
    }
    // 1000 × 12 ÷ 50 each; the standard deviation is 13.5.
    assert!(counts.iter().all(|count| (180..300).contains(count)), "{counts:?}");
    assert_eq!(changed, counts[0]);
}
