//! What HTTP/2 and gRPC ask of a proxy, on the engine alone: what is refused, how it is told, and that nobody else notices.

use super::super::ConnId;
use super::turns::{START_NS, Turns, list, read, take};
use crate::http2::{Connection, ErrorCode, Event, FieldList, HeadersKind, Limits, Name, StreamKey};

pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// What the client has got of one stream: its last header list, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) status: String,
    pub(super) grpc_status: String,
    pub(super) message: String,
    pub(super) reset: Option<ErrorCode>,
    pub(super) ended: bool,
}

fn text(fields: &FieldList, name: Name) -> Option<String> {
    fields.find(name).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What all of the client's streams got.
pub(super) fn got(turns: &mut Turns) -> Got {
    let bytes = turns.output(turns.client_conn);
    let mut got = Got::default();
    read(&mut turns.client, &bytes, |event, fields| match event {
        Event::Headers { end_stream, .. } => {
            got.status = text(fields, Name::Status).unwrap_or_else(|| got.status.clone());
            got.grpc_status = text(fields, Name::GrpcStatus).unwrap_or_default();
            got.message = text(fields, Name::GrpcMessage).unwrap_or_default();
            got.ended |= end_stream;
        }
        Event::Data { end_stream, .. } => got.ended |= end_stream,
        Event::Reset { code, .. } => got.reset = Some(code),
        _ => {}
    });
    got
}

/// A request of so many fields of a kilobyte each.
pub(super) fn request(content_type: &str, kilobytes: usize) -> FieldList {
    let mut fields =
        list(&[(":method", "POST"), (":scheme", "http"), (":path", "/a"), ("content-type", content_type)]);
    for index in 0..kilobytes {
        fields.push(format!("x-{index}").as_bytes(), "v".repeat(1_000).as_bytes());
    }
    fields
}

/// The streams of the requests that a server gets now.
pub(super) fn requests(turns: &mut Turns, conn: ConnId, server: &mut Connection) -> Vec<StreamKey> {
    let bytes = turns.output(conn);
    let mut streams = Vec::new();
    read(server, &bytes, |event, _| {
        if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
            streams.push(stream);
        }
    });
    streams
}

/// What the server has to say reaches the engine.
pub(super) fn server_speaks(turns: &mut Turns, conn: ConnId, server: &mut Connection) {
    let bytes = take(server);
    turns.feed(conn, &bytes);
    turns.settle();
}

/// A call that is at a server, which has not answered.
pub(super) fn begun(turns: &mut Turns) -> (ConnId, Connection, StreamKey) {
    turns.call("/a");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let streams = requests(turns, conn, &mut server);
    // The client acknowledges what the engine has said.
    got(turns);
    turns.client_speaks();
    (conn, server, streams[0])
}

pub(super) fn advance(turns: &mut Turns, to_ns: u64) {
    turns.engine.tick(to_ns);
    turns.settle();
}

#[test]
fn a_request_list_that_is_too_large_is_answered_and_the_connection_goes_on() {
    for (content_type, status, grpc_status) in
        [("application/grpc", "200", "8"), ("application/json", "431", "")]
    {
        let mut turns = Turns::new(&[1]);
        turns.client.open(&request(content_type, 80), true, 0).expect("there is room");
        turns.client_speaks();
        let got = got(&mut turns);
        assert_eq!((&got.status[..], &got.grpc_status[..], got.ended), (status, grpc_status, true));
        if grpc_status == "8" {
            assert_eq!(
                got.message,
                "evenkeel: the request's header list is larger than 65536 bytes or has too many fields \
                 (Service shop/cart:50051)"
            );
        }
        assert_eq!(turns.dials, [], "it is not forwarded");
        begun(&mut turns);
        assert_eq!(turns.engine.counters().headers_too_large, 1);
    }
}

