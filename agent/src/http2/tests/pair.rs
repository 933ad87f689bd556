//! A client and a server of ours, joined in memory.

use super::wire::{Seen, carry, drain, feed, list, pairs, request, response, trailers};
use crate::http2::{Connection, ErrorCode, HeadersKind, LastStream, Limits, OpenError, Progress, StreamKey};

struct Pair {
    client: Connection,
    server: Connection,
}

impl Pair {
    /// Joined, and past the exchange of SETTINGS.
    fn new(limits: &Limits) -> Self {
        let (mut client, mut server) = (Connection::client(limits), Connection::server(limits));
        assert_eq!(carry(&mut client, &mut server), [Seen::Settings]);
        assert_eq!(carry(&mut server, &mut client), [Seen::Settings]);
        assert_eq!(carry(&mut client, &mut server), []);
        Self { client, server }
    }

    /// A request that the server has seen: the stream at both ends.
    fn call(&mut self, end_stream: bool) -> (StreamKey, StreamKey) {
        let here = self.client.open(&request("/a/b"), end_stream, 7).expect("there is room");
        let there = match &carry(&mut self.client, &mut self.server)[..] {
            [Seen::Headers { stream, kind: HeadersKind::Request, .. }] => *stream,
            other => panic!("expected a request: {other:?}"),
        };
        self.server.set_token(there, 70);
        (here, there)
    }

    fn at_server(&mut self) -> Vec<Seen> {
        carry(&mut self.client, &mut self.server)
    }

    fn at_client(&mut self) -> Vec<Seen> {
        carry(&mut self.server, &mut self.client)
    }
}

fn small(stream_window: u32) -> Limits {
    Limits { stream_window, max_stream_window: stream_window, ..Limits::default() }
}

fn body(seen: &[Seen]) -> Vec<u8> {
    let parts =
        seen.iter().map(|seen| if let Seen::Data { payload, .. } = seen { &payload[..] } else { &[] });
    parts.collect::<Vec<_>>().concat()
}

#[test]
fn a_unary_call_goes_there_and_back_and_leaves_nothing_open() {
    let mut pair = Pair::new(&Limits::default());
    for _ in 0..300 {
        let here = pair.client.open(&request("/a/b"), false, 7).expect("there is room");
        assert_eq!(pair.client.send_data(here, b"ping", true), 4);
        let seen = pair.at_server();
        let [Seen::Headers { stream: there, fields, end_stream: false, .. }, data] = &seen[..] else {
            panic!("{seen:?}");
        };
        assert_eq!(*fields, pairs(&request("/a/b")));
        let there = *there;
        assert_eq!(
            *data,
            Seen::Data { stream: there, token: 0, payload: b"ping".to_vec(), end_stream: true }
        );
        pair.server.send_headers(there, &list(&[(":status", "103"), ("link", "x")]), false);
        pair.server.send_headers(there, &response(), false);
        assert_eq!(pair.server.send_data(there, b"pong", false), 4);
        pair.server.send_trailers(there, &trailers());
        assert!(pair.server.is_closed(there));
        pair.server.release(there);
        let seen = pair.at_client();
        let kinds: Vec<_> = seen
            .iter()
            .filter_map(|seen| match seen {
                Seen::Headers { kind, token: 7, end_stream, .. } => Some((*kind, *end_stream)),
                _ => None,
            })
            .collect();
        assert_eq!(
            kinds,
            [
                (HeadersKind::Informational, false),
                (HeadersKind::Response, false),
                (HeadersKind::Trailers, true)
            ]
        );
        assert_eq!(body(&seen), b"pong");
        assert!(pair.client.is_closed(here));
        pair.client.release(here);
    }
    assert_eq!((pair.client.open_streams(), pair.server.open_streams()), (0, 0));
    assert!(pair.client.output().is_empty() && pair.server.output().is_empty());
}

#[test]
fn request_trailers_arrive_behind_the_body() {
    let mut pair = Pair::new(&Limits::default());
    let (here, there) = pair.call(false);
    pair.client.send_data(here, b"body", false);
    pair.client.send_trailers(here, &list(&[("checksum", "1")]));
    let seen = pair.at_server();
    assert_eq!(body(&seen), b"body");
    let Some(Seen::Headers { stream, kind: HeadersKind::Trailers, end_stream: true, .. }) = seen.last()
    else {
        panic!("{seen:?}");
    };
    assert_eq!(*stream, there);
}

