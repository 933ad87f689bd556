//! How calls and connections end when time is up: a call's deadline, a drain's, and what comes in the same moment.

use super::super::ConnId;
use super::rules::{Got, SECOND_NS, advance, begun, got, request, requests, seen_by_server, server_speaks};
use super::turns::{START_NS, Turns, list, read};
use crate::http2::{Connection, ErrorCode, Event, LastStream, Limits, StreamKey};

#[test]
fn an_answer_that_nobody_reads_is_reset_at_a_drains_end_and_never_looks_whole() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    // More than the client's window, which never opens.
    server.send_data(stream, &[0; 65_535], false);
    server_speaks(&mut turns, conn, &mut server);
    got(&mut turns);
    requests(&mut turns, conn, &mut server);
    server.send_data(stream, &[0; 20_000], false);
    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
    if server.wants_advance() {
        server.advance(&mut Vec::new());
    }
    server_speaks(&mut turns, conn, &mut server);
    turns.engine.drain(START_NS + 5 * SECOND_NS);
    for second in 1..=12 {
        advance(&mut turns, START_NS + second * SECOND_NS);
        if turns.closed.is_empty() {
            let got = got(&mut turns);
            assert!(!got.ended, "it looks whole");
            assert_eq!(
                got.reset,
                (second == 7).then_some(ErrorCode::InternalError),
                "after {second} seconds"
            );
        }
    }
    assert_eq!(turns.shut, [turns.client_conn]);
    assert!(turns.engine.is_drained());
    assert_eq!(turns.engine.counters().cut_off, 1);
}

#[test]
fn the_time_that_is_left_goes_upstream_and_the_agent_answers_when_it_has_passed() {
    let mut turns = Turns::new(&[1]);
    let mut fields = request("application/grpc", 0);
    fields.push(b"grpc-timeout", b"2S");
    turns.client.open(&fields, true, 0).expect("there is room");
    turns.client_speaks();
    // The connection takes half a second to open.
    advance(&mut turns, START_NS + SECOND_NS / 2);
    let (conn, mut server) = turns.serve();
    let seen = seen_by_server(&mut turns, conn, &mut server);
    assert!(seen.contains(&("grpc-timeout".to_owned(), "1500000u".to_owned())), "{seen:?}");
    advance(&mut turns, START_NS + 2 * SECOND_NS);
    assert_eq!(got(&mut turns), Got::default(), "the server's own answer may still come");
    advance(&mut turns, START_NS + 2 * SECOND_NS + 20_000_000);
    let got = got(&mut turns);
    assert_eq!((&got.grpc_status[..], got.ended), ("4", true));
    assert_eq!(got.message, "evenkeel: the call's deadline passed (Service shop/cart:50051)");
    let mut reset = None;
    let bytes = turns.output(conn);
    read(&mut server, &bytes, |event, _| {
        if let Event::Reset { code, .. } = event {
            reset = Some(code);
        }
    });
    assert_eq!(reset, Some(ErrorCode::Cancel));
}

#[test]
fn beyond_every_servers_limit_a_call_waits_for_a_stream_until_its_deadline() {
    let mut turns = Turns::new(&[1]);
    let one = Limits { max_concurrent_streams: 1, ..Limits::default() };
    for _ in 0..20 {
        let mut fields = request("application/grpc", 0);
        fields.push(b"grpc-timeout", b"2S");
        turns.client.open(&fields, true, 0).expect("there is room");
    }
    turns.client_speaks();
    let mut servers = Vec::new();
    while let Some((conn, _)) = turns.dials.pop() {
        turns.engine.connected(conn);
        let mut server = Connection::server(&one);
        server_speaks(&mut turns, conn, &mut server);
        servers.push((conn, server));
    }
    assert_eq!(servers.len(), 8, "another connection, up to a limit");
    // One answers, and its stream goes to the next call.
    let (conn, server) = &mut servers[0];
    let streams = requests(&mut turns, *conn, server);
    assert_eq!(streams.len(), 1);
    server.send_headers(streams[0], &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    server_speaks(&mut turns, *conn, server);
    assert_eq!(requests(&mut turns, *conn, server).len(), 1);
    assert_eq!(turns.answers(), ["0"]);
    advance(&mut turns, START_NS + 3 * SECOND_NS);
    assert_eq!(turns.answers(), vec!["4"; 19]);
}

/// A deadline of a second, at a server that ends the call in the grace behind it.
fn ended_in_the_grace(
    hosts: &[u8],
    end: impl FnOnce(&mut Turns, ConnId, &mut Connection, StreamKey),
) -> (Turns, Got) {
    let mut turns = Turns::new(hosts);
    let mut fields = request("application/grpc", 0);
    fields.push(b"grpc-timeout", b"1S");
    turns.client.open(&fields, true, 0).expect("there is room");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let stream = requests(&mut turns, conn, &mut server)[0];
    turns.engine.set_time(START_NS + SECOND_NS + 1_000_000);
    end(&mut turns, conn, &mut server, stream);
    server_speaks(&mut turns, conn, &mut server);
    let got = got(&mut turns);
    (turns, got)
}

#[test]
fn what_a_server_does_because_the_deadline_has_passed_is_told_as_the_deadline() {
    for code in [ErrorCode::Cancel, ErrorCode::RefusedStream, ErrorCode::InternalError] {
        for hosts in [&[1][..], &[1, 2]] {
            let (turns, got) = ended_in_the_grace(hosts, |_, _, server, stream| server.reset(stream, code));
            assert_eq!((&got.grpc_status[..], got.ended), ("4", true), "{code:?}");
            let counters = turns.engine.counters();
            assert_eq!((counters.deadlines, counters.retries, counters.calls_open), (1, 0, 0), "{code:?}");
        }
    }
    let (_, got) =
        ended_in_the_grace(&[1], |_, _, server, _| server.go_away(ErrorCode::NoError, LastStream::Seen));
    assert_eq!(got, Got::default(), "it has the call, and may finish it");
    let (turns, got) = ended_in_the_grace(&[1], |turns, conn, _, _| turns.engine.failed(conn));
    assert_eq!((&got.grpc_status[..], turns.engine.counters().deadlines), ("4", 1));
    // A GOAWAY that says the call was never processed.
    let (turns, got) = ended_in_the_grace(&[1, 2], |turns, conn, _, _| {
        turns.feed(conn, &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });
    assert_eq!((&got.grpc_status[..], turns.engine.counters().retries), ("4", 0));
    // A status of the server's own is its to give.
    let (_, got) = ended_in_the_grace(&[1], |_, _, server, stream| {
        server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "13")]), true);
    });
    assert_eq!(got.grpc_status, "13");
}

