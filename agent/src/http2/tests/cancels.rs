//! Requests taken back before the server has said anything about them.

use super::frames::{HEADERS, RST_STREAM, SETTINGS, frame, frames};
use super::wire::{Seen, drain, feed, request};
use crate::http2::{Connection, ErrorCode, Limits, OpenError, StreamKey};

/// A client whose server takes so many streams, and whose SETTINGS it has acknowledged.
fn client(max_concurrent_streams: u32) -> Connection {
    let mut client = Connection::client(&Limits::default());
    let limit = [&[0, 3], &max_concurrent_streams.to_be_bytes()[..]].concat();
    feed(&mut client, &frame(SETTINGS, 0, 0, &limit)).expect("valid");
    acknowledge(&mut client);
    drain(&mut client);
    client
}

fn acknowledge(client: &mut Connection) -> Vec<Seen> {
    feed(client, &frame(SETTINGS, 1, 0, &[])).expect("valid")
}

fn open(client: &mut Connection) -> StreamKey {
    client.open(&request("/"), true, 0).expect("there is room")
}

/// How many resets, and how many SETTINGS, the server gets now.
fn sent(client: &mut Connection) -> (usize, usize) {
    let frames = frames(&drain(client));
    let count = |wanted| frames.iter().filter(|(kind, ..)| *kind == wanted).count();
    (count(RST_STREAM), count(SETTINGS))
}

#[test]
fn resets_that_a_server_has_not_read_are_few_and_the_others_follow_when_it_has() {
    let mut client = client(100);
    let streams: Vec<_> = (0..35).map(|_| open(&mut client)).collect();
    for stream in streams {
        client.release(stream);
    }
    assert_eq!(sent(&mut client), (10, 1));
    // Those that are held still count at the server.
    assert_eq!(
        (0..75).filter(|_| client.can_open() && client.open(&request("/"), true, 0).is_ok()).count(),
        75
    );
    assert_eq!(client.open(&request("/"), true, 0), Err(OpenError::AtPeerLimit));
    drain(&mut client);
    assert_eq!(acknowledge(&mut client), [Seen::Settings], "there is room again");
    assert_eq!(sent(&mut client), (10, 1));
    assert!(client.can_open());
    acknowledge(&mut client);
    assert_eq!(sent(&mut client), (10, 1));
    acknowledge(&mut client);
    assert_eq!(sent(&mut client), (5, 0));
    assert_eq!(acknowledge(&mut client), [], "one too many");
}

#[test]
fn streams_that_the_server_has_answered_are_reset_at_once() {
    let mut client = client(100);
    for round in 0..50 {
        let stream = open(&mut client);
        feed(&mut client, &frame(HEADERS, 4, 2 * round + 1, super::frames::RESPONSE)).expect("valid");
        client.reset(stream, ErrorCode::Cancel);
        client.release(stream);
    }
    assert_eq!(sent(&mut client), (50, 0));
}

#[test]
fn what_comes_for_a_stream_whose_reset_is_held_is_late_and_no_fault() {
    let mut client = client(100);
    let streams: Vec<_> = (0..11).map(|_| open(&mut client)).collect();
    for stream in streams {
        client.release(stream);
    }
    assert_eq!(feed(&mut client, &frame(HEADERS, 5, 21, super::frames::RESPONSE)), Ok(vec![]));
    acknowledge(&mut client);
    assert_eq!(sent(&mut client), (11, 1));
}

#[test]
fn a_server_that_never_acknowledges_gets_them_by_the_second() {
    let mut client = client(100);
    let streams: Vec<_> = (0..15).map(|_| open(&mut client)).collect();
    for stream in streams {
        client.release(stream);
    }
    assert_eq!(sent(&mut client), (10, 1));
    client.begin_period();
    assert_eq!(sent(&mut client), (5, 0));
}
