//! What is left alone, and that it is counted why.

use crate::app::{Dial, dial};
use crate::node::{Node, OTHER_V4, SERVICE_V4, SERVICE_V6, can_run};
use evenkeel::clock::monotonic_ns;
use evenkeel::kernel::Enrolment;
use evenkeel::mesh::DestinationId;
use evenkeel_common::{DEFAULT_MARK, HEARTBEAT_LIMIT_NS, Reason};

#[test]
fn what_the_agent_does_not_balance_goes_straight() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.straight(dial(OTHER_V4), Reason::UnknownDestination);
    node.straight(Dial { mapped: true, ..dial(OTHER_V4) }, Reason::UnknownDestination);
    node.kernel.remove_destination(SERVICE_V4.parse().unwrap()).unwrap();
    node.straight(dial(SERVICE_V4), Reason::UnknownDestination);
    node.kernel.remove_destination(SERVICE_V4.parse().unwrap()).expect("already removed is no error");
}

#[test]
fn a_destination_goes_straight_while_it_has_no_endpoint() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let (address, id) = (SERVICE_V4.parse().unwrap(), DestinationId::new(4).unwrap());
    node.kernel.mark_without_endpoint(address, id).unwrap();
    node.straight(dial(SERVICE_V4), Reason::NoEndpoint);
    node.kernel.add_destination(address, id).unwrap();
    node.taken(dial(SERVICE_V4), 4);
}

#[test]
fn a_silent_agent_takes_nothing() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.beat(monotonic_ns() - HEARTBEAT_LIMIT_NS);
    node.straight(dial(SERVICE_V4), Reason::AgentSilent);
    node.straight(dial(SERVICE_V6), Reason::AgentSilent);
    node.beat(0);
    node.straight(dial(SERVICE_V4), Reason::AgentSilent);
    node.beat(monotonic_ns() + HEARTBEAT_LIMIT_NS * 60);
    node.taken(dial(SERVICE_V4), 4);
}

#[test]
fn the_agents_own_sockets_are_left_alone() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.straight(Dial { mark: DEFAULT_MARK, ..dial(SERVICE_V4) }, Reason::OwnMark);
    node.straight(Dial { mark: DEFAULT_MARK, ..dial(SERVICE_V6) }, Reason::OwnMark);
    node.taken(Dial { mark: DEFAULT_MARK << 1, ..dial(SERVICE_V4) }, 4);
}

#[test]
fn a_socket_bound_to_a_device_is_left_alone() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.straight(Dial { device: Some("eth0".into()), ..dial(SERVICE_V4) }, Reason::BoundToDevice);
    node.straight(Dial { device: Some("eth0".into()), ..dial(SERVICE_V6) }, Reason::BoundToDevice);
}

#[test]
fn a_pods_state_sends_its_connections_straight() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let usual = node.enrolment();
    for (enrolment, reason) in [
        (Enrolment { loopback_down: true, ..usual }, Reason::LoopbackDown),
        (Enrolment { at_connection_limit: true, ..usual }, Reason::ConnectionLimit),
        (Enrolment { leaving: true, ..usual }, Reason::PodLeaving),
    ] {
        node.enrol(&enrolment);
        node.straight(dial(SERVICE_V4), reason);
        node.straight(dial(SERVICE_V6), reason);
    }
    node.enrol(&Enrolment { ipv6_route: false, ..usual });
    node.straight(dial(SERVICE_V6), Reason::NoIpv6Route);
    node.taken(dial(SERVICE_V4), 4);
    node.enrol(&usual);
    node.taken(dial(SERVICE_V6), 6);
}

#[test]
fn udp_is_neither_touched_nor_counted() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    for service in [SERVICE_V4, SERVICE_V6] {
        let socket = node.app.dial(Dial { udp: true, ..dial(service) }).unwrap();
        assert_eq!(node.app.names(socket).peer.to_string(), service);
    }
    assert_eq!(node.counters().by_reason, [0; Reason::ALL.len()]);
}

#[test]
fn a_pod_that_is_not_enrolled_is_untouched() {
    if !can_run() {
        return;
    }
    let mut node = Node::start_unenrolled();
    let (_, arrival) = node.dial(dial(SERVICE_V4));
    arrival.expect_server();
    assert_eq!(node.kernel.counters(node.netns.cookie()).unwrap(), None);

    node.enrol(&node.enrolment());
    node.taken(dial(SERVICE_V4), 4);
    node.kernel.withdraw(node.netns.cookie()).unwrap();
    let (_, arrival) = node.dial(dial(SERVICE_V4));
    arrival.expect_server();
    node.kernel.withdraw(node.netns.cookie()).expect("already withdrawn is no error");
}

#[test]
fn a_process_of_another_namespace_is_untouched_in_the_same_cgroup() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let socket = node.server_process.dial(dial(SERVICE_V4)).unwrap();
    let (from, _stream) = node.arrival().expect_server();
    assert_eq!(node.server_process.names(socket).own, from);
}
