//! What becomes of the calls of a whole cluster: 100 nodes with 4 workers each, every node with loads of its own, call the 50
//! endpoints of a Service, each of which serves 4 calls at a time and lets the others wait. Calls come by chance (Poisson) and keep
//! 80% of the endpoints busy; the time that one takes is exponential, with a mean of 1. What is measured is the time from a
//! call's choice to its answer, in that unit.

use super::*;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const NODES: usize = 100;
const WORKERS: usize = 4;
const ENDPOINTS: usize = 50;
const SLOTS: usize = 4;
const LOAD: f64 = 0.8;
/// What a time of 1 is.
const UNIT_NS: f64 = 10e6;
const CALLS: usize = 150_000;
/// Calls that are not counted: queues grow first.
const WARM_UP: usize = 30_000;

struct Call {
    node: usize,
    began_ns: u64,
}

#[derive(Default)]
struct Server {
    busy: usize,
    queue: VecDeque<Call>,
}

/// The mean and the 99th percentile, where the first `slow` endpoints take twice as long.
fn times(picker: Picker, slow: usize) -> (f64, f64) {
    let mut random = Random::new(5);
    let backends: Vec<_> = (0..NODES).map(|_| backend(picker, &endpoints(ENDPOINTS))).collect();
    let mut states: Vec<_> =
        (0..NODES * WORKERS).map(|worker| PickerState::new(&mut random, worker as u64)).collect();
    let mut servers: Vec<Server> = (0..ENDPOINTS).map(|_| Server::default()).collect();
    // When a call ends, on which server, of which node, and when it began.
    let mut ends: BinaryHeap<Reverse<(u64, usize, usize, u64)>> = BinaryHeap::new();
    let (mut now, mut times) = (1_000_000_000, Vec::new());
    let mut exponential = {
        let mut random = Random::new(6);
        move |mean: f64| (-(1.0 - random.next() as f64 / 2f64.powi(64)).ln() * mean * UNIT_NS) as u64
    };
    // Two slow ones serve what one does.
    let capacity = (ENDPOINTS - slow) as f64 + slow as f64 / 2.0;
    let between = 1.0 / (capacity * SLOTS as f64 * LOAD);
    for _ in 0..CALLS {
        now += exponential(between);
        while ends.peek().is_some_and(|Reverse((end, ..))| *end <= now) {
            let Some(Reverse((end, server, node, began))) = ends.pop() else { break };
            let load = &backends[node].endpoints[server].load;
            load.active.fetch_sub(1, Relaxed);
            latency::observe(load, end, end - began, Sample::Response);
            times.push((end - began) as f64 / UNIT_NS);
            servers[server].busy -= 1;
            if let Some(call) = servers[server].queue.pop_front() {
                servers[server].busy += 1;
                let takes = exponential(if server < slow { 2.0 } else { 1.0 });
                ends.push(Reverse((end + takes, server, call.node, call.began_ns)));
            }
        }
        let worker = random.below(NODES * WORKERS);
        let node = worker / WORKERS;
        let chosen = pick(
            &backends[node],
            &backends[node].endpoints,
            None,
            &mut states[worker],
            &mut random,
            now,
            |_| false,
        )
        .expect("one of 50");
        backends[node].endpoints[chosen].load.active.fetch_add(1, Relaxed);
        if servers[chosen].busy < SLOTS {
            servers[chosen].busy += 1;
            let takes = exponential(if chosen < slow { 2.0 } else { 1.0 });
            ends.push(Reverse((now + takes, chosen, node, now)));
        } else {
            servers[chosen].queue.push_back(Call { node, began_ns: now });
        }
    }
    let counted = &mut times[WARM_UP..];
    counted.sort_unstable_by(f64::total_cmp);
    (counted.iter().sum::<f64>() / counted.len() as f64, counted[counted.len() * 99 / 100])
}

#[test]
fn a_whole_clusters_calls_are_spread_as_well_as_each_picker_can() {
    for (picker, slow, most_mean, most_p99) in [
        (Picker::Random, 0, 1.9, 7.5),
        (Picker::RoundRobin, 0, 1.8, 7.0),
        (Picker::LeastRequest, 0, 1.8, 7.0),
        (Picker::Ewma, 0, 1.8, 7.0),
        // A tenth of the endpoints is half as fast: only those that look at the load keep the queues short.
        (Picker::LeastRequest, 5, 4.0, 40.0),
        (Picker::Ewma, 5, 2.0, 8.0),
    ] {
        let (mean, p99) = times(picker, slow);
        println!("{picker:?}, {slow} slow: {mean:.2} / {p99:.1}");
        assert!(mean < most_mean && p99 < most_p99, "{picker:?}, {slow} slow: {mean:.2} / {p99:.1}");
    }
    let (mean, p99) = times(Picker::Random, 5);
    println!("Random, 5 slow: {mean:.2} / {p99:.1}");
    assert!(mean > 5.0, "this world would show a picker that sees nothing: {mean:.2}");
}

