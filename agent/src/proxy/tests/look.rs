//! What an engine shows of its connections and calls is what they are.

use super::super::Origin;
use super::super::look::{CallStage, Protocol, Side, Standing, Wanted};
use super::fixed;
use super::rules::{SECOND_NS, advance, begun, request, requests, server_speaks};
use super::turns::{START_NS, Turns, address, list};

/// Some time after the start: something to tell an age from.
const LATER_NS: u64 = START_NS + 2 * SECOND_NS;

fn all() -> Wanted {
    Wanted { pod: None, service: None, method: None, rows: 100 }
}

#[test]
fn a_call_is_shown_at_each_stage_of_its_way() {
    let mut turns = Turns::new(&[1]);
    let mut fields = request("application/grpc", 0);
    fields.push(b"grpc-timeout", b"10S");
    fields.push(b"authorization", b"Bearer secret");
    turns.client.open(&fields, true, 0).expect("there is room");
    turns.client_speaks();
    let waiting = turns.engine.look_at_calls(&all(), 3).rows.remove(0);
    assert_eq!((waiting.stage, waiting.worker), (CallStage::AwaitingStream, 3));
    assert_eq!((waiting.endpoint, waiting.attempts), (Some(address(1)), 1));
    assert_eq!(waiting.method.as_deref(), Some("/a"));
    assert_eq!(waiting.service_port.as_deref(), Some("shop/cart:50051"));
    assert!(!format!("{waiting:?}").contains("secret"), "{waiting:?}");

    let (conn, mut server) = turns.serve();
    let stream = requests(&mut turns, conn, &mut server)[0];
    advance(&mut turns, LATER_NS);
    let sent = turns.engine.look_at_calls(&all(), 0).rows.remove(0);
    assert_eq!((sent.stage, sent.request_ended, sent.answered_after_ms), (CallStage::Sent, true, None));
    assert_eq!((sent.age_ms, sent.deadline_left_ms), (2_000.0, Some(8_000.0)));

    server.send_headers(stream, &list(&[(":status", "200"), ("content-type", "application/grpc")]), false);
    server.send_data(stream, &[0, 0, 0, 0, 2, 7, 7], false);
    server_speaks(&mut turns, conn, &mut server);
    let answering = turns.engine.look_at_calls(&all(), 0).rows.remove(0);
    assert_eq!((answering.stage, answering.answered_after_ms), (CallStage::Answering, Some(2_000.0)));
    assert_eq!((answering.response_bytes, answering.response_messages), (7, 1));

    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
    server_speaks(&mut turns, conn, &mut server);
    turns.answers();
    assert_eq!(turns.engine.look_at_calls(&all(), 0).total, 0);
}

#[test]
fn a_call_without_an_endpoint_and_a_path_with_a_query_are_shown() {
    let mut turns = Turns::new(&[]);
    turns.call(&format!("/a?token=secret&{}", "x".repeat(1_000)));
    turns.call(&format!("/{}", "m".repeat(1_000)));
    turns.client_speaks();
    let calls = turns.engine.look_at_calls(&all(), 0).rows;
    assert!(calls.iter().all(|call| call.stage == CallStage::AwaitingEndpoint && call.endpoint.is_none()));
    let mut methods: Vec<_> = calls.into_iter().filter_map(|call| call.method).collect();
    methods.sort_by_key(String::len);
    assert_eq!(methods[0], "/a");
    assert_eq!(methods[1].len(), 256);
}

#[test]
fn a_connection_is_shown_with_what_is_spoken_and_how_it_stands() {
    let mut turns = Turns::new(&[1]);
    begun(&mut turns);
    turns.engine.accepted(Origin::Agent, fixed()).expect("the destination is known");
    let relayed = turns.engine.accepted(Origin::Agent, fixed()).expect("the destination is known");
    turns.feed(relayed, b"\x16\x03\x01");
    turns.settle();
    // A silent client counts as no HTTP/2 after a second.
    advance(&mut turns, START_NS + SECOND_NS / 2);
    let shown = turns.engine.look_at_connections(&all(), 1);
    assert_eq!((shown.total, shown.rows.len()), (5, 5), "{shown:?}");
    let of = |side, protocol| {
        let found: Vec<_> =
            shown.rows.iter().filter(|row| (row.side, row.protocol) == (side, protocol)).collect();
        assert_eq!(found.len(), 1, "{side:?} {protocol:?}: {shown:?}");
        found[0]
    };
    let client = of(Side::Client, Protocol::Http2);
    assert_eq!((client.standing, client.streams, client.age_seconds), (Standing::Open, 1, 0.5));
    let server = of(Side::Server, Protocol::Http2);
    assert_eq!((server.standing, server.streams, server.address), (Standing::Open, 1, Some(address(1))));
    assert_eq!(of(Side::Client, Protocol::Sniffing).streams, 0);
    assert_eq!(of(Side::Client, Protocol::Relayed).standing, Standing::Open);
    assert_eq!(of(Side::Server, Protocol::Relayed).standing, Standing::Connecting);
    for row in &shown.rows {
        assert_eq!(row.service_port.as_deref(), Some("shop/cart:50051"), "{row:?}");
        assert!(row.worker == 1 && row.pod.is_none(), "{row:?}");
    }
    assert!(client.held_bytes > 0 && server.held_bytes > 0 && client.is_read && server.is_read);
}

#[test]
fn no_more_is_shown_than_asked_for() {
    let mut turns = Turns::new(&[1]);
    for _ in 0..5 {
        turns.call("/a");
    }
    turns.client_speaks();
    let shown = turns.engine.look_at_calls(&Wanted { rows: 2, ..all() }, 0);
    assert_eq!((shown.rows.len(), shown.total), (2, 5));
    let other = Wanted { service: "shop/other".parse().ok(), ..all() };
    assert_eq!(turns.engine.look_at_calls(&other, 0).total, 0);
    assert_eq!(turns.engine.look_at_connections(&other, 0).total, 0);
    let port = Wanted { service: "shop/cart:50051".parse().ok(), ..all() };
    assert_eq!(turns.engine.look_at_calls(&port, 0).total, 5);
    assert_eq!(turns.engine.look_at_connections(&port, 0).total, 2);
    let pod = Wanted { pod: "shop/web".parse().ok(), ..all() };
    assert_eq!(turns.engine.look_at_calls(&pod, 0).total, 0);
}