#[test]
fn a_request_list_that_the_server_does_not_take_is_answered_and_not_sent() {
    let mut turns = Turns::new(&[1]);
    turns.client.open(&request("application/grpc", 10), true, 0).expect("there is room");
    turns.client_speaks();
    let (conn, _) = turns.dials.pop().expect("a connection is wanted");
    turns.engine.connected(conn);
    let mut server = Connection::server(&Limits { max_header_list: 8_192, ..Limits::default() });
    server_speaks(&mut turns, conn, &mut server);
    assert_eq!(requests(&mut turns, conn, &mut server), []);
    let got = got(&mut turns);
    assert_eq!(got.grpc_status, "8");
    assert!(got.message.contains("larger than the 8192 bytes that 10.0.0.1:50051 takes"), "{}", got.message);
    assert_eq!(turns.engine.counters().calls_open, 0);
}

#[test]
fn a_response_list_that_is_too_large_fails_its_call_alone_with_a_status() {
    // For the agent, or for the client.
    for client_takes in [1 << 20, 8_192] {
        let mut turns = Turns::new(&[1]);
        let mut hello = vec![0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 6];
        hello.extend(u32::to_be_bytes(client_takes));
        turns.feed(turns.client_conn, &hello);
        let (conn, _, _) = begun(&mut turns);
        let large = "v".repeat(if client_takes == 8_192 { 10_000 } else { 70_000 });
        let mut server = Connection::server(&Limits { max_header_list: 1 << 20, ..Limits::default() });
        // A server that has its own idea of limits: its block, on the stream that the engine opened.
        let mut other = Connection::client(&Limits::default());
        other.open(&request("application/grpc", 0), true, 0).expect("there is room");
        let mut opened = None;
        read(&mut server, &take(&mut other), |event, _| {
            if let Event::Headers { stream, .. } = event {
                opened = Some(stream);
            }
        });
        take(&mut server);
        server.send_headers(
            opened.expect("it was opened"),
            &list(&[(":status", "200"), ("x", &large)]),
            true,
        );
        server_speaks(&mut turns, conn, &mut server);
        let got = got(&mut turns);
        assert_eq!((&got.grpc_status[..], got.ended), ("8", true), "{got:?}");
        assert_eq!(turns.engine.counters().headers_too_large, 1);
        assert_eq!(turns.closed, [], "the connections stay");
        turns.call("/b");
        turns.client_speaks();
        assert_eq!(turns.dials, [], "and serve the next call");
    }
}

#[test]
fn connect_is_answered_and_never_forwarded() {
    let mut turns = Turns::new(&[1]);
    // A 2xx would be a tunnel, also to a client that speaks gRPC.
    for (count, content_type) in [(1, "text/plain"), (2, "application/grpc")] {
        let fields = [(":method", "CONNECT"), (":authority", "a:1"), ("content-type", content_type)];
        turns.client.open(&list(&fields), false, 0).expect("room");
        turns.client_speaks();
        let got = got(&mut turns);
        assert_eq!((&got.status[..], got.ended), ("501", true));
        assert_eq!((turns.dials.len(), turns.engine.counters().connect_requests), (0, count));
    }
}

#[test]
fn a_body_of_another_length_than_it_said_is_not_passed_on_as_whole() {
    // The client's.
    let mut turns = Turns::new(&[1]);
    let mut fields = request("application/json", 0);
    fields.push(b"content-length", b"5");
    let stream = turns.client.open(&fields, false, 0).expect("there is room");
    turns.client.send_data(stream, b"four", true);
    turns.client_speaks();
    assert_eq!(got(&mut turns).reset, Some(ErrorCode::ProtocolError));
    assert_eq!(turns.engine.counters().client_faults, 1);
    // The server's.
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    server.send_headers(stream, &list(&[(":status", "200"), ("content-length", "5")]), false);
    server.send_data(stream, b"four", true);
    server_speaks(&mut turns, conn, &mut server);
    let got = got(&mut turns);
    // Trailers of ours would be malformed as well.
    assert_eq!((got.reset, got.ended), (Some(ErrorCode::InternalError), false), "{got:?}");
    assert_eq!(turns.engine.counters().server_faults, 1);
}

