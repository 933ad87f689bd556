//! What the app sees of its connections.

use crate::app::{Dial, dial};
use crate::node::{Node, POD_V4, POD_V6, SERVICE_V4, SERVICE_V6, can_run, listen};
use evenkeel::kernel::{Enrolment, cgroups};
use evenkeel::mesh::DestinationId;
use evenkeel_common::DEFAULT_MARK;

#[test]
fn a_pods_own_use_of_loopback_keeps_its_names() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    for address in ["127.0.0.1:9000", "127.1.0.4:9000", "[::1]:9000"] {
        let listener = listen(&node.netns, address);
        let socket = node.app.dial(dial(address)).unwrap();
        let (stream, from) = listener.accept().unwrap();
        let names = node.app.names(socket);
        assert_eq!((names.peer.to_string().as_str(), names.own), (address, from));
        assert_eq!(stream.local_addr().unwrap().to_string(), address);
    }
}

#[test]
fn a_socket_that_was_bound_first_keeps_its_address_and_port() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let from = format!("{POD_V4}:23456").parse().unwrap();
    let names = node.taken(Dial { from: Some(from), ..dial(SERVICE_V4) }, 4);
    assert_eq!((names.peer.to_string().as_str(), names.own), (SERVICE_V4, from));
}

#[test]
fn a_connections_own_port_is_the_one_that_the_agent_sees() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let (socket, arrival) = node.dial(dial(SERVICE_V4));
    let stream = arrival.expect_agent(4);
    assert_eq!(node.app.names(socket).own.port(), stream.peer_addr().unwrap().port());
}

#[test]
fn connections_keep_their_names_while_pod_and_destination_go() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let (socket, arrival) = node.dial(dial(SERVICE_V4));
    let _stream = arrival.expect_agent(4);
    let names = node.app.names(socket);

    node.kernel.remove_destination(SERVICE_V4.parse().unwrap()).unwrap();
    assert_eq!(node.app.names(socket), names);
    node.enrol(&Enrolment { leaving: true, ..node.enrolment() });
    assert_eq!(node.app.names(socket), names);
    node.kernel.forget(DestinationId::new(4).unwrap()).unwrap();
    assert!(node.app.names(socket).peer.ip().is_loopback(), "an id that stands for nothing names nothing");
}

#[test]
fn a_pod_without_a_known_address_sees_loopback_as_its_own() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    node.enrol(&Enrolment { ipv4: None, ipv6: None, ..node.enrolment() });
    let names = node.taken(dial(SERVICE_V4), 4);
    assert_eq!(names.peer.to_string(), SERVICE_V4);
    assert!(names.own.ip().is_loopback());
}

#[test]
fn the_agent_is_not_deceived_where_the_programs_see_its_own_sockets() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    // The root holds this very process, as `kubepods` holds the agent's.
    node.links = node.kernel.attach(&cgroups::cgroup2_mount().unwrap()).unwrap();
    for (service, id) in [(SERVICE_V4, 4), (SERVICE_V6, 6)] {
        let (socket, arrival) = node.dial(dial(service));
        let stream = arrival.expect_agent(id);
        let names = node.app.names(socket);
        assert_eq!(names.peer.to_string(), service);
        let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        assert_eq!((local.port(), peer.port()), (node.listener.port, names.own.port()));
        assert_ne!(local.ip(), names.peer.ip());

        let address: std::net::SocketAddr = service.parse().unwrap();
        let family = i32::from(socket2::Domain::for_address(address));
        let upstream = node.netns.socket(family, libc::SOCK_STREAM, 0, Some(DEFAULT_MARK)).unwrap();
        let upstream = socket2::Socket::from(upstream);
        upstream.connect(&address.into()).unwrap();
        let (from, _stream) = node.arrival().expect_server();
        assert_eq!(upstream.local_addr().unwrap().as_socket(), Some(from));
        assert_eq!(upstream.peer_addr().unwrap().as_socket(), Some(address));
        let wants = if address.is_ipv4() { POD_V4 } else { POD_V6 };
        assert_eq!(from.ip().to_string(), wants, "the server sees the pod's own address");
    }
}
