//! What a source of calls may hold in memory.

use super::*;

#[test]
fn a_pod_whose_memory_is_used_up_is_told_so_and_another_pods_calls_go_on() {
    let protection = Protection { pod_memory: MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut hog = Client::of_pod(&mut turns, "hog", 1);
    let mut other = Client::of_pod(&mut turns, "other", 2);
    turns.engine.kernel_holds(hog.conn, MIB as u32);
    turns.settle();
    hog.call(&mut turns);
    let message =
        "evenkeel: the 1048576 bytes of memory of pod shop/hog are used up (Service shop/cart:50051)";
    assert_eq!(hog.told(&mut turns), [status("8", message)]);
    assert_eq!(turns.dials, [], "it goes to no server");
    other.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    answer(&mut turns, conn, &mut server, streams[0]);
    assert_eq!(other.told(&mut turns), [ok()]);
    // As soon as there is room again.
    turns.engine.kernel_holds(hog.conn, 0);
    hog.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    answer(&mut turns, conn, &mut server, streams[0]);
    assert_eq!(hog.told(&mut turns), [ok()]);
    assert_eq!(turns.engine.counters().memory_refusals, 1);
}

#[test]
fn what_a_full_pod_would_have_to_queue_ends_its_call_and_what_flows_goes_on() {
    let protection = Protection { pod_memory: MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::of_pod(&mut turns, "hog", 1);
    client.call(&mut turns);
    client.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    turns.engine.kernel_holds(client.conn, (MIB - MIB / 16) as u32);
    // The first answer is larger than its stream's window.
    for stream in &streams {
        server.send_headers(*stream, &list(&[(":status", "200")]), false);
    }
    server.send_data(streams[0], &[0; 65_535], false);
    speak(&mut turns, conn, &mut server);
    server.send_data(streams[0], &[0; 30_000], false);
    speak(&mut turns, conn, &mut server);
    assert_eq!(client.told(&mut turns), [Told::Reset(ErrorCode::EnhanceYourCalm)]);
    server.send_trailers(streams[1], &list(&[("grpc-status", "0")]));
    speak(&mut turns, conn, &mut server);
    assert_eq!(client.told(&mut turns), [ok()]);
    assert_eq!(turns.engine.counters().memory_refusals, 1);
}

#[test]
fn what_other_workers_hold_and_have_under_way_for_a_pod_counts() {
    let ledger = Ledger::default();
    let protection = Protection { pod_memory: MIB, ..circuit(2, 9, 9) };
    let mut one = Turns::beside(&[1], protection, ledger.clone());
    let mut other = Turns::beside(&[1], protection, ledger);
    let mut here = Client::of_pod(&mut one, "busy", 1);
    let mut there = Client::of_pod(&mut other, "busy", 1);
    one.engine.kernel_holds(here.conn, MIB as u32);
    one.settle();
    there.call(&mut other);
    let told = there.told(&mut other);
    assert!(matches!(&told[..], [Told::Status(code, _)] if code == "8"), "{told:?}");
    one.engine.kernel_holds(here.conn, 0);
    one.settle();
    // Nothing has happened there meanwhile.
    there.call(&mut other);
    assert_eq!(there.told(&mut other), []);
    // One is under way there: with one here, they are two.
    here.call(&mut one);
    assert_eq!(here.told(&mut one), []);
    here.call(&mut one);
    let message = "evenkeel: pod shop/busy has 2 calls under way already (Service shop/cart:50051)";
    assert_eq!(here.told(&mut one), [status("14", message)]);
}

#[test]
fn a_window_grows_with_what_is_taken_only_while_memory_is_ample() {
    for (held, grows) in [(0, true), (MIB / 2, false)] {
        let protection = Protection { pod_memory: MIB, ..Protection::default() };
        let mut turns = Turns::protected(&[1], protection);
        let mut client = Client::of_pod(&mut turns, "a", 1);
        turns.engine.kernel_holds(client.conn, held as u32);
        let fields = list(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a"),
            ("content-type", "application/grpc"),
        ]);
        let stream = client.http2.open(&fields, false, 0).expect("there is room");
        client.speak(&mut turns);
        let (conn, mut server) = turns.serve();
        let (mut sent, mut credit) = (0, 0);
        for _ in 0..40 {
            client.http2.send_data(stream, &[0; 20_000], false);
            sent += 20_000;
            client.speak(&mut turns);
            let bytes = turns.output(conn);
            let mut taken = Vec::new();
            read(&mut server, &bytes, |event, _| {
                if let Event::Data { stream, payload, .. } = event {
                    taken.push((stream, payload.len() as u32));
                }
            });
            for (stream, bytes) in taken {
                server.grant(stream, bytes);
            }
            speak(&mut turns, conn, &mut server);
            let bytes = turns.output(client.conn);
            credit += credit_of_stream_1(&bytes);
            read(&mut client.http2, &bytes, |_, _| ());
        }
        // What is told beyond what came is growth.
        assert_eq!(credit > sent, grows, "{credit} bytes of credit for {sent}");
    }
}

/// The sum of the stream's WINDOW_UPDATE frames.
fn credit_of_stream_1(mut bytes: &[u8]) -> u64 {
    let mut credit = 0;
    while let [a, b, c, kind, ..] = *bytes {
        let (frame, rest) = bytes.split_at(9 + u32::from_be_bytes([0, a, b, c]) as usize);
        if kind == 8 && frame[5..9] == [0, 0, 0, 1] {
            credit += u64::from(u32::from_be_bytes([frame[9], frame[10], frame[11], frame[12]]));
        }
        bytes = rest;
    }
    credit
}

#[test]
fn a_full_pods_calls_that_share_a_turn_wait_for_each_other_and_none_of_them_ends() {
    let protection = Protection { pod_memory: 16 * MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::of_pod(&mut turns, "busy", 1);
    for _ in 0..30 {
        client.call(&mut turns);
    }
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    turns.engine.kernel_holds(client.conn, (15 * MIB) as u32);
    for stream in &streams {
        server.send_headers(*stream, &list(&[(":status", "200")]), false);
        server.send_data(*stream, &[0; 10_000], false);
        server.send_trailers(*stream, &list(&[("grpc-status", "0")]));
    }
    speak(&mut turns, conn, &mut server);
    let mut told = Vec::new();
    while told.len() < streams.len() {
        let more = client.told(&mut turns);
        assert!(!more.is_empty(), "only {} have an answer", told.len());
        told.extend(more);
    }
    assert!(told.iter().all(|told| *told == ok()), "{told:?}");
}

#[test]
fn header_lists_that_a_client_does_not_read_cost_no_more_than_its_pods_memory() {
    let protection = Protection { pod_memory: MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::of_pod(&mut turns, "hog", 1);
    for _ in 0..90 {
        client.call(&mut turns);
    }
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    let large = "v".repeat(30_000);
    for stream in &streams {
        server.send_headers(*stream, &list(&[(":status", "200"), ("x-large", &large)]), false);
    }
    // Nothing is written meanwhile: all of it is one turn's input.
    let bytes = take(&mut server);
    turns.feed(conn, &bytes);
    turns.settle();
    let held = held(&turns, &client);
    // An output that grows doubles.
    assert!(held > MIB / 2 && held < 2 * MIB, "{held} bytes of {}", 90 * large.len());
    assert!(turns.engine.counters().memory_refusals > 0);
}

#[test]
fn one_pods_large_header_lists_are_not_charged_to_anothers_calls() {
    let mut turns = Turns::new(&[1]);
    let mut one = Client::of_pod(&mut turns, "one", 1);
    one.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    let mut other = Client::of_pod(&mut turns, "other", 2);
    let before = held(&turns, &other);
    let large = "v".repeat(50_000);
    server.send_headers(streams[0], &list(&[(":status", "200"), ("x-large", &large)]), false);
    speak(&mut turns, conn, &mut server);
    other.call(&mut turns);
    let more = held(&turns, &other) - before;
    assert!(more < 10_000, "{more} bytes for a small call");
}

#[test]
fn an_answer_that_has_gone_whole_has_not_failed_for_want_of_memory() {
    let protection = Protection { pod_memory: MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::of_pod(&mut turns, "hog", 1);
    client.plain_call(&mut turns, true);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    server.send_headers(streams[0], &list(&[(":status", "200")]), false);
    speak(&mut turns, conn, &mut server);
    client.told(&mut turns);
    turns.engine.kernel_holds(client.conn, MIB as u32);
    server.send_data(streams[0], &[0; 1_000], true);
    speak(&mut turns, conn, &mut server);
    assert_eq!(client.told(&mut turns), []);
    let counters = turns.engine.counters();
    assert_eq!((counters.answered, counters.memory_refusals), (1, 0));
}

/// A turn, a millisecond later, in which the server sends so much and the client's socket takes some of what there is.
fn flows(turns: &mut Turns, server: (ConnId, &mut Connection, StreamKey), client: ConnId, takes: usize) {
    turns.engine.tick(turns.engine.now_ns + 1_000_000);
    let (conn, http2, stream) = server;
    http2.send_data(stream, &[0; 10_000], false);
    speak(turns, conn, http2);
    let takes = takes.min(turns.engine.output(client).len());
    turns.engine.sent(client, takes);
    turns.settle();
}

#[test]
fn a_full_pods_answer_goes_on_while_its_socket_takes_a_part_of_it_and_ends_when_it_takes_nothing() {
    let protection = Protection { pod_memory: 16 * MIB, ..Protection::default() };
    let mut turns = Turns::protected(&[1], protection);
    let mut client = Client::with_window(&mut turns, Origin::Pod(pod_named("busy", 1)), 4 << 20);
    client.call(&mut turns);
    let (conn, mut server) = turns.serve();
    let streams = requests(&mut turns, conn, &mut server);
    server.send_headers(streams[0], &list(&[(":status", "200")]), false);
    server.send_data(streams[0], &[0; 60_000], false);
    speak(&mut turns, conn, &mut server);
    turns.engine.kernel_holds(client.conn, (15 * MIB) as u32);
    for _ in 0..200 {
        flows(&mut turns, (conn, &mut server, streams[0]), client.conn, 10_000);
        assert!(!turns.engine.output(client.conn).is_empty(), "there is always some left");
    }
    assert_eq!(turns.engine.counters().memory_refusals, 0);
    turns.engine.tick(turns.engine.now_ns + SECOND_NS / 10);
    flows(&mut turns, (conn, &mut server, streams[0]), client.conn, 0);
    assert_eq!(turns.engine.counters().memory_refusals, 1);
}
