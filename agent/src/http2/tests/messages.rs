//! Rules of messages: lengths, header lists that are too large, what a peer says of its own limits.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, REQUEST, RESPONSE, RST_STREAM, client,
    expect_reset, frame, frames, joined, open, server, stream_of,
};
use super::wire::{Seen, drain, feed, list, request};
use crate::http2::{ErrorCode, HeadersKind, Limits};

/// `content-length` as a literal that is in no table.
fn length(digits: &[u8]) -> Vec<u8> {
    [&[0x0f, 13, digits.len() as u8][..], digits].concat()
}

fn request_of(digits: &[u8]) -> Vec<u8> {
    [REQUEST, &length(digits)].concat()
}

#[test]
fn a_request_body_of_another_length_than_it_said_is_malformed() {
    let data = |len: usize, flags| frame(DATA, flags, 1, &vec![0; len]);
    for (what, rest) in [
        ("more", data(4, 0)),
        ("more in pieces", [data(2, 0), data(2, 0)].concat()),
        ("less", data(2, END_STREAM)),
        ("nothing", data(0, END_STREAM)),
        ("less, with trailers", [data(2, 0), frame(HEADERS, 5, 1, &[0, 1, b'a', 1, b'b'])].concat()),
    ] {
        let mut server = server();
        let headers = frame(HEADERS, END_HEADERS, 1, &request_of(b"3"));
        stream_of(&feed(&mut server, &headers).expect("valid"));
        expect_reset(&mut server, &rest, 1, ErrorCode::ProtocolError, what);
        assert_eq!(server.take_faults(), 1, "{what}");
    }
    for right in [data(3, END_STREAM), [data(1, 0), data(2, 0), frame(HEADERS, 5, 1, &[])].concat()] {
        let mut server = server();
        let headers = frame(HEADERS, END_HEADERS, 1, &request_of(b"3"));
        let stream = stream_of(&feed(&mut server, &headers).expect("valid"));
        let seen = feed(&mut server, &right).expect("valid");
        assert!(!seen.iter().any(|seen| matches!(seen, Seen::Reset { .. })), "{seen:?}");
        assert!(!server.is_closed(stream));
        assert_eq!(server.take_faults(), 0);
    }
}

#[test]
fn a_request_that_promises_a_body_and_ends_is_malformed() {
    let mut server = server();
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, 1, &request_of(b"3"));
    assert_eq!(expect_reset(&mut server, &bytes, 1, ErrorCode::ProtocolError, "no body"), []);
    let none = frame(HEADERS, END_HEADERS | END_STREAM, 3, &request_of(b"0"));
    assert_eq!(feed(&mut server, &none).expect("valid").len(), 1);
}

#[test]
fn a_response_body_of_another_length_than_it_said_is_malformed() {
    for (what, rest) in [
        ("more", frame(DATA, 0, 1, &[0; 4])),
        ("less", frame(DATA, END_STREAM, 1, &[0; 2])),
        ("trailers too early", frame(HEADERS, 5, 1, &[])),
    ] {
        let (mut client, _) = client();
        let response = frame(HEADERS, END_HEADERS, 1, &[RESPONSE, &length(b"3")].concat());
        feed(&mut client, &response).expect("valid");
        expect_reset(&mut client, &rest, 1, ErrorCode::ProtocolError, what);
    }
}

#[test]
fn an_answer_to_head_and_304_say_a_length_and_bring_no_body() {
    let (mut client, _) = client();
    let head = list(&[(":method", "HEAD"), (":scheme", "http"), (":path", "/")]);
    let stream = client.open(&head, true, 6).expect("there is room");
    let answer = frame(HEADERS, END_HEADERS | END_STREAM, 3, &[RESPONSE, &length(b"3")].concat());
    let seen = feed(&mut client, &answer).expect("valid");
    assert!(matches!(seen[..], [Seen::Headers { kind: HeadersKind::Response, end_stream: true, .. }]));
    client.release(stream);
    let stream = client.open(&request("/"), true, 6).expect("there is room");
    // 304 is entry 11 of the static table.
    let answer = frame(HEADERS, END_HEADERS | END_STREAM, 5, &[&[0x8b][..], &length(b"3")].concat());
    let seen = feed(&mut client, &answer).expect("valid");
    assert!(matches!(seen[..], [Seen::Headers { kind: HeadersKind::Response, end_stream: true, .. }]));
    assert!(client.is_closed(stream));
}

#[test]
fn a_connect_request_is_told_from_the_others() {
    let mut server = server();
    let connect = [&[0x02, 7][..], b"CONNECT", &[0x01, 1, b'a']].concat();
    let seen = feed(&mut server, &frame(HEADERS, END_HEADERS, 1, &connect)).expect("valid");
    assert!(matches!(seen[..], [Seen::Headers { kind: HeadersKind::Connect, .. }]), "{seen:?}");
}

