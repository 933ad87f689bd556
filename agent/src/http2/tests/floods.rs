//! Peers that make work for nothing: what it costs them, and what it may cost us.

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, PRIORITY, REQUEST, RESPONSE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, client, frame, open, server,
};
use super::wire::{Seen, drain, feed, list};
use crate::http2::{Connection, ErrorCode, Flood, HeadersKind};

/// Frames, some at a time, to a connection whose owner reads and writes: how many came through, and what ended it.
fn flood(
    connection: &mut Connection,
    mut frames: impl FnMut(u32) -> Vec<u8>,
    most: u32,
) -> Option<(u32, Option<Flood>)> {
    (0..most).find_map(|round| {
        let outcome = feed(connection, &frames(round));
        drain(connection);
        let error = outcome.err()?;
        assert_eq!(error.code, ErrorCode::EnhanceYourCalm);
        Some((round, error.flood))
    })
}

fn setting(id: u8, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, id], &value.to_be_bytes()[..]].concat())
}

#[test]
fn frames_without_a_message_end_the_connection_when_there_is_nothing_else() {
    let update = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let cases: [(&str, Vec<u8>, u32); 8] = [
        ("PING", frame(6, 0, 0, &[0; 8]), 10_000),
        ("PING that answers nothing", frame(6, 1, 0, &[0; 8]), 10_000),
        ("PRIORITY", frame(PRIORITY, 0, 9, &[0; 5]), 10_000),
        ("an extension", frame(0x42, 0, 9, &[0; 5]), 10_000),
        ("WINDOW_UPDATE of the connection", update(0, 1), 10_000),
        ("WINDOW_UPDATE of a stream", update(1, 1), 10_000),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[]), 1_000),
        ("empty DATA", frame(DATA, 0, 1, &[]), 1_000),
    ];
    for (what, bytes, allowed) in cases {
        let mut server = server();
        open(&mut server, 1);
        let (round, kind) = flood(&mut server, |_| bytes.clone(), 20_000).expect(what);
        assert_eq!(kind, Some(Flood::Control), "{what}");
        assert!((allowed - 20..allowed + 20).contains(&round), "{what}: {round} came through");
    }
}

#[test]
fn a_new_period_allows_the_same_again() {
    let mut server = server();
    for _ in 0..5 {
        assert_eq!(flood(&mut server, |_| frame(6, 0, 0, &[0; 8]), 9_000), None);
        server.begin_period();
    }
}

#[test]
fn a_window_that_flips_costs_more_the_more_streams_there_are() {
    let rounds = |streams: u32| {
        let mut server = server();
        for index in 0..streams {
            open(&mut server, 2 * index + 1);
        }
        server.begin_period();
        flood(&mut server, |round| setting(4, 1 + round % 2), 20_000).expect("it ends").0
    };
    let (few, many) = (rounds(1), rounds(900));
    assert!(many * 3 < few, "{few} with one stream, {many} with 900");
}

#[test]
fn requests_that_are_reset_at_once_end_the_connection_and_nobody_elses() {
    let mut server = server();
    let mut id = 1;
    let rapid = |server: &mut Connection, id: u32| {
        let bytes = [frame(HEADERS, END_HEADERS, id, REQUEST), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])];
        let outcome = feed(server, &bytes.concat());
        if let Some(key) = server.streams_find_for_test(id) {
            server.release(key);
        }
        drain(server);
        outcome
    };
    let ended = (0..20_000).find_map(|_| {
        id += 2;
        rapid(&mut server, id).err()
    });
    assert_eq!(ended.and_then(|error| error.flood), Some(Flood::Cancels));
    assert_eq!(id / 2, 10_001);
}

