//! What is taken, and where it goes.

use crate::app::{Dial, dial};
use crate::node::{Node, POD_V4, POD_V6, SERVICE_V4, SERVICE_V6, can_run};
use evenkeel_common::Reason;

fn from(address: &str) -> Option<std::net::SocketAddr> {
    Some(address.parse().unwrap())
}

#[test]
fn every_kind_of_tcp_socket_reaches_the_agent_with_its_destinations_id() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    let kinds = [
        ("plain IPv4", dial(SERVICE_V4), 4),
        ("IPv4-mapped", Dial { mapped: true, ..dial(SERVICE_V4) }, 4),
        ("IPv6", dial(SERVICE_V6), 6),
        ("IPv6 only", Dial { v6only: true, ..dial(SERVICE_V6) }, 6),
        ("IPv4 bound", Dial { from: from("10.77.0.2:0"), ..dial(SERVICE_V4) }, 4),
        ("IPv6 bound", Dial { from: from("[fd77::2]:0"), ..dial(SERVICE_V6) }, 6),
        ("mapped bound", Dial { from: from("[::ffff:10.77.0.2]:0"), mapped: true, ..dial(SERVICE_V4) }, 4),
        ("MPTCP", Dial { mptcp: true, ..dial(SERVICE_V4) }, 4),
        ("MPTCP IPv6", Dial { mptcp: true, ..dial(SERVICE_V6) }, 6),
        ("bound to lo", Dial { device: Some("lo".into()), ..dial(SERVICE_V4) }, 4),
    ];
    let count = kinds.len() as u64;
    for (kind, dial, id) in kinds {
        let service = dial.to.unwrap();
        let (mapped, wants) = (dial.mapped, if service.is_ipv4() { POD_V4 } else { POD_V6 });
        let names = node.taken(dial, id);
        let peer = std::net::SocketAddr::new(names.peer.ip().to_canonical(), names.peer.port());
        assert_eq!(peer, service, "{kind}");
        assert_eq!(names.peer.is_ipv6(), mapped || service.is_ipv6(), "{kind}");
        assert_eq!(names.own.ip().to_canonical().to_string(), wants, "{kind}");
    }
    assert_eq!(node.counters().of(Reason::Taken), count);
}

#[test]
fn a_fast_open_socket_reaches_the_agent() {
    if !can_run() {
        return;
    }
    let mut node = Node::start();
    // Without a cookie the first connect() of such a socket is an ordinary one.
    let names = node.taken(Dial { fastopen: true, ..dial(SERVICE_V4) }, 4);
    assert_eq!(names.peer.to_string(), SERVICE_V4);
}
