//! The agents of many nodes, each with its own dice, and one Service: what all of them together make of its endpoints.

use super::MS;
use super::pods::{Answer, Node};
use crate::mesh::Picker;

/// What each of the servers gets of so many calls from a pod of each node, once all is known.
fn calls_of_all(nodes: &mut [Node], calls: usize) -> Vec<usize> {
    let mut all = vec![0; nodes[0].endpoints.len()];
    for node in nodes {
        let (shares, failed) = node.calls(0, calls);
        assert_eq!(failed, 0);
        all.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
    }
    all
}

#[test]
fn the_subsets_of_many_nodes_load_a_large_services_endpoints_alike() {
    // gRFC A68: each pod has its own 12 of 50; an endpoint is in 24 ± 4.3 of a hundred.
    let good = |_, _| Answer::Status("0");
    let mut nodes: Vec<Node> =
        (1..=100).map(|seed| Node::seeded(seed, 1, 50, Picker::RoundRobin, good)).collect();
    let shares = calls_of_all(&mut nodes, 60);
    assert_eq!(shares.iter().sum::<usize>(), 6_000);
    assert!(shares.iter().all(|share| (50..200).contains(share)), "120 each: {shares:?}");
    let upstreams: u64 = nodes.iter().map(|node| node.engine.counters().upstreams_open).sum();
    assert_eq!(upstreams, 100 * 12, "connections, where all to all would be 5,000");
}

#[test]
fn of_three_zones_the_one_whose_endpoints_fail_sends_as_much_farther_as_they_cannot_bear() {
    // Envoy's rule for localities: with half of a zone's endpoints left, 1 − 1.4 × ½ of its calls go to all that are left.
    const CALLS: usize = 400;
    let mut nodes: Vec<Node> = (0..30)
        .map(|number| {
            let script = |_, server| Answer::Status(if server < 2 { "14" } else { "0" });
            let mut node = Node::seeded(number as u64 + 1, 1, 12, Picker::Random, script);
            node.keep_near(number % 3 * 4, 4);
            node.publish(Picker::Random.into());
            node.calls(0, 100);
            node.wait(1);
            node
        })
        .collect();
    let of_zone = |nodes: &mut [Node], zone: usize| -> Vec<usize> {
        let mut all = vec![0; 12];
        for node in nodes.iter_mut().skip(zone).step_by(3) {
            let (shares, failed) = node.calls(0, CALLS);
            assert_eq!(failed, 0);
            all.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
        }
        all
    };
    let near = |share: usize, expected: f64| (share as f64 / expected - 1.0).abs() < 0.25;
    let calls = 10.0 * CALLS as f64;
    let first = of_zone(&mut nodes, 0);
    assert_eq!(first[..2], [0, 0]);
    // Seven tenths to the two that are left, three to all ten.
    assert!(first[2..4].iter().all(|share| near(*share, calls * (0.7 / 2.0 + 0.03))), "{first:?}");
    assert!(first[4..].iter().all(|share| near(*share, calls * 0.03)), "{first:?}");
    for zone in [1, 2] {
        let shares = of_zone(&mut nodes, zone);
        let own = zone * 4..zone * 4 + 4;
        assert_eq!(shares[own.clone()].iter().sum::<usize>(), 10 * CALLS, "they stay: {shares:?}");
        assert!(shares[own].iter().all(|share| near(*share, calls / 4.0)), "{shares:?}");
    }
    // It is well again, and all calls are near again.
    for node in &mut nodes {
        node.script = |_, _| Answer::Status("0");
        node.wait(crate::balance::ejection::BASE_NS / (1_000 * MS) + 1);
    }
    assert_eq!(of_zone(&mut nodes, 0)[..4].iter().sum::<usize>(), 10 * CALLS);
}
