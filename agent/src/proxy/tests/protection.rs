//! What a source of calls may cost, on the engine alone: memory, time, calls and connections; and that nobody else pays.

use super::super::shared_use::Ledger;
use super::super::{ConnId, Origin};
use super::turns::{START_NS, Turns, list, read, take};
use super::{fixed, pod_named};
use crate::http2::{Connection, ErrorCode, Event, HeadersKind, LastStream, Limits, Name, StreamKey};
use crate::mesh::{CircuitLimits, Protection};

const SECOND_NS: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;

/// A client of its own.
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) http2: Connection,
}

/// What a client was told of its streams, in the order in which it heard it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Status(String, String),
    Reset(ErrorCode),
}

impl Client {
    pub(super) fn connect(turns: &mut Turns, origin: Origin) -> Self {
        let conn = turns.engine.accepted(origin, fixed()).expect("the destination is known");
        let mut client = Self { conn, http2: Connection::client(&Limits::default()) };
        client.speak(turns);
        client
    }

    pub(super) fn of_pod(turns: &mut Turns, name: &str, cookie: u64) -> Self {
        Self::connect(turns, Origin::Pod(pod_named(name, cookie)))
    }

    pub(super) fn call(&mut self, turns: &mut Turns) -> StreamKey {
        let fields = list(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a"),
            ("content-type", "application/grpc"),
        ]);
        let stream = self.http2.open(&fields, true, 0).expect("there is room");
        self.speak(turns);
        stream
    }

    fn speak(&mut self, turns: &mut Turns) {
        let bytes = take(&mut self.http2);
        turns.feed(self.conn, &bytes);
        turns.settle();
    }

    /// Reads everything, and gives credit for none of it.
    pub(super) fn told(&mut self, turns: &mut Turns) -> Vec<Told> {
        let mut told = Vec::new();
        let bytes = without_data(&turns.output(self.conn));
        read(&mut self.http2, &bytes, |event, fields| match event {
            Event::Headers { .. } => {
                let text = |name| String::from_utf8_lossy(fields.find(name).unwrap_or_default()).into_owned();
                if fields.find(Name::GrpcStatus).is_some() {
                    told.push(Told::Status(text(Name::GrpcStatus), text(Name::GrpcMessage)));
                }
            }
            Event::Reset { code, .. } => told.push(Told::Reset(code)),
            _ => {}
        });
        told
    }
}

/// Frames that are no DATA: a client that counts what it gets would not let itself be sent more than its window.
fn without_data(mut bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        let (frame, rest) = bytes.split_at(9 + u32::from_be_bytes([0, a, b, c]) as usize);
        if kind != 0 {
            kept.extend_from_slice(frame);
        }
        bytes = rest;
    }
    kept
}

/// What is closed now, but for the client that the turns began with: it has not a word to say.
fn closed(turns: &Turns) -> Vec<(ConnId, bool)> {
    turns.closed.iter().copied().filter(|(conn, _)| *conn != turns.client_conn).collect()
}

fn requests(turns: &mut Turns, conn: ConnId, server: &mut Connection) -> Vec<StreamKey> {
    let mut streams = Vec::new();
    let bytes = turns.output(conn);
    read(server, &bytes, |event, _| {
        if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
            streams.push(stream);
        }
    });
    streams
}

/// What the server has to say reaches the engine, as far as windows let it.
fn speak(turns: &mut Turns, conn: ConnId, server: &mut Connection) {
    for _ in 0..100 {
        let bytes = take(server);
        turns.feed(conn, &bytes);
        turns.settle();
        requests(turns, conn, server);
        if !server.wants_advance() {
            return;
        }
        server.advance(&mut Vec::new());
    }
}

fn answer(turns: &mut Turns, conn: ConnId, server: &mut Connection, stream: StreamKey) {
    server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    speak(turns, conn, server);
}

pub(super) fn status(code: &str, message: &str) -> Told {
    Told::Status(code.to_owned(), message.to_owned())
}

fn ok() -> Told {
    status("0", "")
}

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
    assert!(is_reset_within(&mut turns, &mut client, 31, 0));
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

fn circuit(calls: u32, pending: u32, connections: u32) -> Protection {
    let circuit = CircuitLimits { calls, pending, connections };
    Protection { circuit, ..Protection::default() }
}

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
fn what_other_workers_hold_and_have_under_way_for_a_pod_counts() {
    let ledger = Ledger::default();
    let protection = Protection { pod_memory: MIB, ..circuit(2, 9, 9) };
    let mut one = Turns::beside(&[1], protection, ledger.clone());
    let mut other = Turns::beside(&[1], protection, ledger);
    let mut here = Client::of_pod(&mut one, "busy", 1);
    let mut there = Client::of_pod(&mut other, "busy", 1);
    one.engine.kernel_holds(here.conn, MIB as u32);
    one.settle();
    // A worker hears of the others' when its own has changed: with its first call.
    there.call(&mut other);
    assert_eq!(there.told(&mut other), []);
    there.call(&mut other);
    let told = there.told(&mut other);
    assert!(matches!(&told[..], [Told::Status(code, _)] if code == "8"), "{told:?}");
    one.engine.kernel_holds(here.conn, 0);
    one.settle();
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
