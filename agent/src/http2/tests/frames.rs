//! Frames made by hand: what a peer may send, what it may not, and what it is told.

use super::wire::{Seen, drain, feed, list, request};
use crate::http2::{
    Connection, ConnectionError, ErrorCode, HeadersKind, LastStream, Limits, PREFACE, StreamKey,
};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

/// `:method: POST`, `:scheme: http`, `:path: /`.
pub(super) const REQUEST: &[u8] = &[0x83, 0x86, 0x84];
/// `:status: 200`.
pub(super) const RESPONSE: &[u8] = &[0x88];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Frames, as (type, flags, stream, payload).
pub(super) fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(([l0, l1, l2, kind, flags, s0, s1, s2, s3], rest)) = bytes.split_first_chunk::<9>() {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([0, *l0, *l1, *l2]) as usize);
        frames.push((*kind, *flags, u32::from_be_bytes([*s0, *s1, *s2, *s3]), payload.to_vec()));
        bytes = rest;
    }
    frames
}

pub(super) fn joined(limits: &Limits) -> Connection {
    let mut server = Connection::server(limits);
    let mut hello = PREFACE.to_vec();
    hello.extend(frame(SETTINGS, 0, 0, &[]));
    hello.extend(frame(SETTINGS, ACK, 0, &[]));
    assert_eq!(feed(&mut server, &hello), Ok(vec![Seen::Settings]));
    drain(&mut server);
    server
}

pub(super) fn server() -> Connection {
    joined(&Limits::default())
}

/// A client with stream 1 open and its request sent in full.
pub(super) fn client() -> (Connection, StreamKey) {
    let mut client = Connection::client(&Limits::default());
    feed(&mut client, &frame(SETTINGS, 0, 0, &[])).expect("valid");
    feed(&mut client, &frame(SETTINGS, ACK, 0, &[])).expect("valid");
    let stream = client.open(&request("/"), true, 5).expect("there is room");
    drain(&mut client);
    (client, stream)
}

pub(super) fn stream_of(seen: &[Seen]) -> StreamKey {
    match seen {
        [Seen::Headers { stream, .. }, ..] => *stream,
        other => panic!("expected a header list: {other:?}"),
    }
}

/// Opens stream `id` with a request that is not over.
pub(super) fn open(server: &mut Connection, id: u32) -> StreamKey {
    stream_of(&feed(server, &frame(HEADERS, END_HEADERS, id, REQUEST)).expect("valid"))
}

/// The connection ends with `code`, and its last frame is the GOAWAY that says so.
fn expect_end(mut connection: Connection, bytes: &[u8], code: ErrorCode, what: &str) {
    let ConnectionError { code: found, .. } = feed(&mut connection, bytes).expect_err(what);
    assert_eq!(found, code, "{what}");
    let frames = frames(&drain(&mut connection));
    let (kind, _, _, payload) = frames.last().expect("a GOAWAY");
    assert_eq!((*kind, &payload[4..8]), (GOAWAY, &code.to_wire().to_be_bytes()[..]), "{what}");
    assert!(feed(&mut connection, &[]).is_err(), "it stays ended: {what}");
    assert!(!connection.can_open());
}