#[test]
fn a_flood_ends_the_offenders_connection_and_no_other() {
    let mut turns = Turns::new(&[1]);
    let (conn, mut server, stream) = begun(&mut turns);
    let offender =
        turns.engine.accepted(super::super::Origin::Agent, super::fixed()).expect("the destination is known");
    let mut flood = take(&mut Connection::client(&Limits::default()));
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    flood.extend(ping.repeat(20_000));
    for piece in flood.chunks(60_000) {
        turns.feed(offender, piece);
        turns.settle();
        let written = turns.engine.output(offender).len();
        turns.engine.sent(offender, written);
    }
    turns.settle();
    assert!(turns.engine.counters().floods_of_control == 1 && turns.engine.counters().protocol_errors == 1);
    // It may take its time to read the GOAWAY, and no more.
    advance(&mut turns, START_NS + 10 * SECOND_NS);
    assert_eq!(turns.closed.iter().map(|(conn, _)| *conn).collect::<Vec<_>>(), [offender]);
    server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    server_speaks(&mut turns, conn, &mut server);
    assert_eq!(got(&mut turns).grpc_status, "0");
}

#[test]
fn a_client_that_never_acknowledges_settings_is_sent_away_and_one_that_does_stays() {
    for acknowledges in [true, false] {
        let mut turns = Turns::new(&[1]);
        if acknowledges {
            // What it has to read makes it speak.
            got(&mut turns);
            turns.client_speaks();
        }
        advance(&mut turns, START_NS + 31 * SECOND_NS);
        assert_eq!(turns.engine.counters().settings_timeouts, u64::from(!acknowledges));
        advance(&mut turns, START_NS + 40 * SECOND_NS);
        assert_eq!(turns.closed.is_empty(), acknowledges);
    }
}

/// A request's fields as the server sees them.
pub(super) fn seen_by_server(
    turns: &mut Turns,
    conn: ConnId,
    server: &mut Connection,
) -> Vec<(String, String)> {
    let bytes = turns.output(conn);
    let mut seen = Vec::new();
    read(server, &bytes, |event, fields| {
        if matches!(event, Event::Headers { kind: HeadersKind::Request, .. }) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            seen.extend(fields.iter().map(|field| (text(field.name), text(field.value))));
        }
    });
    seen
}

#[test]
fn a_request_with_host_and_without_authority_goes_on_as_it_is() {
    let mut turns = Turns::new(&[1]);
    let request =
        [(":method", "GET"), (":scheme", "http"), (":path", "/a"), ("host", "cart"), ("te", "trailers")];
    turns.client.open(&list(&request), true, 0).expect("there is room");
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let expected: Vec<_> =
        request.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    assert_eq!(seen_by_server(&mut turns, conn, &mut server), expected);
}

#[test]
fn informational_responses_and_the_trailers_of_both_halves_pass() {
    let mut turns = Turns::new(&[1]);
    let stream = turns.client.open(&request("application/json", 0), false, 0).expect("there is room");
    turns.client.send_data(stream, b"body", false);
    turns.client.send_trailers(stream, &list(&[("checksum", "1")]));
    turns.client_speaks();
    let (conn, mut server) = turns.serve();
    let (mut at_server, mut opened) = (Vec::new(), None);
    let bytes = turns.output(conn);
    read(&mut server, &bytes, |event, fields| match event {
        Event::Headers { stream, kind, .. } => {
            opened = Some(stream);
            at_server.push((kind, fields.len()));
        }
        Event::Data { payload, .. } => assert_eq!(payload, b"body"),
        _ => {}
    });
    assert_eq!(at_server, [(HeadersKind::Request, 4), (HeadersKind::Trailers, 1)]);
    let stream = opened.expect("a request came");
    server.send_headers(stream, &list(&[(":status", "103"), ("link", "x")]), false);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    server.send_data(stream, b"answer", false);
    server.send_trailers(stream, &list(&[("checksum", "2")]));
    server_speaks(&mut turns, conn, &mut server);
    let mut at_client = Vec::new();
    let bytes = turns.output(turns.client_conn);
    read(&mut turns.client, &bytes, |event, _| {
        if let Event::Headers { kind, .. } = event {
            at_client.push(kind);
        }
    });
    assert_eq!(at_client, [HeadersKind::Informational, HeadersKind::Response, HeadersKind::Trailers]);
}