#[test]
fn a_body_larger_than_the_window_waits_in_its_stream_and_all_of_it_arrives_with_its_trailers() {
    let mut pair = Pair::new(&small(1_000));
    let (here, there) = pair.call(true);
    pair.server.send_headers(there, &response(), false);
    let sent: Vec<u8> = (0..10_500u32).map(|i| i as u8).collect();
    assert_eq!(pair.server.send_data(there, &sent, false), 1_000);
    assert_eq!(pair.server.queued(there), 9_500);
    pair.server.send_trailers(there, &trailers());
    let (mut came, mut left, mut progress) = (Vec::new(), 9_500, Vec::new());
    loop {
        let seen = pair.at_client();
        let part = body(&seen);
        assert!(part.len() <= 1_000);
        pair.client.grant(here, part.len() as u32);
        came.extend(part);
        if let Some(Seen::Headers { kind: HeadersKind::Trailers, end_stream: true, .. }) = seen.last() {
            break;
        }
        pair.at_server();
        assert!(pair.server.wants_advance());
        progress.clear();
        pair.server.advance(&mut progress);
        let [Progress { token: 70, bytes, finished, .. }] = progress[..] else { panic!("{progress:?}") };
        left -= bytes as usize;
        assert_eq!(pair.server.queued(there), left);
        assert_eq!(finished, left == 0);
    }
    assert_eq!(came, sent);
    assert!(pair.client.is_closed(here) || pair.client.open_streams() == 0);
}

#[test]
fn output_is_bounded_and_streams_take_turns_when_it_drains() {
    let limits = Limits { max_output: 40_000, ..Limits::default() };
    let mut pair = Pair::new(&limits);
    let streams: Vec<_> = (0..3).map(|_| pair.call(true)).collect();
    let payload = vec![1; 60_000];
    for (_, there) in &streams {
        pair.server.send_headers(*there, &response(), false);
        pair.server.send_data(*there, &payload, true);
    }
    assert!(pair.server.output().len() < 40_000 + 17_000);
    assert!(!pair.server.wants_advance(), "the output is full");
    let mut came = vec![0; 3];
    let mut progress = Vec::new();
    let mut order = Vec::new();
    loop {
        for seen in pair.at_client() {
            if let Seen::Data { stream, payload, .. } = seen {
                let i = streams.iter().position(|(here, _)| *here == stream).expect("one of ours");
                came[i] += payload.len();
                order.push(i);
                pair.client.grant(stream, payload.len() as u32);
            }
        }
        pair.at_server();
        if !pair.server.wants_advance() {
            break;
        }
        pair.server.advance(&mut progress);
        assert!(pair.server.output().len() < 40_000 + 17_000);
    }
    assert_eq!(came, [60_000; 3]);
    order.dedup();
    assert!(order.len() > 6, "not one after the other: {order:?}");
    assert!(progress.iter().filter(|progress| progress.finished).count() == 3);
}

#[test]
fn a_stalled_stream_never_stalls_its_connection() {
    let mut pair = Pair::new(&Limits { connection_window: 65_535, ..Limits::default() });
    let stalled = pair.call(true);
    let payload = vec![1; 65_535];
    pair.server.send_headers(stalled.1, &response(), false);
    assert_eq!(pair.server.send_data(stalled.1, &payload, false), 65_535);
    assert_eq!(body(&pair.at_client()).len(), 65_535);
    pair.at_server();
    let other = pair.call(true);
    pair.server.send_headers(other.1, &response(), false);
    assert_eq!(pair.server.send_data(other.1, &payload, true), 65_535);
    assert_eq!(body(&pair.at_client()).len(), 65_535);
}

#[test]
fn a_window_grows_as_long_as_its_consumer_keeps_up() {
    let limits = Limits { stream_window: 10_000, max_stream_window: 40_000, ..Limits::default() };
    let mut pair = Pair::new(&limits);
    let (here, there) = pair.call(true);
    pair.server.send_headers(there, &response(), false);
    pair.server.send_data(there, &vec![1; 400_000], false);
    let mut at_once = Vec::new();
    for _ in 0..12 {
        let came = body(&pair.at_client()).len();
        at_once.push(came);
        pair.client.grant(here, came as u32);
        pair.at_server();
        pair.server.advance(&mut Vec::new());
    }
    assert_eq!(at_once[0], 10_000);
    assert_eq!(at_once.iter().max(), Some(&40_000));
}