#[test]
fn a_client_that_cancels_for_an_hour_stays_connected() {
    let mut server = server();
    for second in 0..3_600 {
        for call in 0..20 {
            let id = 2 * (second * 20 + call) + 1;
            let stream = open(&mut server, id);
            let cancel = [frame(DATA, 0, id, b"late"), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat();
            feed(&mut server, &cancel).expect("a client may cancel");
            server.release(stream);
        }
        drain(&mut server);
        server.begin_period();
    }
}

#[test]
fn streams_that_make_us_reset_them_end_the_connection() {
    // Each a fault of the stream alone, and each answered with RST_STREAM ("made you reset").
    type FaultyFrame = fn(u32) -> Vec<u8>;
    let faults: [(&str, FaultyFrame); 4] = [
        ("window of nothing", |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
        ("window beyond the most", |id| frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff])),
        ("trailers that end nothing", |id| frame(HEADERS, END_HEADERS, id, &[])),
        ("malformed trailers", |id| frame(HEADERS, 5, id, RESPONSE)),
    ];
    for (what, fault) in faults {
        let mut server = server();
        let bytes = |round| {
            let id = 2 * round + 1;
            [frame(HEADERS, END_HEADERS, id, REQUEST), fault(id)].concat()
        };
        let ended = (0..5_000).find_map(|round| {
            let outcome = feed(&mut server, &bytes(round));
            if let Some(key) = server.streams_find_for_test(2 * round + 1) {
                server.release(key);
            }
            drain(&mut server);
            outcome.err().map(|error| (round, error.flood))
        });
        assert_eq!(ended, Some((1_000, Some(Flood::Faults))), "{what}");
    }
}

#[test]
fn continuations_without_end_are_cut_short_and_hold_little() {
    let mut server = server();
    feed(&mut server, &frame(HEADERS, 0, 1, REQUEST)).expect("valid");
    let ended = flood(&mut server, |_| frame(CONTINUATION, 0, 1, &[0x83; 16_000]), 1_000).expect("it ends");
    assert_eq!(ended, (16, Some(Flood::Headers)));
    assert!(server.held_bytes() < 600 << 10, "{} bytes", server.held_bytes());
    let mut server = super::frames::server();
    feed(&mut server, &frame(HEADERS, 0, 1, REQUEST)).expect("valid");
    let ended = flood(&mut server, |_| frame(CONTINUATION, 0, 1, &[]), 1_000).expect("it ends");
    assert_eq!(ended, (128, Some(Flood::Headers)));
}

#[test]
fn a_bomb_of_references_to_a_large_field_is_never_unpacked() {
    let mut server = server();
    let field = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    let first = frame(HEADERS, 5, 1, &[REQUEST, &field].concat());
    let seen = feed(&mut server, &first).expect("valid");
    server.release(super::frames::stream_of(&seen));
    for round in 1..200 {
        // 16,000 references of 4 KiB each would be 64 MB.
        let bomb = frame(HEADERS, 5, 2 * round + 1, &[REQUEST, &[0xbe; 16_000]].concat());
        let seen = feed(&mut server, &bomb).expect("answered, each of them");
        let stream = super::frames::stream_of(&seen);
        server.send_headers(stream, &list(&[(":status", "431")]), true);
        server.release(stream);
        drain(&mut server);
    }
    assert!(server.held_bytes() < 200 << 10, "{} bytes", server.held_bytes());
}

#[test]
fn a_bomb_of_literals_with_a_large_name_ends_the_connection_before_it_is_unpacked() {
    let mut server = server();
    let name = [&[0x40, 0x7f, 0xdd, 0x1e][..], &[b'n'; 4_060], &[0]].concat();
    let seen = feed(&mut server, &frame(HEADERS, 5, 1, &[REQUEST, &name].concat())).expect("valid");
    server.release(super::frames::stream_of(&seen));
    // Two bytes each: that name, which goes into the table once more, and no value. 8,000 of them would be 64 MB, copied twice.
    let bomb = |fields: usize| [REQUEST, &[0x7e, 0].repeat(fields)].concat();
    let seen = feed(&mut server, &frame(HEADERS, 5, 3, &bomb(64))).expect("answered");
    assert!(matches!(seen[..], [Seen::Headers { kind: HeadersKind::RequestTooLarge, .. }]), "{seen:?}");
    server.release(super::frames::stream_of(&seen));
    let error = feed(&mut server, &frame(HEADERS, 5, 5, &bomb(8_000))).expect_err("it is a bomb");
    assert_eq!((error.code, error.flood), (ErrorCode::EnhanceYourCalm, Some(Flood::Headers)));
}

