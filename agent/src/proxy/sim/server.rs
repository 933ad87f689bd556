//! A server: acts each call's story out, and holds every byte of the request against it.

use super::flood;
use super::network::Link;
use super::raw::{self, RawServer};
use super::story::{Lie, Plot, Story, Tally, byte};
use super::traces;
use crate::balance::Random;
use crate::http2::{
    Connection, ErrorCode, Event, FieldList, HeadersKind, LastStream, Limits, Name, StreamKey,
};

/// What listens at an endpoint: the first bytes say what it has to be.
pub(super) enum Server {
    Undecided(Vec<u8>),
    Http2(Box<SimServer>),
    Raw(RawServer),
}

impl Default for Server {
    fn default() -> Self {
        Self::Undecided(Vec::new())
    }
}

impl Server {
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        random: &mut Random,
        tally: &mut [Tally],
        stories: &[Story],
    ) {
        match self {
            Self::Http2(server) => server.receive(bytes, tally, stories),
            Self::Raw(server) => server.receive(bytes),
            Self::Undecided(start) => {
                start.extend_from_slice(bytes);
                let start = std::mem::take(start);
                *self = match raw::is_http2(&start) {
                    None => return *self = Self::Undecided(start),
                    Some(true) => Self::Http2(Box::new(SimServer::new(random))),
                    Some(false) => Self::Raw(RawServer::default()),
                };
                self.receive(&start, random, tally, stories);
            }
        }
    }

    /// The client's half has ended.
    pub(super) fn end(&mut self) {
        if let Self::Undecided(start) = self {
            let mut server = RawServer::default();
            server.receive(start);
            *self = Self::Raw(server);
        }
        if let Self::Raw(server) = self {
            server.end();
        }
    }

    pub(super) fn leave(&mut self) {
        if let Self::Http2(server) = self {
            server.leave();
        }
    }

    pub(super) fn act(
        &mut self,
        random: &mut Random,
        link: &mut Link,
        tally: &mut [Tally],
        stories: &[Story],
    ) {
        match self {
            Self::Undecided(_) => {}
            Self::Http2(server) => {
                server.act(random, tally, stories);
                link.take_from(&mut server.http2);
            }
            Self::Raw(server) => server.act(random, link),
        }
    }

    pub(super) fn lost(self, tally: &mut [Tally]) {
        if let Self::Http2(mut server) = self {
            server.lost(tally);
        }
    }
}

pub(super) struct SimServer {
    pub(super) http2: Connection,
    open: Vec<ServerCall>,
    /// All that it ever had.
    pub(super) begun: Vec<usize>,
    fields: FieldList,
}

struct ServerCall {
    call: usize,
    stream: StreamKey,
    ended: bool,
    ungranted: u32,
    has_headers: bool,
    sent: usize,
    answered: bool,
    /// With UNAVAILABLE.
    fails: bool,
}

impl SimServer {
    pub(super) fn new(random: &mut Random) -> Self {
        let streams = [1, 3, 1_000][random.below(3)];
        let limits = Limits { max_concurrent_streams: streams, ..Limits::default() };
        let http2 = Connection::server(&limits);
        Self { http2, open: Vec::new(), begun: Vec::new(), fields: FieldList::new() }
    }

    /// Says GOAWAY: what it has seen it finishes, the rest it never processes.
    pub(super) fn leave(&mut self) {
        self.http2.go_away(ErrorCode::NoError, LastStream::Seen);
    }

    pub(super) fn receive(&mut self, bytes: &[u8], tally: &mut [Tally], stories: &[Story]) {
        let mut buffer = vec![0; bytes.len() + 20_000];
        let held = self.http2.restore(&mut buffer);
        buffer[held..][..bytes.len()].copy_from_slice(bytes);
        let mut input = &buffer[..held + bytes.len()];
        loop {
            match self.http2.receive(&mut input, &mut self.fields) {
                Ok(Some(event)) => self.hear(event, tally, stories),
                Ok(None) => break self.http2.keep(input),
                Err(error) => panic!("the engine breaks HTTP/2 toward a server: {error}"),
            }
        }
    }