#[test]
fn a_reset_reaches_the_other_end_and_late_frames_for_it_are_ignored() {
    let mut pair = Pair::new(&Limits::default());
    let (here, there) = pair.call(false);
    pair.client.send_data(here, b"late", false);
    let late = drain(&mut pair.client);
    pair.server.reset(there, ErrorCode::RefusedStream);
    assert_eq!(
        pair.at_client(),
        [Seen::Reset { stream: here, token: 7, code: ErrorCode::RefusedStream, by_peer: true }]
    );
    assert_eq!(feed(&mut pair.server, &late), Ok(vec![]));
    pair.server.release(there);
    assert_eq!(feed(&mut pair.server, &late), Ok(vec![]));
    assert!(pair.server.output().is_empty());
    pair.client.release(here);
    assert!(pair.client.output().is_empty(), "a stream that is closed is not reset again");
}

#[test]
fn a_released_stream_is_reset_with_cancel_or_no_error() {
    let mut pair = Pair::new(&Limits::default());
    let (here, there) = pair.call(false);
    pair.client.release(here);
    let seen = pair.at_server();
    assert_eq!(seen, [Seen::Reset { stream: there, token: 70, code: ErrorCode::Cancel, by_peer: true }]);
    pair.server.release(there);

    let (here, there) = pair.call(false);
    pair.server.send_headers(there, &response(), true);
    pair.server.release(there);
    let seen = pair.at_client();
    let [Seen::Headers { end_stream: true, .. }, Seen::Reset { stream, code: ErrorCode::NoError, .. }] =
        &seen[..]
    else {
        panic!("{seen:?}")
    };
    assert_eq!(*stream, here);
}

#[test]
fn header_lists_for_streams_that_are_gone_still_feed_the_table() {
    let mut pair = Pair::new(&Limits::default());
    let (here, there) = pair.call(true);
    // The client gives up; the answer, with fields for the table, is on the way already.
    pair.server.send_headers(there, &list(&[(":status", "200"), ("x-first", "value")]), true);
    pair.client.release(here);
    assert_eq!(pair.at_client(), []);
    pair.at_server();
    pair.server.release(there);
    let (_, there) = pair.call(true);
    pair.server.send_headers(there, &list(&[(":status", "200"), ("x-first", "value")]), true);
    let seen = pair.at_client();
    let [Seen::Headers { fields, .. }] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(fields[1], ("x-first".into(), "value".into()));
}

#[test]
fn a_client_keeps_to_the_peers_limit_of_streams_and_a_server_refuses_what_is_above() {
    let limits = Limits { max_concurrent_streams: 2, ..Limits::default() };
    let mut pair = Pair::new(&limits);
    assert_eq!(pair.client.peer_max_concurrent_streams(), 2);
    let (first, _) = pair.call(true);
    pair.call(true);
    assert!(!pair.client.can_open());
    assert_eq!(pair.client.open(&request("/"), true, 0), Err(OpenError::AtPeerLimit));
    pair.client.release(first);
    assert!(pair.client.can_open());

    let mut hasty = Connection::client(&Limits::default());
    let mut server = Connection::server(&limits);
    let streams: Vec<_> =
        (0..3).map(|i| hasty.open(&request("/"), true, i).expect("no limit known yet")).collect();
    assert_eq!(carry(&mut hasty, &mut server).len(), 3, "SETTINGS and two requests");
    let seen = carry(&mut server, &mut hasty);
    let refused = Seen::Reset { stream: streams[2], token: 2, code: ErrorCode::RefusedStream, by_peer: true };
    assert_eq!(seen, [Seen::Settings, refused]);
}

