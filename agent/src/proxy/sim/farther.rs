//! Where calls go when the endpoints that they went to fail: to others of a large Service, and farther away.

use super::MS;
use super::pods::{Answer, FIVE, Node, Script, address, good, is_failing, set_failing};
use crate::balance::ejection::BASE_NS;
use crate::mesh::Picker;
use std::net::SocketAddr;

#[test]
fn of_a_large_service_a_pod_has_connections_to_a_few_endpoints() {
    let mut node = Node::new(4, 100, Picker::Ewma, |_, _| Answer::Status("0"));
    let mut met = std::collections::BTreeSet::new();
    for pod in 0..4 {
        let (shares, failed) = node.calls(pod, 300);
        let servers = shares.iter().filter(|share| **share > 0).count();
        assert_eq!((servers, failed), (12, 0), "pod {pod}");
        met.extend((0..100).filter(|server| shares[*server] > 0));
    }
    assert!(met.len() > 24, "each has its own: {met:?}");
    assert_eq!(node.engine.counters().upstreams_open, 4 * 12);
}

#[test]
fn where_a_pods_few_endpoints_fail_it_takes_in_others() {
    // Nearly all refuse: the few that do not are found.
    let mut node = Node::new(1, 100, Picker::RoundRobin, |_, server| {
        if server < 95 { Answer::Refused } else { Answer::Status("0") }
    });
    let (shares, failed) = node.calls(0, 300);
    // It goes on from 12 to 24, 48 and all until there is one, three tries a call.
    assert_eq!((shares[..95].iter().sum::<usize>(), shares[95..].iter().sum::<usize>()), (0, 300 - failed));
    assert!(failed < 40, "{failed}");
}

#[test]
fn when_endpoints_nearby_fail_a_part_of_the_calls_goes_farther_and_comes_back() {
    let mut node =
        Node::new(1, 10, Picker::Random, |_, server| Answer::Status(if server < 2 { "14" } else { "0" }));
    node.near = 4;
    node.publish(Picker::Random.into());
    let far = |shares: &[usize]| shares[4..].iter().sum::<usize>();
    let (shares, _) = node.calls(0, 100);
    assert_eq!(far(&shares), 0, "nobody is known to fail yet, or it is a call's business");
    assert_eq!(shares[..2], [FIVE; 2], "half of them are ejected");
    node.wait(1);
    let (shares, failed) = node.calls(0, 1000);
    assert_eq!((&shares[..2], failed), (&[0, 0][..], 0));
    // 1 - 1.4 × ½ of them may go anywhere: to the 8 that are left, of which 6 are far.
    assert!((170..280).contains(&far(&shares)), "{shares:?}");
    node.script = |_, _| Answer::Status("0");
    node.wait(BASE_NS / (1_000 * MS) + 1);
    let (shares, failed) = node.calls(0, 400);
    assert_eq!((far(&shares), failed), (0, 0), "{shares:?}");
}

#[test]
fn where_most_of_a_pods_few_endpoints_answer_with_failures_it_takes_in_others() {
    let mut node = Node::new(1, 100, Picker::RoundRobin, good);
    let (shares, _) = node.calls(0, 60);
    let its: Vec<usize> = (0..100).filter(|server| shares[*server] > 0).collect();
    assert_eq!(its.len(), 12);
    set_failing(its[..10].iter().copied());
    node.script = |_, server| Answer::Status(if is_failing(server) { "14" } else { "0" });
    let (_, failed) = node.calls(0, 100);
    assert!(failed >= 10 * FIVE, "{failed}");
    node.wait(1);
    let (shares, failed) = node.calls(0, 300);
    let used = shares.iter().filter(|share| **share > 0).count();
    assert_eq!((used, failed), (14, 0), "twelve more");
    node.wait(3);
    assert_eq!(node.calls(0, 300).1, 0);
}

#[test]
fn a_lone_endpoint_nearby_that_fails_sends_its_calls_farther_and_gets_them_back() {
    let bad: [Script; 3] = [
        |_, server| Answer::Status(if server == 0 { "14" } else { "0" }),
        |_, server| if server == 0 { Answer::Lost } else { Answer::Status("0") },
        |_, server| if server == 0 { Answer::Refused } else { Answer::Status("0") },
    ];
    for (number, script) in bad.into_iter().enumerate() {
        let mut node = Node::new(1, 4, Picker::RoundRobin, good);
        node.near = 1;
        node.publish(Picker::RoundRobin.into());
        node.script = script;
        let (shares, failed) = node.calls(0, 20);
        if number == 2 {
            assert_eq!((shares[0], failed), (0, 0), "a refused connection costs no call");
            assert!(shares[1..].iter().all(|share| *share > 0), "{shares:?}");
        } else {
            assert_eq!((shares[0], failed), (20, 20), "script {number}");
        }
        node.wait(1);
        let (shares, failed) = node.calls(0, 30);
        assert_eq!((shares[0], failed), (0, 0), "script {number}");
        node.script = good;
        node.wait(BASE_NS / (1_000 * MS) + 1);
        assert_eq!(node.calls(0, 30), (vec![30, 0, 0, 0], 0), "script {number}");
    }
}

#[test]
fn a_picker_that_hashes_has_the_endpoints_nearby_though_calls_went_farther_before() {
    for picker in [Picker::Maglev, Picker::RingHash, Picker::SourceHash] {
        let mut node = Node::new(1, 10, Picker::Random, |_, server| {
            Answer::Status(if [5, 6].contains(&server) { "14" } else { "0" })
        });
        // In the middle: an index means something else where there are more.
        node.keep_near(5, 4);
        node.publish(Picker::Random.into());
        node.calls(0, 100);
        node.wait(1);
        let far =
            |(shares, failed): (Vec<usize>, usize)| (shares[..5].iter().sum::<usize>() + shares[9], failed);
        assert!(far(node.calls(0, 400)).0 > 0, "they go farther");
        node.publish(picker.into());
        assert_eq!(far(node.calls(0, 50)), (0, 0), "{picker:?}");
        node.wait(3);
        assert_eq!(far(node.calls(0, 50)), (0, 0), "{picker:?}");
    }
}

#[test]
fn while_calls_go_farther_a_part_of_the_endpoints_is_not_taken_for_all() {
    let mut node = Node::new(1, 100, Picker::RoundRobin, |_, server| {
        Answer::Status(if server < 15 { "14" } else { "0" })
    });
    node.near = 20;
    node.publish(Picker::RoundRobin.into());
    node.calls(0, 200);
    node.wait(2);
    node.calls(0, 200);
    node.wait(2);
    let candidates = |node: &Node| -> Vec<SocketAddr> {
        let (_, target) = node.engine.targets.slots.iter().next().expect("there is one");
        target.candidates.endpoints.iter().map(|endpoint| endpoint.address).collect()
    };
    let taken = candidates(&node);
    assert!((20..100).contains(&taken.len()), "{}", taken.len());
    // All of these are gone: the others are found, in the same moment.
    set_failing((0..100).filter(|server| taken.contains(&address(*server))));
    node.script = |_, server| if is_failing(server) { Answer::Lost } else { Answer::Status("0") };
    for conn in node.servers.keys().copied().collect::<Vec<_>>() {
        node.servers.remove(&conn);
        node.engine.failed(conn);
    }
    node.script = |_, server| if is_failing(server) { Answer::Refused } else { Answer::Status("0") };
    let (shares, _) = node.calls(0, 60);
    assert!(shares.iter().sum::<usize>() > 20, "{shares:?}");
}
