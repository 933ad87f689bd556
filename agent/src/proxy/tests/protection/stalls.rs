//! Peers that keep a source's calls waiting.

use super::*;

/// A call with an answer that is larger than the stream's window, beside another one that waits for its own.
fn with_a_stalled_answer(turns: &mut Turns, client: &mut Client) -> (ConnId, Connection, Vec<StreamKey>) {
    client.call(turns);
    client.call(turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(turns, conn, &mut server);
    server.send_headers(streams[0], &list(&[(":status", "200")]), false);
    server.send_data(streams[0], &[0; 65_535], false);
    speak(turns, conn, &mut server);
    client.told(turns);
    client.speak(turns);
    server.send_data(streams[0], &[0; 10_000], false);
    speak(turns, conn, &mut server);
    (conn, server, streams)
}

/// Whether within so many seconds the client's stalled stream was reset; it gives `credit` bytes a second meanwhile.
fn is_reset_within(turns: &mut Turns, client: &mut Client, seconds: u64, credit: u32) -> bool {
    let from = (turns.engine.now_ns - START_NS) / SECOND_NS;
    for second in from + 1..=from + seconds {
        turns.engine.tick(START_NS + second * SECOND_NS);
        turns.settle();
        if client.told(turns).contains(&Told::Reset(ErrorCode::EnhanceYourCalm)) {
            return true;
        }
        if credit > 0 {
            // A window of one byte more, which no library sends.
            let mut frame = vec![0, 0, 4, 8, 0, 0, 0, 0, 1];
            frame.extend(credit.to_be_bytes());
            turns.feed(client.conn, &frame);
            turns.settle();
        }
        client.speak(turns);
    }
    false
}

#[test]
fn a_stream_that_takes_nothing_or_a_byte_at_a_time_is_reset_and_its_neighbours_are_not() {
    for credit in [0, 1] {
        let mut turns = Turns::new(&[1]);
        let mut client = Client::of_pod(&mut turns, "lazy", 1);
        let (conn, mut server, streams) = with_a_stalled_answer(&mut turns, &mut client);
        assert!(!is_reset_within(&mut turns, &mut client, 280, credit), "it may take its time");
        assert!(is_reset_within(&mut turns, &mut client, 40, credit));
        answer(&mut turns, conn, &mut server, streams[1]);
        assert_eq!(client.told(&mut turns), [ok()]);
        assert_eq!(turns.engine.counters().stalled_streams, 1);
        assert_eq!(closed(&turns), []);
    }
}

#[test]
fn a_stream_that_takes_little_all_the_time_is_left_alone() {
    let mut turns = Turns::new(&[1]);
    let mut client = Client::of_pod(&mut turns, "slow", 1);
    let (_conn, _server, _) = with_a_stalled_answer(&mut turns, &mut client);
    // 10,000 bytes are gone before it could stall.
    assert!(!is_reset_within(&mut turns, &mut client, 600, 500));
}

#[test]
fn a_pod_whose_memory_is_tight_is_looked_at_with_less_patience() {
    let protection = Protection { pod_memory: MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::of_pod(&mut turns, "lazy", 1);
    let _held = with_a_stalled_answer(&mut turns, &mut client);
    turns.engine.kernel_holds(client.conn, (MIB / 2) as u32);
    assert!(!is_reset_within(&mut turns, &mut client, 19, 0), "it may take some time");
    assert!(is_reset_within(&mut turns, &mut client, 25, 0));
}

#[test]
fn what_has_waited_for_long_has_the_same_time_when_memory_becomes_tight() {
    let protection = Protection { pod_memory: MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::of_pod(&mut turns, "lazy", 1);
    let _held = with_a_stalled_answer(&mut turns, &mut client);
    assert!(!is_reset_within(&mut turns, &mut client, 200, 0));
    turns.engine.kernel_holds(client.conn, (MIB / 2) as u32);
    assert!(!is_reset_within(&mut turns, &mut client, 19, 0));
    assert!(is_reset_within(&mut turns, &mut client, 25, 0));
}

#[test]
fn a_client_that_is_asked_in_the_turn_of_a_look_what_it_has_not_been_sent_yet_does_not_stall() {
    let mut turns = Turns::new(&[1]);
    let mut client = Client::of_pod(&mut turns, "quiet", 1);
    client.told(&mut turns);
    client.speak(&mut turns);
    for second in 1..=400 {
        turns.engine.set_time(START_NS + second * SECOND_NS);
        // Its keep-alive, whose answer is written at the turn's end.
        client.http2.ping(*b"are you?");
        let ping = take(&mut client.http2);
        turns.feed(client.conn, &ping);
        turns.engine.expire();
        turns.settle();
        client.told(&mut turns);
    }
    assert_eq!(closed(&turns), []);
    assert_eq!(turns.engine.counters().stalled_clients, 0);
}

#[test]
fn a_request_that_a_server_has_answered_and_does_not_take_is_ended() {
    let mut turns = Turns::new(&[1]);
    let mut client = Client::of_pod(&mut turns, "a", 1);
    let stream = client.plain_call(&mut turns, false);
    client.http2.send_data(stream, &[0; 65_535], false);
    client.speak(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    client.told(&mut turns);
    client.http2.send_data(stream, &[0; 10_000], false);
    if client.http2.wants_advance() {
        client.http2.advance(&mut Vec::new());
    }
    client.speak(&mut turns);
    server.send_headers(streams[0], &list(&[(":status", "200")]), true);
    speak(&mut turns, conn, &mut server);
    assert_eq!(turns.engine.counters().answered, 1);
    let mut told = Vec::new();
    for second in 1..=400 {
        turns.engine.tick(START_NS + second * SECOND_NS);
        turns.settle();
        told.extend(client.told(&mut turns));
        client.speak(&mut turns);
    }
    assert_eq!(told, [Told::Reset(ErrorCode::NoError)], "it has its answer");
    let counters = turns.engine.counters();
    assert_eq!((counters.stalled_streams, counters.calls_open), (1, 0));
}

#[test]
fn a_client_that_reads_nothing_loses_its_connection_and_no_other_does() {
    let mut turns = Turns::new(&[1]);
    let mut lazy = Client::of_pod(&mut turns, "lazy", 1);
    let mut other = Client::of_pod(&mut turns, "lazy", 1);
    other.told(&mut turns);
    other.speak(&mut turns);
    lazy.told(&mut turns);
    lazy.speak(&mut turns);
    lazy.call(&mut turns);
    other.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    answer(&mut turns, conn, &mut server, streams[0]);
    for second in 1..=320 {
        turns.engine.tick(START_NS + second * SECOND_NS);
        turns.settle();
    }
    assert_eq!(closed(&turns), [(lazy.conn, true)]);
    assert_eq!(turns.engine.counters().stalled_clients, 1);
    answer(&mut turns, conn, &mut server, streams[1]);
    assert_eq!(other.told(&mut turns), [ok()]);
}

#[test]
fn a_header_block_or_a_frame_that_never_ends_costs_its_connection() {
    // HEADERS without END_HEADERS, of one byte; and 5 of the 9 bytes of a frame's header.
    for (beginning, drip) in [
        (&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82][..], &[0, 0, 1, 9, 0, 0, 0, 0, 1, 0x84][..]),
        (&[0, 0, 200, 1, 4], &[0]),
    ] {
        let mut turns = Turns::new(&[1]);
        let mut offender = Client::of_pod(&mut turns, "a", 1);
        let mut other = Client::of_pod(&mut turns, "a", 1);
        for client in [&mut offender, &mut other] {
            client.told(&mut turns);
            client.speak(&mut turns);
        }
        turns.feed(offender.conn, beginning);
        turns.settle();
        for second in 1..=60 {
            turns.engine.tick(START_NS + second * SECOND_NS);
            if closed(&turns).is_empty() {
                // It goes on, slowly.
                turns.feed(offender.conn, drip);
                turns.settle();
                let written = turns.engine.output(offender.conn).len();
                turns.engine.sent(offender.conn, written);
            }
            turns.settle();
        }
        assert_eq!(turns.engine.counters().unfinished_headers, 1);
        assert_eq!(closed(&turns).iter().map(|(conn, _)| *conn).collect::<Vec<_>>(), [offender.conn]);
    }
}

#[test]
fn a_server_that_does_not_take_a_request_fails_it_alone() {
    let mut turns = Turns::new(&[1]);
    let mut client = Client::of_pod(&mut turns, "a", 1);
    let fields = list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/a"),
        ("content-type", "application/grpc"),
    ]);
    let stream = client.http2.open(&fields, false, 0).expect("there is room");
    client.http2.send_data(stream, &[0; 65_535], false);
    client.speak(&mut turns);
    client.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    client.told(&mut turns);
    client.http2.send_data(stream, &[0; 10_000], false);
    if client.http2.wants_advance() {
        client.http2.advance(&mut Vec::new());
    }
    client.speak(&mut turns);
    let mut told = Vec::new();
    for second in 1..=330 {
        turns.engine.tick(START_NS + second * SECOND_NS);
        turns.settle();
        told.extend(client.told(&mut turns));
        client.speak(&mut turns);
    }
    let message = "evenkeel: 10.0.0.1:50051 does not read the request (Service shop/cart:50051)";
    assert_eq!(told, [status("14", message), Told::Reset(ErrorCode::NoError)], "and need not send the rest");
    answer(&mut turns, conn, &mut server, streams[1]);
    assert_eq!(client.told(&mut turns), [ok()]);
}
