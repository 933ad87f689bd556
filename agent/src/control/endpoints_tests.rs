use super::*;
use crate::sources::sample::{self, hints};

const GRPC: [(&str, u16); 1] = [("grpc", 9000)];
const READY: Conditions = Conditions { ready: Some(true), serving: Some(true), terminating: Some(false) };
const UNREADY: Conditions = Conditions { ready: Some(false), serving: Some(false), terminating: Some(false) };
const LEAVING: Conditions = Conditions { ready: Some(false), serving: Some(true), terminating: Some(true) };
const NOWHERE: Place<'_> = Place { node: None, zone: None };
const HERE: Place<'_> = Place { node: Some("node-1"), zone: Some("zone-a") };

fn slice(name: &str, ports: &[(&str, u16)], endpoints: &[(&str, Conditions)]) -> SliceRow {
    let endpoint = |(address, conditions): &(&str, Conditions)| EndpointRow {
        conditions: *conditions,
        ..sample::endpoint(address)
    };
    sample::slice(name, "cart", ports, endpoints.iter().map(endpoint))
}

fn chosen(
    slices: &[SliceRow],
    port: &str,
    policy: TrafficPolicy,
    place: Place<'_>,
) -> ByFamily<Vec<Arc<Endpoint>>> {
    candidates(slices.iter(), port)
        .map(|candidates| Choice::new(&candidates, policy, place).endpoints(&candidates, 0, |_| None))
}

fn of(slices: &[SliceRow], port: &str) -> Vec<String> {
    let found = chosen(slices, port, TrafficPolicy::Cluster, NOWHERE);
    found.v4.iter().chain(&found.v6).map(|endpoint| endpoint.address.to_string()).collect()
}

/// Each endpoint's last digit, with `+`, or why it is not used.
fn judged(slice: &SliceRow, policy: TrafficPolicy, place: Place<'_>) -> Vec<Result<(), Unused>> {
    let ByFamily { v4, .. } = candidates([slice].into_iter(), "grpc");
    let choice = Choice::new(&v4, policy, place);
    v4.iter().map(|candidate| choice.judge(candidate)).collect()
}

#[test]
fn what_is_not_said_counts_as_ready_serving_and_not_terminating() {
    let (yes, no) = (Some(true), Some(false));
    for ((ready, serving, terminating), expected) in [
        ((None, None, None), Use::Calls),
        ((yes, yes, no), Use::Calls),
        ((yes, None, None), Use::Calls),
        ((None, no, None), Use::Calls),
        ((no, None, None), Use::None),
        ((no, yes, no), Use::None),
        ((no, no, no), Use::None),
        ((no, yes, yes), Use::LastResort),
        ((no, None, yes), Use::LastResort),
        ((None, None, yes), Use::LastResort),
        ((yes, yes, yes), Use::LastResort),
        ((no, no, yes), Use::None),
        // As `publishNotReadyAddresses` has it.
        ((yes, no, no), Use::Calls),
        ((yes, no, yes), Use::LastResort),
    ] {
        let given = Conditions { ready, serving, terminating };
        assert_eq!(good_for(given), expected, "{given:?}");
    }
}

#[test]
fn where_none_is_ready_those_that_serve_while_they_terminate_do() {
    let mixed = slice("a", &GRPC, &[("10.0.0.1", LEAVING), ("10.0.0.2", READY), ("10.0.0.3", UNREADY)]);
    assert_eq!(
        judged(&mixed, TrafficPolicy::Cluster, NOWHERE),
        [Err(Unused::Terminating), Ok(()), Err(Unused::NotReady)]
    );
    let last = slice("a", &GRPC, &[("10.0.0.1", LEAVING), ("10.0.0.3", UNREADY)]);
    assert_eq!(of(&[last], "grpc"), ["10.0.0.1:9000"]);
    let none = slice("a", &GRPC, &[("10.0.0.3", UNREADY)]);
    assert_eq!(of(&[none], "grpc"), [] as [&str; 0]);
    // Each family for itself.
    let v4 = slice("a", &GRPC, &[("10.0.0.1", LEAVING)]);
    let v6 = slice("b", &GRPC, &[("fd00::1", READY)]);
    assert_eq!(of(&[v4, v6], "grpc"), ["10.0.0.1:9000", "[fd00::1]:9000"]);
}

