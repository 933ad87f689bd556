//! Connections that a pod had before it was enrolled.

use crate::app::{Dial, dial};
use crate::node::{Node, OTHER_V4, SERVICE_V4, SERVICE_V6, can_run};
use evenkeel::kernel::reconnect;
use evenkeel_common::DEFAULT_MARK;
use std::collections::HashSet;
use std::net::SocketAddr;

fn services() -> HashSet<SocketAddr> {
    [SERVICE_V4, SERVICE_V6].map(|s| s.parse().unwrap()).into()
}

#[test]
fn earlier_connections_are_counted_and_ended_and_their_redials_taken() {
    if !can_run() {
        return;
    }
    let mut node = Node::start_unenrolled();
    let dials = [dial(SERVICE_V4), Dial { mapped: true, ..dial(SERVICE_V4) }, dial(SERVICE_V6)];
    let mut earlier = Vec::new();
    for dial in dials.clone() {
        let (socket, arrival) = node.dial(dial);
        earlier.push((socket, arrival.expect_server()));
    }
    let (other, arrival) = node.dial(dial(OTHER_V4));
    let (_, other_stream) = arrival.expect_server();

    // An agent's own: what it relays untouched, or what another agent still carries.
    let (_, arrival) = node.dial(Dial { mark: DEFAULT_MARK, ..dial(SERVICE_V4) });
    let _relayed = arrival.expect_server();

    node.enrol(&node.enrolment());
    let (taken, arrival) = node.dial(dial(SERVICE_V4));
    let taken_stream = arrival.expect_agent(4);
    let found = reconnect::connections(&node.netns, &services(), DEFAULT_MARK).unwrap();
    let mut locals: Vec<_> = found.iter().map(|connection| connection.local).collect();
    let mut expected: Vec<_> = earlier.iter().map(|(_, (from, _))| *from).collect();
    locals.sort();
    expected.sort();
    assert_eq!(locals, expected, "neither the taken one, nor one to another destination, nor an agent's own");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(reconnect::end_all(&node.netns, &services(), DEFAULT_MARK)).unwrap(), 3);
    for ((socket, _), dial) in earlier.iter().zip(dials) {
        let error = node.app.read(*socket).unwrap_err();
        assert!(error.contains("abort"), "{error}");
        let id = if dial.to.unwrap().is_ipv4() { 4 } else { 6 };
        node.taken(dial, id);
    }
    assert!(reconnect::connections(&node.netns, &services(), DEFAULT_MARK).unwrap().is_empty());

    drop((other_stream, taken_stream));
    node.app.read(other).expect("ended by the server alone");
    node.app.read(taken).expect("ended by the agent alone");
}

#[test]
fn a_busy_connection_is_not_idle_until_it_rests() {
    if !can_run() {
        return;
    }
    let mut node = Node::start_unenrolled();
    let (socket, arrival) = node.dial(dial(SERVICE_V4));
    let (_, stream) = arrival.expect_server();
    // More than the two ends' buffers hold, and the server reads none of it.
    node.app.fill(socket);
    let found = reconnect::connections(&node.netns, &services(), DEFAULT_MARK).unwrap();
    assert!(matches!(found.as_slice(), [connection] if !connection.idle), "{found:?}");
    stream.set_nonblocking(true).unwrap();
    while !matches!(reconnect::connections(&node.netns, &services(), DEFAULT_MARK).unwrap().as_slice(), [c] if c.idle)
    {
        let empty = std::io::copy(&mut &stream, &mut std::io::sink()).unwrap_err();
        assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
    }
}