#[test]
fn what_ends_a_connection() {
    use ErrorCode::{CompressionError, EnhanceYourCalm, FlowControlError, FrameSizeError, ProtocolError};
    let request = |id| frame(HEADERS, END_HEADERS, id, REQUEST);
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let setting = |id: u8, value: u32| frame(SETTINGS, 0, 0, &[&[0, id], &value.to_be_bytes()[..]].concat());
    let cases: Vec<(&str, Vec<Vec<u8>>, ErrorCode)> = vec![
        ("frame too large", vec![frame(DATA, 0, 1, &vec![0; 16_385])], FrameSizeError),
        ("DATA on stream 0", vec![frame(DATA, 0, 0, b"a")], ProtocolError),
        ("DATA on an idle stream", vec![frame(DATA, 0, 1, b"a")], ProtocolError),
        ("DATA padded beyond its end", vec![request(1), frame(DATA, PADDED, 1, &[2, 0])], ProtocolError),
        ("padded DATA without a length", vec![request(1), frame(DATA, PADDED, 1, &[])], ProtocolError),
        ("HEADERS on stream 0", vec![request(0)], ProtocolError),
        ("even stream", vec![request(2)], ProtocolError),
        ("request on a used stream", vec![request(3), request(1)], ProtocolError),
        (
            "HEADERS padded beyond its end",
            vec![frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0])],
            ProtocolError,
        ),
        (
            "HEADERS too short for priority",
            vec![frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, &[0, 0])],
            ProtocolError,
        ),
        ("block that is no HPACK", vec![frame(HEADERS, END_HEADERS, 1, &[0x80])], CompressionError),
        ("CONTINUATION of nothing", vec![frame(CONTINUATION, END_HEADERS, 1, REQUEST)], ProtocolError),
        ("block interrupted", vec![frame(HEADERS, 0, 1, REQUEST), frame(PING, 0, 0, &[0; 8])], ProtocolError),
        (
            "block continued on another stream",
            vec![frame(HEADERS, 0, 1, REQUEST), frame(CONTINUATION, END_HEADERS, 3, &[])],
            ProtocolError,
        ),
        (
            "block in too many pieces",
            [vec![frame(HEADERS, 0, 1, REQUEST)], vec![frame(CONTINUATION, 0, 1, &[]); 129]].concat(),
            EnhanceYourCalm,
        ),
        (
            "block too large",
            [vec![frame(HEADERS, 0, 1, REQUEST)], vec![frame(CONTINUATION, 0, 1, &[0x83; 16_384]); 17]]
                .concat(),
            EnhanceYourCalm,
        ),
        ("PRIORITY on stream 0", vec![frame(PRIORITY, 0, 0, &[0; 5])], ProtocolError),
        ("PRIORITY of 4 bytes", vec![frame(PRIORITY, 0, 1, &[0; 4])], FrameSizeError),
        ("RST_STREAM on stream 0", vec![frame(RST_STREAM, 0, 0, &[0; 4])], ProtocolError),
        ("RST_STREAM on an idle stream", vec![frame(RST_STREAM, 0, 1, &[0; 4])], ProtocolError),
        ("RST_STREAM of 3 bytes", vec![request(1), frame(RST_STREAM, 0, 1, &[0; 3])], FrameSizeError),
        ("SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, &[])], ProtocolError),
        ("SETTINGS of 5 bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])], FrameSizeError),
        ("acknowledged SETTINGS with a payload", vec![frame(SETTINGS, ACK, 0, &[0; 6])], FrameSizeError),
        ("ENABLE_PUSH of 2", vec![setting(2, 2)], ProtocolError),
        ("INITIAL_WINDOW_SIZE above 2^31 - 1", vec![setting(4, 1 << 31)], FlowControlError),
        (
            "INITIAL_WINDOW_SIZE that overflows a stream",
            vec![request(1), update(1, 0x7fff_0000), setting(4, 0x7fff_ffff)],
            FlowControlError,
        ),
        ("MAX_FRAME_SIZE too small", vec![setting(5, 16_383)], ProtocolError),
        ("MAX_FRAME_SIZE too large", vec![setting(5, 1 << 24)], ProtocolError),
        ("PUSH_PROMISE", vec![request(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], ProtocolError),
        ("PING on a stream", vec![frame(PING, 0, 1, &[0; 8])], ProtocolError),
        ("PING of 7 bytes", vec![frame(PING, 0, 0, &[0; 7])], FrameSizeError),
        ("GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], ProtocolError),
        ("GOAWAY of 7 bytes", vec![frame(GOAWAY, 0, 0, &[0; 7])], FrameSizeError),
        ("WINDOW_UPDATE of nothing", vec![update(0, 0)], ProtocolError),
        ("WINDOW_UPDATE that overflows", vec![update(0, 0x7fff_ffff)], FlowControlError),
        ("WINDOW_UPDATE on an idle stream", vec![update(1, 1)], ProtocolError),
        ("WINDOW_UPDATE of 3 bytes", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], FrameSizeError),
    ];
    for (what, bytes, code) in cases {
        expect_end(server(), &bytes.concat(), code, what);
    }
}

#[test]
fn a_connection_starts_with_the_preface_and_settings() {
    let new = || Connection::server(&Limits::default());
    expect_end(new(), b"GET / HTTP/1.1\r\n", ErrorCode::ProtocolError, "HTTP/1");
    expect_end(new(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", ErrorCode::ProtocolError, "one byte off");
    let not_settings = [&PREFACE[..], &frame(PING, 0, 0, &[0; 8])].concat();
    expect_end(new(), &not_settings, ErrorCode::ProtocolError, "PING first");
    let only_ack = [&PREFACE[..], &frame(SETTINGS, ACK, 0, &[])].concat();
    expect_end(new(), &only_ack, ErrorCode::ProtocolError, "an acknowledgement is not the peer's SETTINGS");
}

#[test]
fn a_client_refuses_streams_that_it_did_not_open() {
    for (what, bytes) in [
        ("a response nobody asked for", frame(HEADERS, END_HEADERS, 3, RESPONSE)),
        ("a stream of the server's", frame(HEADERS, END_HEADERS, 2, RESPONSE)),
        ("push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("push switched on", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1])),
    ] {
        expect_end(client().0, &bytes, ErrorCode::ProtocolError, what);
    }
}

/// The stream is reset with `code`, its owner hears of it, and the connection goes on.
pub(super) fn expect_reset(
    connection: &mut Connection,
    bytes: &[u8],
    id: u32,
    code: ErrorCode,
    what: &str,
) -> Vec<Seen> {
    let seen = feed(connection, bytes).expect(what);
    let reset = (RST_STREAM, 0, id, code.to_wire().to_be_bytes().to_vec());
    assert!(frames(&drain(connection)).contains(&reset), "{what}");
    feed(connection, &frame(PING, 0, 0, &[1; 8])).expect(what);
    assert_eq!(frames(&drain(connection)), [(PING, ACK, 0, vec![1; 8])], "{what}");
    seen
}

#[test]
fn what_ends_a_stream_of_a_server() {
    use ErrorCode::{FlowControlError, ProtocolError, StreamClosed};
    let update = |by: u32| frame(WINDOW_UPDATE, 0, 1, &by.to_be_bytes());
    let data = |len: usize, flags| frame(DATA, flags, 1, &vec![0; len]);
    let ended = || data(0, END_STREAM);
    for (what, bytes, code) in [
        ("window increment of 0", update(0), ProtocolError),
        ("window above 2^31 - 1", update(0x7fff_ffff), FlowControlError),
        ("more than the window", [data(16_384, 0).repeat(3), data(16_384, 0)].concat(), FlowControlError),
        ("DATA behind the end", [ended(), data(1, 0)].concat(), StreamClosed),
        ("trailers behind the end", [ended(), frame(HEADERS, 5, 1, &[])].concat(), StreamClosed),
        ("trailers that end nothing", frame(HEADERS, END_HEADERS, 1, &[0, 1, b'a', 1, b'b']), ProtocolError),
        ("pseudo-header field in trailers", frame(HEADERS, 5, 1, RESPONSE), ProtocolError),
        ("upper case in trailers", frame(HEADERS, 5, 1, &[0, 1, b'A', 1, b'b']), ProtocolError),
    ] {
        let mut server = server();
        let stream = open(&mut server, 1);
        server.set_token(stream, 9);
        let seen = expect_reset(&mut server, &bytes, 1, code, what);
        assert_eq!(seen.last(), Some(&Seen::Reset { stream, token: 9, code, by_peer: false }), "{what}");
        assert!(server.is_closed(stream), "{what}");
        server.release(stream);
        assert!(server.output().is_empty(), "{what}: no second RST_STREAM");
    }
}

#[test]
fn a_malformed_request_is_reset_and_its_owner_never_hears_of_it() {
    for (what, block, code) in [
        ("no path", &[0x83, 0x86][..], ErrorCode::ProtocolError),
        ("upper case", &[0x83, 0x86, 0x84, 0, 1, b'A', 1, b'b'], ErrorCode::ProtocolError),
        ("line feed in a value", &[0x83, 0x86, 0x84, 0, 1, b'a', 1, b'\n'], ErrorCode::ProtocolError),
        ("a status", &[0x83, 0x86, 0x84, 0x88], ErrorCode::ProtocolError),
        (
            "an unknown pseudo-header field",
            &[0x83, 0x86, 0x84, 0, 2, b':', b'x', 0],
            ErrorCode::ProtocolError,
        ),
        ("another length than none", &[0x83, 0x86, 0x84, 0x0f, 13, 1, b'x'], ErrorCode::ProtocolError),
    ] {
        let mut server = server();
        let bytes = frame(HEADERS, END_HEADERS, 1, block);
        assert_eq!(expect_reset(&mut server, &bytes, 1, code, what), [], "{what}");
        assert_eq!(server.open_streams(), 0);
        // What was on the way for it is ignored.
        assert_eq!(feed(&mut server, &frame(DATA, END_STREAM, 1, b"late")), Ok(vec![]), "{what}");
        assert!(server.output().is_empty(), "{what}");
    }
}

#[test]
fn what_ends_a_stream_of_a_client() {
    let response = |flags, block| frame(HEADERS, END_HEADERS | flags, 1, block);
    for (what, bytes) in [
        ("DATA before a response", frame(DATA, 0, 1, b"a")),
        ("an informational response that ends", response(END_STREAM, &[0x48, 3, b'1', b'0', b'3'])),
        ("101", response(0, &[0x48, 3, b'1', b'0', b'1'])),
        ("no status", response(0, &[])),
        ("a request as a response", response(0, REQUEST)),
    ] {
        let (mut client, stream) = client();
        let code = ErrorCode::ProtocolError;
        let seen = expect_reset(&mut client, &bytes, 1, code, what);
        assert_eq!(seen, [Seen::Reset { stream, token: 5, code, by_peer: false }], "{what}");
        assert_eq!(client.open_streams(), 0);
    }
}

#[test]
fn trailers_only_followed_by_a_reset_is_an_answer_in_full() {
    let (mut client, stream) = client();
    let bytes = [frame(HEADERS, 5, 1, RESPONSE), frame(RST_STREAM, 0, 1, &[0; 4])].concat();
    let seen = feed(&mut client, &bytes).expect("valid");
    assert!(matches!(seen[..], [Seen::Headers { kind: HeadersKind::Response, end_stream: true, .. }]));
    assert!(client.is_closed(stream));
}

#[test]
fn padding_priority_and_unknown_frames_are_taken_off() {
    let mut server = server();
    let padded = [&[3, 0, 0, 0, 0, 0][..], REQUEST, &[0; 3]].concat();
    let bytes = [
        frame(0x42, 0xff, 7, b"an extension"),
        frame(PRIORITY, 0, 9, &[0; 5]),
        frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, &padded),
        frame(DATA, PADDED, 1, b"\x04body\0\0\0\0"),
        frame(DATA, PADDED, 1, &[3, 0, 0, 0]),
        frame(SETTINGS, 0, 0, &[0xff, 0xff, 1, 2, 3, 4]),
        frame(DATA, PADDED | END_STREAM, 1, &[0]),
    ];
    let seen = feed(&mut server, &bytes.concat()).expect("valid");
    let stream = stream_of(&seen);
    let data =
        |payload: &[u8], end_stream| Seen::Data { stream, token: 0, payload: payload.to_vec(), end_stream };
    assert_eq!(seen[1..], [data(b"body", false), Seen::Settings, data(b"", true)]);
}

#[test]
fn credit_of_padding_and_of_late_frames_comes_back() {
    let limits =
        Limits { stream_window: 400, max_stream_window: 400, connection_window: 0, ..Limits::default() };
    let mut server = joined(&limits);
    open(&mut server, 1);
    // 4 padded frames of 100 bytes: 99 of them are padding, and nobody grants anything.
    let padded = [&[99u8][..], &[0; 99]].concat();
    for _ in 0..100 {
        feed(&mut server, &frame(DATA, PADDED, 1, &padded)).expect("within the windows");
    }
    let updates = |server: &mut Connection, stream| -> u32 {
        let updates = frames(&drain(server))
            .into_iter()
            .filter(|(kind, _, of, _)| (*kind, *of) == (WINDOW_UPDATE, stream));
        updates.map(|(_, _, _, by)| u32::from_be_bytes(by.try_into().expect("4 bytes"))).sum()
    };
    assert_eq!(updates(&mut server, 1), 10_000);
    feed(&mut server, &frame(RST_STREAM, 0, 1, &[0; 4])).expect("valid");
    for _ in 0..100 {
        feed(&mut server, &frame(DATA, 0, 1, &[0; 10_000]))
            .expect("late, and within the connection's window");
    }
    assert!(updates(&mut server, 0) > 900_000);
}

#[test]
fn default_windows_hold_until_our_settings_are_acknowledged() {
    let limits = Limits { stream_window: 100, max_stream_window: 100, ..Limits::default() };
    let mut hello =
        [&PREFACE[..], &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_HEADERS, 1, REQUEST)].concat();
    hello.extend(frame(DATA, 0, 1, &[0; 16_000]));
    let mut server = Connection::server(&limits);
    let seen = feed(&mut server, &hello).expect("the peer does not know our window yet");
    assert_eq!(seen.len(), 3);
    drain(&mut server);
    let late = [frame(SETTINGS, ACK, 0, &[]), frame(DATA, 0, 1, &[0; 1])].concat();
    expect_reset(&mut server, &late, 1, ErrorCode::FlowControlError, "now it knows");
}

#[test]
fn a_change_of_the_initial_window_reaches_streams_that_are_open() {
    let setting = |value: u32| frame(SETTINGS, 0, 0, &[&[0, 4], &value.to_be_bytes()[..]].concat());
    let mut server = server();
    feed(&mut server, &setting(10)).expect("valid");
    let stream = open(&mut server, 1);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    assert_eq!(server.send_data(stream, &[0; 30], true), 10);
    // Smaller than what is out already: the window is negative.
    feed(&mut server, &setting(4)).expect("valid");
    feed(&mut server, &frame(WINDOW_UPDATE, 0, 1, &6u32.to_be_bytes())).expect("valid");
    assert!(!server.wants_advance());
    feed(&mut server, &setting(9)).expect("valid");
    let mut progress = Vec::new();
    server.advance(&mut progress);
    assert_eq!((progress[0].bytes, progress[0].finished), (5, false));
    feed(&mut server, &setting(1_000)).expect("valid");
    progress.clear();
    server.advance(&mut progress);
    assert_eq!((progress[0].bytes, progress[0].finished), (15, true));
}

#[test]
fn who_makes_us_answer_and_never_reads_is_told_to_calm_down() {
    for (what, flood) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("empty DATA", frame(DATA, 0, 1, &[])),
    ] {
        let mut server = server();
        open(&mut server, 1);
        let mut ended = None;
        for _ in 0..10_000 {
            if let Err(error) = feed(&mut server, &flood) {
                ended = Some(error.code);
                break;
            }
        }
        assert_eq!(ended, Some(ErrorCode::EnhanceYourCalm), "{what}");
        assert!(server.output().len() < 200_000, "{what}");
    }
    let mut server = server();
    for _ in 0..20_000 {
        feed(&mut server, &frame(PING, 0, 0, &[0; 8])).expect("a peer that reads may ping on");
        drain(&mut server);
        server.begin_period();
    }
}

#[test]
fn requests_refused_without_end_are_told_to_calm_down() {
    let mut server = joined(&Limits { max_concurrent_streams: 0, ..Limits::default() });
    let ended = (0..10_000).find_map(|i| feed(&mut server, &frame(HEADERS, 5, 2 * i + 1, REQUEST)).err());
    assert_eq!(ended.map(|error| error.code), Some(ErrorCode::EnhanceYourCalm));
}

#[test]
fn a_connection_without_streams_holds_little() {
    let mut server = server();
    for id in 0..2_000 {
        let stream = open(&mut server, 2 * id + 1);
        server.send_headers(stream, &list(&[(":status", "200"), ("x-large", &"v".repeat(1_000))]), false);
        server.send_data(stream, &vec![0; 1_000_000], true);
        server.release(stream);
        drain(&mut server);
        feed(&mut server, &frame(WINDOW_UPDATE, 0, 0, &65_535u32.to_be_bytes())).expect("valid");
    }
    assert!(server.held_bytes() < 64 << 10, "{} bytes", server.held_bytes());
}

#[test]
fn a_goaway_after_an_error_never_takes_back_what_an_earlier_one_refused() {
    let mut server = server();
    open(&mut server, 1);
    server.go_away(ErrorCode::NoError, LastStream::Seen);
    // Not processed: its client may have sent it again elsewhere by now.
    feed(&mut server, &frame(HEADERS, END_HEADERS, 3, REQUEST)).expect("it is only late");
    feed(&mut server, &frame(WINDOW_UPDATE, 0, 0, &[0; 4])).expect_err("an increment of nothing");
    let last_streams: Vec<_> = frames(&drain(&mut server))
        .into_iter()
        .filter(|(kind, ..)| *kind == GOAWAY)
        .map(|(_, _, _, payload)| payload[..4].to_vec())
        .collect();
    assert_eq!(last_streams, [[0, 0, 0, 1], [0, 0, 0, 1]]);
}