    fn hear(&mut self, event: Event<'_>, tally: &mut [Tally], stories: &[Story]) {
        match event {
            Event::Headers { stream, kind: HeadersKind::Request, end_stream, .. } => {
                let path = self.fields.find(Name::Path).expect("a request has a path");
                if path == flood::PATH {
                    return self.answer_flood(stream);
                }
                let call: usize = std::str::from_utf8(&path[1..]).unwrap().parse().unwrap();
                let tally = &mut tally[call];
                tally.parents.extend(traces::check_request(call, &self.fields, stories[call].is_traced));
                if let Plot::Refuse { times } = stories[call].plot
                    && tally.refused < times
                {
                    tally.refused += 1;
                    self.http2.reset(stream, ErrorCode::RefusedStream);
                    return self.http2.release(stream);
                }
                tally.processed += 1;
                let justified = tally.attempts();
                assert!(tally.processed <= justified, "call {call} is processed {} times", tally.processed);
                // Another attempt has the whole request again.
                (tally.request_received, tally.request_complete) = (0, false);
                tally.got_request_trailers = false;
                let fails = matches!(stories[call].plot, Plot::Unavailable { times } if tally.failed < times);
                tally.failed += u32::from(fails);
                self.begun.push(call);
                self.http2.set_token(stream, call as u32);
                self.open.push(ServerCall {
                    call,
                    stream,
                    ended: false,
                    ungranted: 0,
                    has_headers: false,
                    sent: 0,
                    answered: false,
                    fails,
                });
                if end_stream {
                    self.request_ends(call, tally, &stories[call]);
                }
            }
            Event::Headers { token, .. } => {
                let call = token as usize;
                let trailer = self.fields.iter().find(|field| field.name == b"x-request-trailer");
                tally[call].got_request_trailers = trailer.is_some_and(|field| field.value == b"kept");
                self.request_ends(call, &mut tally[call], &stories[call]);
            }
            Event::Data { token, payload, end_stream, .. } => {
                let call = token as usize;
                for got in payload {
                    let at = tally[call].request_received;
                    assert!(at < stories[call].request_bytes, "call {call} has more bytes than were sent");
                    assert_eq!(*got, byte(call, false, at), "byte {at} of call {call}");
                    tally[call].request_received += 1;
                }
                let index = self.position(call);
                self.open[index].ungranted += payload.len() as u32;
                if end_stream {
                    self.request_ends(call, &mut tally[call], &stories[call]);
                }
            }
            Event::Reset { token, by_peer, code, .. } => {
                assert!(by_peer, "the engine sends a stream that is malformed: {code:?}");
                let index = self.position(token as usize);
                let ended = self.open.swap_remove(index);
                self.http2.release(ended.stream);
                tally[ended.call].reset_seen = true;
            }
            Event::GoAway { .. } | Event::Refused { .. } | Event::Settings | Event::Pong(_) => {}
        }
    }

    /// With more than was asked for.
    fn answer_flood(&mut self, stream: StreamKey) {
        for _ in 0..20 {
            self.http2.send_headers(stream, &early_hints(), false);
        }
        let mut fields = early_hints();
        fields.set(Name::Status, b"200");
        fields.push(b"grpc-status", b"0");
        self.http2.send_headers(stream, &fields, true);
        self.http2.release(stream);
    }

    fn request_ends(&mut self, call: usize, tally: &mut Tally, story: &Story) {
        assert_eq!(tally.request_received, story.request_bytes, "the request of call {call} is cut off");
        tally.request_complete = true;
        let index = self.position(call);
        self.open[index].ended = true;
    }

    fn position(&self, call: usize) -> usize {
        self.open.iter().position(|open| open.call == call).expect("a call that is open")
    }