/// Calls under way on a node, for each endpoint.
const UNDER_WAY: usize = 4;

/// What each endpoint gets of `calls` from each of a hundred nodes with their own dice, none of which knows of the others' calls. Each
/// call goes by the key that `key` gives; a node has [`UNDER_WAY`] times as many under way as there are endpoints.
fn shares_of_all(
    backend: impl Fn(usize) -> Backend,
    calls: usize,
    now_ns: u64,
    mut key: impl FnMut(&mut Random) -> u64,
) -> Vec<f64> {
    let mut all: Vec<f64> = Vec::new();
    for node in 0..NODES {
        let backend = backend(node);
        let mut random = Random::new(node as u64 + 1);
        let mut state = PickerState::new(&mut random, 0);
        let mut under_way = VecDeque::new();
        all.resize(backend.endpoints.len(), 0.0);
        for _ in 0..calls {
            state.source = key(&mut random);
            let chosen = pick(&backend, &backend.endpoints, None, &mut state, &mut random, now_ns, |_| false)
                .expect("there are endpoints");
            all[chosen] += 1.0 / (NODES * calls) as f64;
            backend.endpoints[chosen].load.active.fetch_add(1, Relaxed);
            under_way.push_back(chosen);
            if under_way.len() > UNDER_WAY * backend.endpoints.len() {
                let Some(ended) = under_way.pop_front() else { break };
                backend.endpoints[ended].load.active.fetch_sub(1, Relaxed);
            }
        }
    }
    all
}

fn extremes(shares: &[f64]) -> (f64, f64) {
    let even = 1.0 / shares.len() as f64;
    let of = |most: f64, share: &f64| most.max(share / even);
    (shares.iter().fold(0.0, of), 1.0 / shares.iter().map(|share| even / share).fold(0.0, f64::max))
}

#[test]
fn many_keys_from_all_nodes_fall_on_all_endpoints_alike_by_ring_and_maglev() {
    // A ring of 256 points each (Karger 1997, Ketama, gRFC A42): 1 ÷ √256, three times that for the largest of fifty. Maglev (§3.4): even to
    // a slot. And what chance does to 2,000 calls each.
    for (picker, most, least) in [(Picker::RingHash, 1.25, 0.75), (Picker::Maglev, 1.1, 0.9)] {
        let shares = shares_of_all(|_| backend(picker, &endpoints(ENDPOINTS)), 1_000, 1, Random::next);
        let (largest, smallest) = extremes(&shares);
        assert!(largest < most && smallest > least, "{picker:?}: {smallest} to {largest}");
        // Each node leads the same key to the same endpoint, whatever it has under way.
        for user in 1..20_u64 {
            let shares =
                shares_of_all(|_| backend(picker, &endpoints(ENDPOINTS)), 3, 1, |_| hash::spread(user));
            let most = shares.iter().copied().fold(0.0, f64::max);
            assert!((most - 1.0).abs() < 1e-9, "{picker:?}: {shares:?}");
        }
    }
}

#[test]
fn all_nodes_calls_together_are_as_weights_and_slow_start_say() {
    const SECOND: u64 = 1_000_000_000;
    // The first is three times as heavy (Envoy's weighted least-request; gRFC A58 for turns), the last has just come (Envoy's slow start
    // with an aggression of 1: in proportion to its time).
    for (age, warmth) in [(5, 0.25), (10, 0.5), (20, 1.0)] {
        let of = |picker: Picker| {
            move |_: usize| {
                let mut endpoints = endpoints(10);
                endpoints[0] = Arc::new(Endpoint { weight: 300, ..Endpoint::at(endpoints[0].address) });
                endpoints[9] =
                    Arc::new(Endpoint { ready_since_ns: 100 * SECOND, ..Endpoint::at(endpoints[9].address) });
                let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
                let slow_start = "20s".parse().expect("a time");
                let balancing = crate::mesh::Balancing { slow_start, ..picker.into() };
                Backend::new(service_port, endpoints.into(), balancing)
            }
        };
        let whole = 3.0 + 8.0 + warmth;
        for picker in [Picker::Ewma, Picker::LeastRequest, Picker::RoundRobin, Picker::Random] {
            let shares = shares_of_all(of(picker), 400, (100 + age) * SECOND, Random::next);
            for (index, expected) in [(0, 3.0 / whole), (5, 1.0 / whole), (9, warmth / whole)] {
                let off = (shares[index] / expected - 1.0).abs();
                // Of whole calls under way, a light one has one or none.
                let looks_at_load = matches!(picker, Picker::Ewma | Picker::LeastRequest);
                let most_off = if looks_at_load { 0.4 } else { 0.15 };
                assert!(
                    off < most_off,
                    "{picker:?} at {age} s: {index} has {}, not {expected}",
                    shares[index]
                );
            }
        }
    }
}
