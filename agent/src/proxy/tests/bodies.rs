//! Bodies in the shapes that other proxies have stumbled over.

use super::rules::{begun, got, request, requests, server_speaks};
use super::turns::{Turns, list, read, take};
use crate::http2::{ErrorCode, Event};

#[test]
fn uploads_cancelled_while_the_server_reads_nothing_leave_the_client_its_credit() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, _) = begun(&mut turns);
    // 300 times a stream's window is more than the connection's.
    for round in 0..300 {
        let stream = turns.client.open(&request("application/grpc", 0), false, 0).expect("there is room");
        turns.client_speaks();
        assert_eq!(turns.client.send_data(stream, &[0; 65_535], false), 65_535, "in round {round}");
        turns.client_speaks();
        requests(&mut turns, conn, &mut server);
        turns.client.reset(stream, ErrorCode::Cancel);
        turns.client.release(stream);
        turns.client_speaks();
        got(&mut turns);
        requests(&mut turns, conn, &mut server);
        // It acknowledges, and gives no credit to any stream.
        server_speaks(&mut turns, conn, &mut server);
    }
    turns.client_speaks();
    assert_eq!(turns.engine.counters().calls_open, 1);
}

#[test]
fn a_clients_reset_reaches_the_server_with_its_code() {
    for code in [ErrorCode::Cancel, ErrorCode::NoError, ErrorCode::InternalError, ErrorCode::Unknown(77)] {
        let mut turns = Turns::new(&[1]);
        let stream = turns.call("/a");
        turns.client_speaks();
        let (conn, mut server) = turns.serve();
        requests(&mut turns, conn, &mut server);
        turns.client.reset(stream, code);
        turns.client_speaks();
        let mut seen = Vec::new();
        let bytes = turns.output(conn);
        read(&mut server, &bytes, |event, _| {
            if let Event::Reset { code, .. } = event {
                seen.push(code);
            }
        });
        assert_eq!(seen, [code]);
    }
}

#[test]
fn empty_pieces_of_a_body_are_not_passed_on() {
    const EMPTY_DATA: [u8; 9] = [0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    server_speaks(&mut turns, conn, &mut server);
    turns.output(turns.client_conn);
    turns.feed(conn, &EMPTY_DATA.repeat(500));
    turns.settle();
    assert_eq!(turns.output(turns.client_conn), b"");
    server.send_data(stream, b"a", false);
    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
    server_speaks(&mut turns, conn, &mut server);
    assert_eq!(turns.engine.counters().answered, 1);
}

#[test]
fn many_tiny_messages_wait_for_a_slow_reader_and_none_is_lost() {
    const MESSAGES: usize = 60_000;
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    for _ in 0..MESSAGES {
        assert_eq!(server.send_data(stream, b"m", false), 1);
        turns.feed(conn, &take(&mut server));
    }
    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
    server_speaks(&mut turns, conn, &mut server);
    let mut came = 0;
    let mut ended = false;
    while !ended {
        let bytes = turns.output(turns.client_conn);
        assert!(!bytes.is_empty(), "{came} bytes, and no more");
        read(&mut turns.client, &bytes, |event, _| match event {
            Event::Data { payload, .. } => came += payload.len(),
            Event::Headers { end_stream, .. } => ended |= end_stream,
            _ => {}
        });
    }
    assert_eq!(came, MESSAGES);
    let counters = turns.engine.counters();
    assert_eq!((counters.answered, counters.server_protocol_errors, counters.resets), (1, 0, 0));
}

#[test]
fn a_large_request_list_is_let_go_of_when_its_call_cannot_be_sent_again() {
    let mut turns = Turns::new(&[1]);
    turns.client.open(&request("application/grpc", 50), true, 0).expect("there is room");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let stream = requests(&mut turns, conn, &mut server)[0];
    let held = |turns: &Turns| {
        let calls = turns.engine.downstreams.iter().flat_map(|(_, downstream)| &downstream.calls);
        calls.map(|call| turns.engine.calls[*call].held_bytes()).sum::<usize>()
    };
    assert!(held(&turns) > 50_000, "it may have to be sent again");
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    server_speaks(&mut turns, conn, &mut server);
    assert!(held(&turns) < 8_000, "{} bytes", held(&turns));
    assert_eq!(turns.engine.counters().calls_open, 1);
}

#[test]
fn a_server_that_breaks_http2_is_counted_and_its_calls_are_told() {
    let mut turns = Turns::new(&[1]);
    let (conn, _, _) = begun(&mut turns);
    // DATA on no stream.
    turns.feed(conn, &[0, 0, 0, 0, 0, 0, 0, 0, 0]);
    turns.settle();
    let counters = turns.engine.counters();
    assert_eq!((counters.server_protocol_errors, counters.protocol_errors), (1, 0));
    assert_eq!(got(&mut turns).grpc_status, "14");
}