#[test]
fn endpoints_of_several_slices_come_sorted_and_each_once() {
    let a = slice("a", &GRPC, &[("10.0.0.9", READY), ("10.0.0.1", UNREADY), ("10.0.0.2", READY)]);
    let b = slice("b", &GRPC, &[("10.0.0.1", READY), ("10.0.0.2", READY), ("10.0.0.10", READY)]);
    let expected = ["10.0.0.1:9000", "10.0.0.2:9000", "10.0.0.9:9000", "10.0.0.10:9000"];
    assert_eq!(of(&[a.clone(), b.clone()], "grpc"), expected);
    assert_eq!(of(&[b, a], "grpc"), expected);
}

#[test]
fn a_port_is_found_by_its_name_and_has_its_own_number_in_each_slice() {
    let old = slice("a", &[("grpc", 9000), ("metrics", 9090)], &[("10.0.0.1", READY)]);
    let renumbered = slice("b", &[("grpc", 9001)], &[("10.0.0.2", READY)]);
    let slices = [old, renumbered, slice("c", &[("", 7000)], &[("10.0.0.3", READY)])];
    assert_eq!(of(&slices, "grpc"), ["10.0.0.1:9000", "10.0.0.2:9001"]);
    assert_eq!(of(&slices, "metrics"), ["10.0.0.1:9090"]);
    assert_eq!(of(&slices, ""), ["10.0.0.3:7000"]);
    assert_eq!(of(&slices, "other"), [] as [&str; 0]);
}

#[test]
fn an_endpoint_that_stays_keeps_its_load_and_a_changed_one_too() {
    let first = slice("a", &GRPC, &[("10.0.0.1", READY), ("10.0.0.2", READY)]);
    let before = chosen(std::slice::from_ref(&first), "grpc", TrafficPolicy::Cluster, NOWHERE).v4;
    let mut second = slice("a", &GRPC, &[("10.0.0.2", READY), ("10.0.0.3", READY)]);
    second.endpoints[0].pod = Some("shop/cart-2".into());
    let again = |slice: &SliceRow| {
        let v4 = candidates([slice].into_iter(), "grpc").v4;
        let choice = Choice::new(&v4, TrafficPolicy::Cluster, NOWHERE);
        choice.endpoints(&v4, 0, |address| before.iter().find(|endpoint| endpoint.address == address))
    };
    let after = again(&second);
    assert!(Arc::ptr_eq(&after[0].load, &before[1].load));
    assert_eq!(after[0].pod.as_deref(), Some("shop/cart-2"));
    assert!(again(&first).iter().zip(&before).all(|(one, other)| Arc::ptr_eq(one, other)));
}