#[test]
fn a_request_list_that_is_too_large_can_be_answered_and_the_tables_stay_equal() {
    // Each is a literal that goes into the table.
    let large = |at: usize| [&[0x40, 1, b'a' + at as u8, 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    let many = vec![0x83; 300];
    let long: Vec<u8> = (0..20).flat_map(large).collect();
    for (what, rest) in [("too many fields", many), ("too many bytes", long)] {
        let mut server = server();
        // A field that is indexed behind the limit has to be known to the blocks that follow.
        let block = [REQUEST, &rest, &[0x40, 1, b'x', 1, b'y']].concat();
        let mut pieces = block.chunks(16_384);
        let mut bytes = frame(HEADERS, END_STREAM, 1, pieces.next().expect("not empty"));
        pieces.for_each(|piece| bytes.extend(frame(CONTINUATION, 0, 1, piece)));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
        let seen = feed(&mut server, &bytes).expect(what);
        let [Seen::Headers { stream, kind: HeadersKind::RequestTooLarge, end_stream: true, .. }] = seen[..]
        else {
            panic!("{what}: {seen:?}");
        };
        server.send_headers(stream, &list(&[(":status", "431")]), true);
        server.release(stream);
        let answered = frames(&drain(&mut server));
        assert!(matches!(answered[..], [(HEADERS, 5, 1, _)]), "{what}: {answered:?}");
        let next = frame(HEADERS, END_HEADERS | END_STREAM, 3, &[REQUEST, &[0xbe]].concat());
        let seen = feed(&mut server, &next).expect(what);
        let [Seen::Headers { kind: HeadersKind::Request, fields, .. }] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!(fields.last(), Some(&("x".to_owned(), "y".to_owned())), "{what}");
        assert!(server.held_bytes() < 200 << 10, "{what}: {} bytes", server.held_bytes());
    }
}

#[test]
fn a_response_list_that_is_too_large_ends_its_stream_alone() {
    let (mut client, stream) = client();
    let bytes = frame(HEADERS, END_HEADERS, 1, &[RESPONSE, &[0xe0 - 1; 300]].concat());
    // 0xdf is entry 95: of no table. The list is over before, and the block is bad all the same.
    assert!(feed(&mut client, &bytes).is_err());
    let (mut other, _) = super::frames::client();
    let bytes = frame(HEADERS, END_HEADERS, 1, &[RESPONSE; 300].concat());
    let seen = expect_reset(&mut other, &bytes, 1, ErrorCode::EnhanceYourCalm, "too many fields");
    assert_eq!(seen, [Seen::Reset { stream, token: 5, code: ErrorCode::EnhanceYourCalm, by_peer: false }]);
}

#[test]
fn the_peers_limit_of_header_lists_is_known() {
    let mut server = server();
    assert_eq!(server.peer_max_header_list(), u32::MAX);
    feed(&mut server, &frame(4, 0, 0, &[0, 6, 0, 0, 0x20, 0])).expect("valid");
    assert_eq!(server.peer_max_header_list(), 8_192);
}

#[test]
fn frames_on_a_stream_that_the_peer_closed_are_an_error_and_on_one_that_we_reset_they_are_late() {
    let data = || frame(DATA, 0, 1, b"late");
    // The peer has said its last: nothing more may come, whether the stream is remembered or not.
    for released in [false, true] {
        let mut server = server();
        let seen = feed(&mut server, &frame(HEADERS, 5, 1, REQUEST)).expect("valid");
        let stream = stream_of(&seen);
        server.send_headers(stream, &list(&[(":status", "200")]), true);
        if released {
            server.release(stream);
        }
        drain(&mut server);
        feed(&mut server, &data()).expect("an error of the stream");
        let reset = (RST_STREAM, 0, 1, ErrorCode::StreamClosed.to_wire().to_be_bytes().to_vec());
        assert_eq!(frames(&drain(&mut server)), [reset]);
    }
    // We have reset it: the peer may not know yet.
    let mut server = server();
    let stream = open(&mut server, 1);
    server.release(stream);
    drain(&mut server);
    assert_eq!(feed(&mut server, &data()), Ok(vec![]));
    assert_eq!(feed(&mut server, &frame(HEADERS, 5, 1, &[])), Ok(vec![]));
    assert!(server.output().is_empty());
}

#[test]
fn a_stream_beyond_the_limit_is_refused_and_what_is_late_for_it_ignored() {
    let mut server = joined(&Limits { max_concurrent_streams: 1, ..Limits::default() });
    open(&mut server, 1);
    let bytes = frame(HEADERS, END_HEADERS, 3, REQUEST);
    assert_eq!(expect_reset(&mut server, &bytes, 3, ErrorCode::RefusedStream, "one too many"), []);
    assert_eq!(feed(&mut server, &frame(DATA, END_STREAM, 3, b"late")), Ok(vec![]));
    assert!(server.output().is_empty());
}
