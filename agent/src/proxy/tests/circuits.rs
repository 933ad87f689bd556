//! Circuit breakers where several Services or their annotations have a say.

use super::super::{ConnId, Origin};
use super::protection::{Client, Told, status};
use super::rules::server_speaks;
use super::turns::{Turns, address, publish_all, take};
use super::{fixed, pod_named};
use crate::http2::{Connection, ErrorCode, LastStream, Limits};
use crate::mesh::{Balancing, DestinationId, Picker};
use std::net::SocketAddr;

/// Opens the connection to this address that the engine wants.
fn greet(turns: &mut Turns, to: SocketAddr, limits: &Limits) -> (ConnId, Connection) {
    let wanted = turns.dials.iter().position(|(_, address)| *address == to).expect("it is wanted");
    let (conn, _) = turns.dials.remove(wanted);
    turns.engine.connected(conn);
    let mut server = Connection::server(limits);
    turns.feed(conn, &take(&mut server));
    turns.settle();
    (conn, server)
}

#[test]
fn what_a_service_says_of_its_circuit_goes_before_the_flags() {
    let mut turns = Turns::new(&[1]);
    let circuit_breaker = "requests=3 pending=2".parse().expect("limits");
    turns.publish_as(&[1], Balancing { circuit_breaker, ..Picker::RoundRobin.into() });
    let mut client = Client::of_pod(&mut turns, "busy", 1);
    for _ in 0..3 {
        client.call(&mut turns);
    }
    let message = "evenkeel: pod shop/busy has 2 waiting calls already (Service shop/cart:50051)";
    assert_eq!(client.told(&mut turns), [status("14", message)]);
    greet(&mut turns, address(1), &Limits::default());
    client.call(&mut turns);
    client.call(&mut turns);
    let message = "evenkeel: pod shop/busy has 3 calls under way already (Service shop/cart:50051)";
    assert_eq!(client.told(&mut turns), [status("14", message)]);
    // The Service takes it back: the flags hold.
    turns.publish_as(&[1], Picker::RoundRobin.into());
    client.call(&mut turns);
    assert_eq!(client.told(&mut turns), []);
}

#[test]
fn a_service_at_its_limit_of_connections_keeps_no_other_from_the_server_that_they_share() {
    for leaves in [false, true] {
        let mut turns = Turns::new(&[1, 2]);
        let other = DestinationId::new(8).expect("in the space");
        let one_connection = || Balancing {
            circuit_breaker: "connections=1".parse().expect("limits"),
            ..Picker::RoundRobin.into()
        };
        let publish = |turns: &mut Turns, shared: u8| {
            let second = (other, "stock", &[shared][..], Picker::RoundRobin.into());
            publish_all(&mut turns.engine, [(fixed(), "cart", &[1, 2][..], one_connection()), second]);
            turns.settle();
        };
        publish(&mut turns, 1);
        let pod = pod_named("busy", 1);
        let mut limited = Client::connect(&mut turns, Origin::Pod(pod.clone()));
        limited.call(&mut turns);
        let (_, first) = turns.dials[0];
        greet(&mut turns, first, &Limits::default());
        // The next one of the first Service goes to the server that the second one has.
        let shared = if first == address(1) { 2 } else { 1 };
        publish(&mut turns, shared);
        let conn = turns.engine.accepted(Origin::Pod(pod), other).expect("the destination is known");
        let mut free = Client { conn, http2: Connection::client(&Limits::default()) };
        free.call(&mut turns);
        let one_stream = Limits { max_concurrent_streams: 1, ..Limits::default() };
        let (upstream, mut server) = greet(&mut turns, address(shared), &one_stream);
        turns.output(upstream);
        limited.call(&mut turns);
        assert_eq!((limited.told(&mut turns), turns.dials.len()), (vec![], 0), "it waits for what there is");
        free.call(&mut turns);
        if leaves {
            // With the connection that they waited for, no one else's limit takes the other's call.
            let (second, _) = turns.dials.pop().expect("another connection is wanted");
            turns.engine.connect_failed(second);
            turns.settle();
            server.go_away(ErrorCode::NoError, LastStream::Seen);
            server_speaks(&mut turns, upstream, &mut server);
        }
        let told: Vec<Told> = free.told(&mut turns);
        assert_eq!(told, [], "leaves: {leaves}");
        assert_eq!(
            turns.dials.iter().filter(|(_, to)| *to == address(shared)).count(),
            1,
            "leaves: {leaves}"
        );
    }
}