/// An endpoint's conditions, and the zones and nodes that it is hinted for.
type Hinted<'a> = (Conditions, &'a [&'a str], &'a [&'a str]);

/// What it is about, the endpoints, where the clients are, and what is said of each endpoint.
type Case<'a> = (&'a str, Vec<Hinted<'a>>, Place<'a>, Vec<Result<(), Unused>>);

fn hinted(endpoints: &[Hinted<'_>]) -> SliceRow {
    let endpoint = |(at, (conditions, zones, nodes)): (usize, &Hinted<'_>)| EndpointRow {
        conditions: *conditions,
        hints: hints(zones, nodes).filter(|_| !zones.is_empty() || !nodes.is_empty()),
        ..sample::endpoint(&format!("10.0.0.{}", at + 1))
    };
    sample::slice("a", "cart", &GRPC, endpoints.iter().enumerate().map(endpoint))
}

/// The table of kube-proxy's own rules: `topologyModeFromHints`.
#[test]
fn hints_count_if_all_that_serve_have_one_and_one_is_for_here() {
    use Unused::{HintedForOtherNodes as OtherNode, HintedForOtherZones as OtherZone, NotReady, Terminating};
    let (a, b): (&[&str], &[&str]) = (&["zone-a"], &["zone-b"]);
    let (this, other): (&[&str], &[&str]) = (&["node-1"], &["node-2"]);
    let zoneless = Place { zone: None, ..HERE };
    let table: [Case<'_>; 13] = [
        ("no hints", vec![(READY, &[], &[]), (READY, &[], &[])], HERE, vec![Ok(()), Ok(())]),
        ("by zone", vec![(READY, a, &[]), (READY, b, &[])], HERE, vec![Ok(()), Err(OtherZone)]),
        (
            "two zones",
            vec![(READY, &["zone-b", "zone-a"], &[]), (READY, b, &[])],
            HERE,
            vec![Ok(()), Err(OtherZone)],
        ),
        ("one without", vec![(READY, a, &[]), (READY, &[], &[])], HERE, vec![Ok(()), Ok(())]),
        ("none for here", vec![(READY, b, &[]), (READY, b, &[])], HERE, vec![Ok(()), Ok(())]),
        ("no zone here", vec![(READY, a, &[]), (READY, b, &[])], zoneless, vec![Ok(()), Ok(())]),
        ("node unknown", vec![(READY, &[], this), (READY, &[], other)], NOWHERE, vec![Ok(()), Ok(())]),
        ("by node", vec![(READY, &[], this), (READY, &[], other)], HERE, vec![Ok(()), Err(OtherNode)]),
        (
            "node before zone",
            vec![(READY, a, this), (READY, a, other), (READY, b, other)],
            HERE,
            vec![Ok(()), Err(OtherNode), Err(OtherNode)],
        ),
        (
            "zone where no node is this one",
            vec![(READY, a, other), (READY, b, other)],
            HERE,
            vec![Ok(()), Err(OtherZone)],
        ),
        (
            "the hints of those that do not serve say nothing",
            vec![(READY, b, &[]), (UNREADY, a, &[]), (LEAVING, &[], &[])],
            HERE,
            vec![Ok(()), Err(NotReady), Err(Terminating)],
        ),
        (
            "a missing hint of one that does not serve takes nothing away",
            vec![(READY, a, &[]), (READY, b, &[]), (UNREADY, &[], &[]), (LEAVING, &[], &[])],
            HERE,
            vec![Ok(()), Err(OtherZone), Err(NotReady), Err(Terminating)],
        ),
        (
            "where all terminate hints are not heeded",
            vec![(LEAVING, a, &[]), (LEAVING, b, &[])],
            HERE,
            vec![Ok(()), Ok(())],
        ),
    ];
    for (case, endpoints, place, expected) in table {
        assert_eq!(judged(&hinted(&endpoints), TrafficPolicy::Cluster, place), expected, "{case}");
    }
}

#[test]
fn under_the_policy_local_only_this_nodes_endpoints_serve_and_hints_say_nothing() {
    use Unused::{NotLocal, NotReady, Terminating};
    let (this, other) = (Some("node-1"), Some("node-2"));
    let table = [
        (
            vec![(READY, this), (READY, other), (READY, None)],
            HERE,
            vec![Ok(()), Err(NotLocal), Err(NotLocal)],
        ),
        (vec![(UNREADY, this), (READY, other)], HERE, vec![Err(NotReady), Err(NotLocal)]),
        (vec![(LEAVING, this), (READY, other)], HERE, vec![Ok(()), Err(NotLocal)]),
        (vec![(LEAVING, this), (READY, this)], HERE, vec![Err(Terminating), Ok(())]),
        (vec![(READY, other)], HERE, vec![Err(NotLocal)]),
        (vec![(READY, this), (READY, None)], NOWHERE, vec![Err(NotLocal), Err(NotLocal)]),
    ];
    for (endpoints, place, expected) in table {
        let endpoint = |(at, (conditions, node)): (usize, &(Conditions, Option<&str>))| EndpointRow {
            conditions: *conditions,
            node: node.map(Arc::from),
            hints: hints(&["zone-b"], &["node-2"]),
            ..sample::endpoint(&format!("10.0.0.{}", at + 1))
        };
        let slice = sample::slice("a", "cart", &GRPC, endpoints.iter().enumerate().map(endpoint));
        assert_eq!(judged(&slice, TrafficPolicy::Local, place), expected, "{endpoints:?}");
    }
}