#[test]
fn a_goaway_sends_what_was_never_processed_to_another_server_and_leaves_the_rest() {
    let mut turns = Turns::new(&[1]);
    turns.call("/a");
    turns.call("/b");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    turns.publish(&[1, 2]);
    // GOAWAY, NO_ERROR, last stream 1.
    turns.feed(conn, &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    turns.settle();
    assert_eq!(turns.dials.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [super::turns::address(2)]);
    let (other_conn, mut other) = turns.serve();
    let retried = requests(&mut turns, other_conn, &mut other);
    assert_eq!(retried.len(), 1);
    other.send_headers(retried[0], &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    server_speaks(&mut turns, other_conn, &mut other);
    assert_eq!(turns.answers(), ["0"]);
    server.send_headers(streams[0], &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    server_speaks(&mut turns, conn, &mut server);
    assert_eq!(turns.answers(), ["0"]);
    let counters = turns.engine.counters();
    assert_eq!((counters.retries, counters.answered, counters.calls_open), (1, 2, 0));
}

/// A client that is sent away while it still has most of an answer to read, which the server has ended.
fn unread_answer() -> Turns {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    server.send_data(stream, &[7; 60_000], false);
    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
    turns.engine.drain(START_NS + 60 * SECOND_NS);
    // The first GOAWAY, and for want of an answer the second.
    advance(&mut turns, START_NS + 6 * SECOND_NS);
    advance(&mut turns, START_NS + 17 * SECOND_NS);
    server_speaks(&mut turns, conn, &mut server);
    assert_eq!(turns.engine.counters().answered, 1);
    turns
}

#[test]
fn a_client_that_reads_slowly_gets_the_whole_answer_before_a_drains_deadline_and_beyond_it() {
    let mut turns = unread_answer();
    let mut body = 0;
    let mut ended = false;
    for second in 20..=90 {
        advance(&mut turns, START_NS + second * SECOND_NS);
        // A kilobyte a second.
        let bytes = turns.engine.output(turns.client_conn);
        let bytes = bytes[..bytes.len().min(1_000)].to_vec();
        turns.engine.sent(turns.client_conn, bytes.len());
        turns.settle();
        read(&mut turns.client, &bytes, |event, _| match event {
            Event::Data { payload, .. } => body += payload.len(),
            Event::Headers { end_stream, .. } => ended |= end_stream,
            _ => {}
        });
    }
    assert!(ended && body == 60_000, "{body} bytes");
    assert_eq!((turns.engine.counters().cut_off, &turns.shut[..]), (0, &[turns.client_conn][..]));
    assert!(turns.closed.contains(&(turns.client_conn, false)), "{:?}", turns.closed);
}

#[test]
fn a_client_that_does_not_read_its_last_answer_is_cut_off_behind_a_drains_deadline() {
    let mut turns = unread_answer();
    for second in 20..=61 {
        advance(&mut turns, START_NS + second * SECOND_NS);
    }
    assert_eq!((turns.engine.counters().cut_off, turns.engine.client_connections()), (0, 1));
    for second in 62..=66 {
        advance(&mut turns, START_NS + second * SECOND_NS);
    }
    assert_eq!((turns.engine.counters().cut_off, turns.engine.client_connections()), (1, 0));
    assert!(turns.closed.contains(&(turns.client_conn, true)));
}

#[test]
fn an_answer_that_waits_for_its_window_is_read_to_its_end_beyond_a_drains_deadline() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    // Twice the client's window.
    server.send_data(stream, &[7; 130_000], false);
    server.send_trailers(stream, &list(&[("grpc-status", "0")]));
    for _ in 0..10 {
        server_speaks(&mut turns, conn, &mut server);
        let said = turns.output(conn);
        read(&mut server, &said, |_, _| ());
        server.advance(&mut Vec::new());
    }
    assert_eq!(turns.engine.counters().answered, 1);
    turns.engine.drain(START_NS + 10 * SECOND_NS);
    let (mut body, mut ended) = (0, false);
    for second in 1..=150 {
        advance(&mut turns, START_NS + second * SECOND_NS);
        let bytes = turns.engine.output(turns.client_conn);
        let bytes = bytes[..bytes.len().min(2_000)].to_vec();
        turns.engine.sent(turns.client_conn, bytes.len());
        turns.settle();
        let mut taken = Vec::new();
        read(&mut turns.client, &bytes, |event, _| match event {
            Event::Data { stream, payload, .. } => taken.push((stream, payload.len())),
            Event::Headers { end_stream, .. } => ended |= end_stream,
            _ => {}
        });
        for (stream, bytes) in taken {
            body += bytes;
            turns.client.grant(stream, bytes as u32);
        }
        turns.client_speaks();
    }
    assert!(ended && body == 130_000, "{body} bytes");
    assert_eq!(turns.engine.counters().cut_off, 0);
}