#[test]
fn requests_that_are_too_large_are_not_useful() {
    let mut server = server();
    let field = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'v'; 4_000]].concat();
    let seen = feed(&mut server, &frame(HEADERS, 5, 1, &[REQUEST, &field].concat())).expect("valid");
    server.release(super::frames::stream_of(&seen));
    let ended = (1..5_000).find_map(|round| {
        let id = 2 * round + 1;
        let outcome = feed(&mut server, &frame(HEADERS, 5, id, &[REQUEST, &[0xbe; 20]].concat()));
        if let Some(key) = server.streams_find_for_test(id) {
            server.release(key);
        }
        drain(&mut server);
        outcome.err().map(|error| (round, error.flood))
    });
    let (round, kind) = ended.expect("it ends");
    assert!(round <= 1_010 && kind == Some(Flood::Control), "{kind:?} after {round}");
}

#[test]
fn a_servers_answers_that_are_too_large_fail_their_calls_and_not_the_connection() {
    let (mut client, _) = client();
    let large = [RESPONSE, &[0x40, 1, b'a', 0x7f, 0xa1, 0x1e], &[b'v'; 4_000]].concat();
    let mut ids = (1..).step_by(2);
    let mut answer = |client: &mut Connection, block: &[u8]| {
        let id = ids.next().expect("there is no end of them");
        if id > 1 {
            client.open(&super::wire::request("/"), true, 0).expect("there is room");
        }
        let outcome = feed(client, &frame(HEADERS, 5, id, block));
        if let Some(key) = client.streams_find_for_test(id) {
            client.release(key);
        }
        drain(client);
        outcome
    };
    answer(&mut client, &large).expect("as large as it may be");
    let bomb = [RESPONSE, &[0xbe; 20]].concat();
    for round in 0..1_500 {
        let seen = answer(&mut client, &bomb).unwrap_or_else(|error| panic!("{error} in round {round}"));
        assert!(matches!(seen[..], [Seen::Reset { code: ErrorCode::EnhanceYourCalm, .. }]), "{seen:?}");
        // The others' calls on the same connection.
        answer(&mut client, RESPONSE).expect("valid");
    }
}

#[test]
fn late_frames_are_free_as_far_as_a_window_goes() {
    for (what, late, free) in [
        ("trailers", frame(HEADERS, 5, 1, &[]), 0),
        ("DATA", frame(DATA, 0, 1, &[0; 1_000]), 65),
        ("tiny DATA", frame(DATA, 0, 1, b"x"), 255),
    ] {
        let mut server = server();
        let stream = open(&mut server, 1);
        server.reset(stream, ErrorCode::Cancel);
        let (round, kind) = flood(&mut server, |_| late.clone(), 20_000).expect(what);
        assert_eq!(kind, Some(Flood::Control), "{what}");
        assert!((free + 9_990..free + 10_010).contains(&round), "{what}: {round} came through");
    }
}

#[test]
fn informational_responses_without_end_close_the_connection_to_that_server() {
    let (mut client, _) = client();
    let informational = frame(HEADERS, END_HEADERS, 1, &[0x48, 3, b'1', b'0', b'3']);
    let (_, kind) = flood(&mut client, |_| informational.clone(), 20_000).expect("it ends");
    assert_eq!(kind, Some(Flood::Control));
}

#[test]
fn updates_of_windows_are_free_for_who_gets_data() {
    let mut server = server();
    let stream = open(&mut server, 1);
    server.send_headers(stream, &list(&[(":status", "200")]), false);
    for round in 0..50_000 {
        assert_eq!(server.send_data(stream, b"tiny", false), 4, "in round {round}");
        drain(&mut server);
        let updates = [
            frame(WINDOW_UPDATE, 0, 0, &4u32.to_be_bytes()),
            frame(WINDOW_UPDATE, 0, 1, &4u32.to_be_bytes()),
        ];
        feed(&mut server, &updates.concat()).expect("what it got, it may get again");
    }
}

#[test]
fn streams_reset_while_they_wait_for_their_turn_leave_nothing_behind() {
    let mut server = server();
    for round in 0..20_000 {
        let id = 2 * round + 1;
        let stream = open(&mut server, id);
        server.send_headers(stream, &list(&[(":status", "200")]), false);
        // The connection's window is soon used up: what is left waits for its turn.
        server.send_data(stream, &[0; 1_000], false);
        server.reset(stream, ErrorCode::Cancel);
        server.release(stream);
        drain(&mut server);
        server.begin_period();
    }
    assert!(server.held_bytes() < 64 << 10, "{} bytes", server.held_bytes());
}
