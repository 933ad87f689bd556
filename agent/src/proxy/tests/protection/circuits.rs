//! How many calls and connections a source may have, and what its cancels cost others.

use super::*;

#[test]
fn beyond_the_calls_that_a_pod_may_have_under_way_it_is_told_which_limit_and_another_pod_is_not() {
    let mut turns = Turns::protected(&[1], circuit(2, 9, 9));
    let mut client = Client::of_pod(&mut turns, "busy", 1);
    for _ in 0..3 {
        client.call(&mut turns);
    }
    let message = "evenkeel: pod shop/busy has 2 calls under way already (Service shop/cart:50051)";
    assert_eq!(client.told(&mut turns), [status("14", message)]);
    let mut other = Client::of_pod(&mut turns, "other", 2);
    other.call(&mut turns);
    assert_eq!(other.told(&mut turns), []);
    // A call that ends makes room for one.
    let (conn, _) = turns.dials.remove(0);
    turns.engine.connected(conn);
    let mut server = Connection::server(&Limits::default());
    turns.feed(conn, &take(&mut server));
    turns.settle();
    let streams = requests(&mut turns, conn, &mut server);
    assert_eq!(streams.len(), 2);
    answer(&mut turns, conn, &mut server, streams[0]);
    assert_eq!(client.told(&mut turns), [ok()]);
    client.call(&mut turns);
    assert_eq!(client.told(&mut turns), []);
    client.call(&mut turns);
    assert_eq!(client.told(&mut turns), [status("14", message)]);
    assert_eq!(turns.engine.counters().circuit_refusals, 2);
}

#[test]
fn beyond_the_calls_that_may_wait_a_call_is_answered_and_those_that_are_served_count_no_more() {
    let mut turns = Turns::protected(&[1], circuit(99, 2, 9));
    let mut client = Client::of_pod(&mut turns, "busy", 1);
    for _ in 0..3 {
        client.call(&mut turns);
    }
    let message = "evenkeel: pod shop/busy has 2 waiting calls already (Service shop/cart:50051)";
    assert_eq!(client.told(&mut turns), [status("14", message)]);
    let (conn, mut server) = turns.serve();
    assert_eq!(requests(&mut turns, conn, &mut server).len(), 2);
    client.call(&mut turns);
    assert_eq!(
        requests(&mut turns, conn, &mut server).len(),
        1,
        "there is a stream for it: it does not wait"
    );
    // Nor for an endpoint.
    turns.publish(&[]);
    for _ in 0..3 {
        client.call(&mut turns);
    }
    assert_eq!(client.told(&mut turns), [status("14", message)]);
}

#[test]
fn beyond_its_connections_to_servers_a_call_is_answered_or_waits_for_those_that_there_are() {
    let mut turns = Turns::protected(&[1, 2], circuit(99, 99, 1));
    let mut client = Client::of_pod(&mut turns, "busy", 1);
    client.call(&mut turns);
    client.call(&mut turns);
    let message = "evenkeel: pod shop/busy has 1 connections to servers already (Service shop/cart:50051)";
    assert_eq!(client.told(&mut turns), [status("14", message)], "the second goes to the other endpoint");
    let (conn, _) = turns.serve();
    turns.engine.failed(conn);
    turns.settle();
    client.told(&mut turns);
    client.call(&mut turns);
    assert_eq!(turns.dials.len(), 1, "a connection that is gone makes room for one");
}

#[test]
fn a_server_that_leaves_because_of_many_cancels_costs_no_call() {
    let mut turns = Turns::new(&[1]);
    let mut offender = Client::of_pod(&mut turns, "a", 1);
    let mut other = Client::of_pod(&mut turns, "a", 1);
    other.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let begun = requests(&mut turns, conn, &mut server);
    for _ in 0..50 {
        let stream = offender.call(&mut turns);
        offender.http2.release(stream);
        offender.speak(&mut turns);
    }
    requests(&mut turns, conn, &mut server);
    // These it has not seen when it has had enough.
    other.call(&mut turns);
    other.call(&mut turns);
    server.go_away(ErrorCode::EnhanceYourCalm, LastStream::Seen);
    turns.feed(conn, &take(&mut server));
    turns.settle();
    let (again, mut fresh) = turns.serve();
    let retried = requests(&mut turns, again, &mut fresh);
    assert_eq!(retried.len(), 2);
    for stream in retried {
        answer(&mut turns, again, &mut fresh, stream);
    }
    // What it has begun it ends.
    answer(&mut turns, conn, &mut server, begun[0]);
    assert_eq!(other.told(&mut turns), [ok(), ok(), ok()]);
    assert_eq!(turns.engine.counters().own_errors, 0);
}

#[test]
fn of_pods_that_share_a_pool_one_at_its_limit_of_connections_keeps_no_other_from_one() {
    let mut turns = Turns::protected(&[1], circuit(99, 99, 1));
    turns.engine.share_upstreams = true;
    let mut one = Client::of_pod(&mut turns, "one", 1);
    let mut other = Client::of_pod(&mut turns, "other", 2);
    one.call(&mut turns);
    let (conn, _) = turns.dials.pop().expect("a connection is wanted");
    turns.engine.connected(conn);
    // The server takes one call at a time.
    let mut server = Connection::server(&Limits { max_concurrent_streams: 1, ..Limits::default() });
    turns.feed(conn, &take(&mut server));
    turns.settle();
    assert_eq!(requests(&mut turns, conn, &mut server).len(), 1);
    one.call(&mut turns);
    assert_eq!(turns.dials, [], "it has a connection");
    other.call(&mut turns);
    assert_eq!(turns.dials.len(), 1, "and this one has none");
    assert_eq!((one.told(&mut turns), other.told(&mut turns)), (vec![], vec![]));
}
