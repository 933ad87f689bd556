//! Bytes that nobody sane would send: frames put together by dice, bent, cut and repeated. Whatever comes, nothing panics,
//! memory stays bounded, and the same bytes make the same events however they are cut. `SEED=n` runs one world again.

use super::frames::{frame, frames};
use super::wire::{Seen, drain, feed_each, list};
use crate::balance::Random;
use crate::http2::{Connection, ConnectionError, HeadersKind, Limits, PREFACE, StreamKey};

const WORLDS: u64 = 3_000;

fn bytes(random: &mut Random, most: usize) -> Vec<u8> {
    (0..random.below(most + 1)).map(|_| random.below(256) as u8).collect()
}

/// A header block: mostly right, sometimes noise.
fn block(random: &mut Random, is_request: bool) -> Vec<u8> {
    let mut block = match (random.below(12), is_request) {
        (0, _) => bytes(random, 40),
        (1, true) => [&[0x02, 7][..], b"CONNECT", &[0x01, 1, b'a']].concat(),
        (_, true) => vec![0x83, 0x86, 0x84],
        (_, false) => vec![0x88],
    };
    for _ in 0..random.below(5) {
        match random.below(8) {
            0 => block.push(0x80 | random.below(70) as u8),
            1 => block.extend([0x0f, 13, 1, b'0' + random.below(10) as u8]),
            2 => block.extend([0x20 | random.below(31) as u8]),
            3 => block
                .extend([&[0x40, 2, b'x', b'a' + random.below(3) as u8, 5][..], &bytes(random, 5)].concat()),
            4 => block.extend([0x00, 1, b'A', 1, b'v']),
            5 => block.extend([0x40, 1, b'y', 0x80 | 2, random.below(256) as u8, random.below(256) as u8]),
            _ => block.extend([0x40, 1, b'a' + random.below(20) as u8, 1, b'v']),
        }
    }
    block
}

/// What a peer sends: right to begin with, and less and less so.
fn stream_of_frames(random: &mut Random, is_client: bool) -> Vec<u8> {
    let mut sent = if is_client { PREFACE.to_vec() } else { Vec::new() };
    sent.extend(frame(4, 0, 0, &[]));
    let mut next = 1;
    for _ in 0..random.below(60) {
        let id = match random.below(6) {
            0 => 0,
            1 => random.below(20) as u32,
            _ => next,
        };
        let flags = if random.below(8) == 0 { random.below(256) as u8 } else { random.below(2) as u8 };
        let piece = match random.below(12) {
            0..=3 => {
                next += 2 * u32::from(is_client && random.below(2) == 0);
                frame(1, 4 | flags & 1, if is_client { next } else { id }, &block(random, is_client))
            }
            4..=5 => frame(0, flags, id, &bytes(random, 300)),
            6 => frame(3, 0, id, &(random.below(16) as u32).to_be_bytes()),
            7 => {
                let value = [0, 1, 100, 65_535, 1 << 20, 0x7fff_ffff, u32::MAX][random.below(7)];
                frame(4, 0, 0, &[&[0, random.below(8) as u8][..], &value.to_be_bytes()].concat())
            }
            8 => frame(8, 0, id, &(random.below(1 << 30) as u32).to_be_bytes()),
            9 => frame(6, flags & 1, 0, &[random.below(256) as u8; 8]),
            10 => frame(9, flags & 4, id, &bytes(random, 20)),
            _ => frame(random.below(12) as u8, flags, id, &bytes(random, 30)),
        };
        sent.extend(piece);
    }
    if random.below(2) == 0 && !sent.is_empty() {
        for _ in 0..1 + random.below(4) {
            let at = random.below(sent.len());
            sent[at] = random.below(256) as u8;
        }
    }
    sent
}

/// What happened: events with neighbouring pieces of a body put together, the output, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Story {
    events: Vec<Seen>,
    output: Vec<u8>,
    end: Option<ConnectionError>,
}

/// Feeds `sent` in pieces of those sizes to an end whose owner answers requests and grants what it gets.
fn live(is_server: bool, sent: &[u8], mut size: impl FnMut() -> usize) -> Story {
    let limits = Limits { max_concurrent_streams: 10, ..Limits::default() };
    let mut end = if is_server { Connection::server(&limits) } else { Connection::client(&limits) };
    let mut story = Story { events: Vec::new(), output: drain(&mut end), end: None };
    if !is_server {
        for _ in 0..3 {
            let request = list(&[(":method", "POST"), (":scheme", "http"), (":path", "/")]);
            end.open(&request, false, 1).expect("there is room");
        }
    }
    let mut gone: Vec<StreamKey> = Vec::new();
    let mut rest = sent;
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(size().clamp(1, rest.len()));
        rest = behind;
        let fed = feed_each(&mut end, piece, |end, event| tell(end, event, &mut story, &mut gone));
        if let Err(error) = fed {
            story.end = Some(error);
            break;
        }
        assert!(end.held_bytes() < 1 << 20, "{} bytes", end.held_bytes());
    }
    story.output.extend(drain(&mut end));
    // Only whole frames, and none for a peer that has none to expect.
    let start = if is_server { 0 } else { PREFACE.len() };
    frames(&story.output[start..]);
    story
}

fn tell(end: &mut Connection, event: Seen, story: &mut Story, gone: &mut Vec<StreamKey>) {
    match &event {
        Seen::Headers { stream, kind: HeadersKind::Request | HeadersKind::Connect, .. } => {
            gone.retain(|other| other != stream);
        }
        Seen::Reset { stream, .. } | Seen::Refused { stream, .. } if !gone.contains(stream) => {
            end.release(*stream);
            gone.push(*stream);
        }
        _ => {}
    }
    match (event, story.events.last_mut()) {
        (
            Seen::Data { stream, token, payload, end_stream },
            Some(Seen::Data { stream: last, payload: before, end_stream: ends, .. }),
        ) if stream == *last && !*ends => {
            let _ = token;
            before.extend(payload);
            *ends = end_stream;
        }
        (event, _) => story.events.push(event),
    }
}

#[test]
fn whatever_comes_ends_in_a_bounded_way_and_the_same_however_it_is_cut() {
    let only = std::env::var("SEED").ok().map(|seed| seed.parse::<u64>().expect("SEED is a number"));
    for seed in only.map_or(0..WORLDS, |seed| seed..seed + 1) {
        let mut random = Random::new(seed);
        let is_server = random.below(2) == 0;
        let sent = stream_of_frames(&mut random, is_server);
        let whole = live(is_server, &sent, || usize::MAX);
        let bytewise = live(is_server, &sent, || 1);
        assert_eq!(whole.end, bytewise.end, "SEED={seed}");
        if whole.end.is_none() {
            assert_eq!(whole.events, bytewise.events, "SEED={seed}");
            assert_eq!(frames_of(&whole, is_server), frames_of(&bytewise, is_server), "SEED={seed}");
        }
        let cut = live(is_server, &sent, || 1 + random.below(200));
        assert_eq!(whole.end, cut.end, "SEED={seed}");
    }
}

/// The frames of an output but for credit, which is told in as many steps as it is given.
fn frames_of(story: &Story, is_server: bool) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let start = if is_server { 0 } else { PREFACE.len() };
    frames(&story.output[start..]).into_iter().filter(|(kind, ..)| *kind != 8).collect()
}