    pub(super) fn act(&mut self, random: &mut Random, _tally: &mut [Tally], stories: &[Story]) {
        if self.http2.wants_advance() {
            self.http2.advance(&mut Vec::new());
        }
        if self.open.is_empty() {
            return;
        }
        let index = random.below(self.open.len());
        let open = &mut self.open[index];
        let story = &stories[open.call];
        if open.ungranted > 0 && random.below(2) == 0 {
            self.http2.grant(open.stream, open.ungranted);
            open.ungranted = 0;
        }
        let done = match story.plot {
            Plot::Hang => false,
            Plot::TrailersOnly => {
                let mut fields = headers(story);
                fields.push(b"grpc-status", b"5");
                self.http2.send_headers(open.stream, &fields, true);
                true
            }
            Plot::Reset { after_headers, code } => {
                if after_headers && !open.has_headers {
                    self.http2.send_headers(open.stream, &headers(story), false);
                    open.has_headers = true;
                    false
                } else {
                    self.http2.reset(open.stream, code);
                    true
                }
            }
            Plot::Answer { at_once } => {
                (at_once || open.ended) && answer(&mut self.http2, open, story, random)
            }
            Plot::Lie(Lie::Length { .. }) => answer(&mut self.http2, open, story, random),
            Plot::Lie(Lie::Large | Lie::Malformed) => {
                self.http2.send_headers(open.stream, &headers(story), true);
                true
            }
            Plot::Unavailable { .. } if open.fails => {
                let mut fields = headers(story);
                fields.push(b"grpc-status", b"14");
                self.http2.send_headers(open.stream, &fields, true);
                true
            }
            Plot::Refuse { .. } | Plot::Unavailable { .. } => {
                open.ended && answer(&mut self.http2, open, story, random)
            }
        };
        if done && self.http2.queued(open.stream) == 0 {
            let ended = self.open.swap_remove(index);
            self.http2.release(ended.stream);
        }
    }

    pub(super) fn lost(&mut self, tally: &mut [Tally]) {
        for open in self.open.drain(..) {
            tally[open.call].reset_seen = true;
        }
    }
}

fn early_hints() -> FieldList {
    let mut fields = FieldList::new();
    fields.push(b":status", b"103");
    fields.push(b"link", b"</style.css>; rel=preload");
    fields
}

fn headers(story: &Story) -> FieldList {
    let mut fields = FieldList::new();
    fields.push(b":status", b"200");
    fields.push(b"content-type", if story.is_grpc { b"application/grpc" } else { b"text/plain" });
    match story.plot {
        Plot::Lie(Lie::Length { off_by }) => {
            let length = story.response_bytes as i64 + off_by;
            fields.push(b"content-length", length.to_string().as_bytes());
        }
        Plot::Lie(Lie::Large) => fields.push(b"x", &[b'v'; 70_000]),
        Plot::Lie(Lie::Malformed) => fields.push(b"Bad", b"name"),
        _ => {}
    }
    fields
}

/// The next piece of a good answer; whether it was the last.
fn answer(http2: &mut Connection, open: &mut ServerCall, story: &Story, random: &mut Random) -> bool {
    if !open.has_headers {
        if random.below(4) == 0 {
            http2.send_headers(open.stream, &early_hints(), false);
            return false;
        }
        http2.send_headers(open.stream, &headers(story), false);
        open.has_headers = true;
        return false;
    }
    if open.answered {
        // Whether the request is over or not, the answer is: what is left of it is not wanted.
        return http2.queued(open.stream) == 0;
    }
    if http2.queued(open.stream) > 5_000 {
        return false;
    }
    let size = (1 + random.below(9_000)).min(story.response_bytes - open.sent);
    if size > 0 {
        let payload: Vec<u8> = (open.sent..open.sent + size).map(|at| byte(open.call, true, at)).collect();
        open.sent += size;
        http2.send_data(open.stream, &payload, false);
        return false;
    }
    let mut trailers = FieldList::new();
    trailers.push(b"grpc-status", b"0");
    http2.send_trailers(open.stream, &trailers);
    open.answered = true;
    false
}
