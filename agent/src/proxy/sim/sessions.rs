//! Session affinity: where a pod's calls stay, and what moves them.

use super::pods::{Answer, FAILING, Node, TIMES, address, good, is_failing, origin};
use crate::mesh::{Endpoint, Picker};
use std::sync::Arc;

#[test]
fn under_session_affinity_a_pod_stays_where_it_is_whoever_joins() {
    let mut node = Node::new(40, 3, Picker::SourceHash, |_, _| Answer::Status("0"));
    let mut homes = Vec::new();
    for pod in 0..40 {
        let (_, servers) = node.call(pod);
        homes.push(servers[0]);
    }
    assert!((0..3).all(|server| homes.contains(&server)), "they are spread: {homes:?}");
    node.endpoints.extend((3..6).map(|server| Arc::new(Endpoint::at(address(server)))));
    node.near = 6;
    node.publish(Picker::SourceHash.into());
    for (pod, &home) in homes.iter().enumerate() {
        let (shares, failed) = node.calls(pod, 5);
        assert_eq!((shares[home], failed), (5, 0), "pod {pod}: {shares:?}");
    }
    // Its endpoint goes, and it stays with the next one when the first comes back.
    let gone = node.endpoints.remove(0);
    node.near = 5;
    node.publish(Picker::SourceHash.into());
    let pod = homes.iter().position(|home| *home == 0).expect("one was there");
    let (_, servers) = node.call(pod);
    node.endpoints.insert(0, gone);
    node.near = 6;
    node.publish(Picker::SourceHash.into());
    let (shares, _) = node.calls(pod, 5);
    assert_eq!(shares[servers[0]], 5, "{shares:?}");
}

#[test]
fn a_session_stays_near_whatever_fails() {
    let mut node =
        Node::new(1, 8, Picker::SourceHash, |_, server| Answer::Status(if server < 3 { "14" } else { "0" }));
    node.near = 4;
    node.publish(Picker::SourceHash.into());
    for _ in 0..3 {
        let (shares, _) = node.calls(0, 100);
        assert_eq!(shares[4..], [0; 4]);
        node.wait(1);
    }
}

#[test]
fn a_stream_that_its_server_refuses_moves_no_session() {
    let mut node = Node::new(1, 5, Picker::SourceHash, good);
    let (_, servers) = node.call(0);
    let home = servers[0];
    TIMES.set(1);
    node.script = |_, _| match TIMES.replace(0) {
        0 => Answer::Status("0"),
        _ => Answer::StreamRefused,
    };
    assert_eq!(node.call(0), ("0".to_owned(), vec![home, home]), "as a direct client, that comes back");
    assert_eq!(node.calls(0, 5).0[home], 5);
    // One that takes no connection does.
    FAILING.set(1 << home);
    node.script = |_, server| if is_failing(server) { Answer::Lost } else { Answer::Status("0") };
    node.call(0);
    node.script = |_, server| if is_failing(server) { Answer::Refused } else { Answer::Status("0") };
    let (status, servers) = node.call(0);
    assert!(status == "0" && servers[0] != home);
    node.script = good;
    assert_eq!(node.calls(0, 5).0[servers[0]], 5);
}

#[test]
fn a_session_outlives_its_pods_connections_and_ends_with_the_pod() {
    const PODS: usize = 20;
    let mut node = Node::new(PODS, 3, Picker::SourceHash, good);
    let homes: Vec<usize> = (0..PODS).map(|pod| node.call(pod).1[0]).collect();
    (0..PODS).for_each(|pod| node.leave(pod));
    node.wait(40);
    assert_eq!(node.engine.targets.slots.len(), 0, "nothing is known of their connections");
    node.endpoints.extend((3..6).map(|server| Arc::new(Endpoint::at(address(server)))));
    node.near = 6;
    node.publish(Picker::SourceHash.into());
    for (pod, home) in homes.iter().enumerate() {
        node.join_again(pod);
        assert_eq!(node.call(pod).1, [*home], "pod {pod}");
    }
    let mut moved = 0;
    for (pod, home) in homes.iter().enumerate() {
        node.engine.end_origin(&origin(pod), None);
        node.settle(pod);
        node.join_again(pod);
        moved += usize::from(node.call(pod).1 != [*home]);
    }
    assert!(moved > 0, "another pod of the same name begins anew");
}