#[test]
fn go_away_refuses_the_streams_above_its_last_and_lets_the_others_end() {
    let mut pair = Pair::new(&Limits::default());
    let (served, there) = pair.call(true);
    let late = pair.client.open(&request("/late"), true, 8).expect("there is room");
    pair.server.go_away(ErrorCode::NoError, LastStream::Seen);
    let seen = pair.at_client();
    assert_eq!(
        seen,
        [Seen::GoAway { last_stream: 1, code: ErrorCode::NoError }, Seen::Refused { stream: late, token: 8 }]
    );
    assert_eq!(pair.client.open(&request("/"), true, 0), Err(OpenError::GoingAway));
    assert_eq!(pair.at_server(), [], "the server ignores what it has not let through");
    pair.client.release(late);
    pair.server.send_headers(there, &response(), true);
    assert!(matches!(&pair.at_client()[..], [Seen::Headers { stream, .. }] if *stream == served));
}

#[test]
fn the_graceful_notice_lets_streams_through_that_are_on_the_way() {
    let mut pair = Pair::new(&Limits::default());
    pair.client.open(&request("/late"), true, 8).expect("there is room");
    pair.server.go_away(ErrorCode::NoError, LastStream::Max);
    assert_eq!(pair.at_client(), [Seen::GoAway { last_stream: 0x7fff_ffff, code: ErrorCode::NoError }]);
    assert!(matches!(pair.at_server()[..], [Seen::Headers { .. }]));
    assert!(!pair.client.can_open());
}

#[test]
fn a_ping_comes_back() {
    let mut pair = Pair::new(&Limits::default());
    pair.client.ping(*b"12345678");
    assert_eq!(pair.at_server(), []);
    assert_eq!(pair.at_client(), [Seen::Pong(*b"12345678")]);
}

#[test]
fn a_header_list_of_many_frames_arrives_whole() {
    let mut pair = Pair::new(&Limits::default());
    let large = "x\u{7f}".repeat(25_000);
    let (_, there) = pair.call(true);
    pair.server.send_headers(there, &list(&[(":status", "200"), ("x-large", &large)]), true);
    let seen = pair.at_client();
    let [Seen::Headers { fields, end_stream: true, .. }] = &seen[..] else { panic!("{} events", seen.len()) };
    assert!(fields[1].1 == large);
}

#[test]
fn bytes_cut_at_any_place_make_the_same_events() {
    let mut client = Connection::client(&Limits::default());
    let first = client.open(&request("/first"), false, 1).expect("there is room");
    client.send_data(first, b"body of the first", false);
    let second = client.open(&request("/second"), true, 2).expect("there is room");
    client.ping([1; 8]);
    client.send_data(first, &[], true);
    client.reset(second, ErrorCode::Cancel);
    let bytes = drain(&mut client);
    let whole = feed(&mut Connection::server(&Limits::default()), &bytes).expect("valid");
    assert!(whole.len() >= 6);
    for cut in 0..=bytes.len() {
        let mut server = Connection::server(&Limits::default());
        let mut seen = feed(&mut server, &bytes[..cut]).expect("valid");
        seen.extend(feed(&mut server, &bytes[cut..]).expect("valid"));
        assert_eq!(seen, whole, "cut at {cut}");
    }
    let mut server = Connection::server(&Limits::default());
    let one_by_one: Vec<_> =
        bytes.iter().flat_map(|byte| feed(&mut server, &[*byte]).expect("valid")).collect();
    assert_eq!(one_by_one, whole);
}

#[test]
fn a_large_frame_comes_in_pieces_that_make_the_same_body() {
    let mut pair = Pair::new(&Limits::default());
    let (_, there) = pair.call(true);
    pair.server.send_headers(there, &response(), false);
    let sent: Vec<u8> = (0..50_000u32).map(|i| (i / 3) as u8).collect();
    pair.server.send_data(there, &sent, true);
    let bytes = drain(&mut pair.server);
    let mut came = Vec::new();
    for part in bytes.chunks(5_000) {
        let seen = feed(&mut pair.client, part).expect("valid");
        came.extend(seen);
        // Nothing but a small beginning is held between reads.
        let mut buffer = vec![0; 20_000];
        let held = pair.client.restore(&mut buffer);
        assert!(held < 4_096 + 9);
        pair.client.keep(&buffer[..held]);
    }
    assert_eq!(body(&came), sent);
    assert!(matches!(came.last(), Some(Seen::Data { end_stream: true, .. })));
}
