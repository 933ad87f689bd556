//! A client: opens its calls' streams, sends, reads at its own pace, and holds every byte against the story.

use super::story::{Ending, Oddity, Plot, Story, Tally, byte};
use super::traces;
use crate::balance::Random;
use crate::http2::{Connection, ErrorCode, Event, FieldList, HeadersKind, Limits, Name, StreamKey};

pub(super) struct SimClient {
    pub(super) http2: Connection,
    to_open: Vec<usize>,
    open: Vec<ClientCall>,
    fields: FieldList,
    is_lost: bool,
}

struct ClientCall {
    call: usize,
    stream: StreamKey,
    sent: usize,
    ended: bool,
    ungranted: u32,
    http: u16,
}

/// Bytes queued in a stream beyond which its client waits.
const QUEUE_BYTES: usize = 5_000;

impl SimClient {
    pub(super) fn new(calls: Vec<usize>) -> Self {
        Self {
            http2: Connection::client(&Limits::default()),
            to_open: calls,
            open: Vec::new(),
            fields: FieldList::new(),
            is_lost: false,
        }
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
                Err(error) => panic!("the engine breaks HTTP/2 toward a client: {error}"),
            }
        }
    }

    fn hear(&mut self, event: Event<'_>, tally: &mut [Tally], stories: &[Story]) {
        match event {
            Event::Headers { token, kind, end_stream, .. } => {
                let index = self.position(token);
                if kind == HeadersKind::Response {
                    let status = self.fields.find(Name::Status).expect("a response has a status");
                    self.open[index].http = std::str::from_utf8(status).unwrap().parse().unwrap();
                }
                if end_stream {
                    self.complete(index, tally);
                }
            }
            Event::Data { token, payload, end_stream, .. } => {
                let index = self.position(token);
                let call = self.open[index].call;
                for got in payload {
                    let at = tally[call].response_received;
                    assert!(at < stories[call].response_bytes, "call {call} gets more than was sent");
                    assert_eq!(*got, byte(call, true, at), "byte {at} of the answer to call {call}");
                    tally[call].response_received += 1;
                }
                self.open[index].ungranted += payload.len() as u32;
                if end_stream {
                    self.fields.clear();
                    self.complete(index, tally);
                }
            }
            Event::Reset { token, code, by_peer, .. } => {
                assert!(by_peer, "the engine sends a stream that is malformed: {code:?}");
                let index = self.position(token);
                self.close(index, Ending::Reset(code), tally);
            }
            Event::Refused { token, .. } => {
                let index = self.position(token);
                self.close(index, Ending::Reset(ErrorCode::RefusedStream), tally);
            }
            Event::GoAway { .. } | Event::Settings | Event::Pong(_) => {}
        }
    }

    fn complete(&mut self, index: usize, tally: &mut [Tally]) {
        let number = |text: &[u8]| std::str::from_utf8(text).unwrap().parse().unwrap();
        let grpc = self.fields.find(Name::GrpcStatus).map(number);
        let http = self.open[index].http;
        let message = self.fields.find(Name::GrpcMessage).unwrap_or_default();
        let by_agent = message.starts_with(b"evenkeel") || http != 200;
        self.close(index, Ending::Complete { http, grpc, by_agent }, tally);
    }

    fn close(&mut self, index: usize, ending: Ending, tally: &mut [Tally]) {
        let ended = self.open.swap_remove(index);
        self.http2.release(ended.stream);
        tally[ended.call].end(ending);
    }

    fn position(&self, token: u32) -> usize {
        self.open.iter().position(|open| open.call == token as usize).expect("a call that is open")
    }

    /// Opens a call, or goes on with one.
    pub(super) fn act(&mut self, random: &mut Random, tally: &mut [Tally], stories: &[Story]) {
        if self.is_lost {
            return;
        }
        if random.below(50) == 0 {
            self.http2.ping(*b"are you?");
        }
        if self.http2.wants_advance() {
            self.http2.advance(&mut Vec::new());
        }
        let choices = self.open.len() + usize::from(!self.to_open.is_empty());
        if choices == 0 {
            return;
        }
        let choice = random.below(choices);
        if choice == self.open.len() {
            self.begin(stories, tally);
        } else {
            self.go_on(choice, random, tally, stories);
        }
    }

    fn begin(&mut self, stories: &[Story], tally: &mut [Tally]) {
        let Some(&call) = self.to_open.last() else { return };
        let story = &stories[call];
        let mut fields = FieldList::new();
        if story.oddity == Some(Oddity::Connect) {
            fields.push(b":method", b"CONNECT");
        } else {
            fields.push(b":method", b"POST");
            fields.push(b":scheme", b"http");
            fields.push(b":path", format!("/{call}").as_bytes());
        }
        fields.push(b":authority", b"cart.shop");
        fields.push(b"content-type", if story.is_grpc { b"application/grpc" } else { b"text/plain" });
        if call % 3 > 0 {
            fields.push(b"x-user", (call % 5).to_string().as_bytes());
        }
        if let Some((name, value)) = traces::context(call) {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        match story.oddity {
            Some(Oddity::Large) => fields.push(b"x", &[b'v'; 70_000]),
            Some(Oddity::Length) => {
                fields.push(b"content-length", (story.request_bytes + 1).to_string().as_bytes());
            }
            Some(Oddity::Connect) | None => {}
        }
        if story.plot == Plot::Hang {
            fields.push(b"grpc-timeout", b"40m");
        }
        let ended = story.request_bytes == 0 && !story.request_trailers;
        match self.http2.open(&fields, ended, call as u32) {
            Ok(stream) => {
                self.to_open.pop();
                self.open.push(ClientCall { call, stream, sent: 0, ended, ungranted: 0, http: 0 });
            }
            Err(_) if self.http2.can_open() => unreachable!("it can be opened"),
            // Sent away: this client does not come back.
            Err(_) => {
                self.to_open.pop();
                tally[call].end(Ending::Lost);
            }
        }
    }

    fn go_on(&mut self, index: usize, random: &mut Random, tally: &mut [Tally], stories: &[Story]) {
        let open = &mut self.open[index];
        let story = &stories[open.call];
        if open.ungranted > 0 && random.below(3) == 0 {
            let bytes = 1 + random.below(open.ungranted as usize) as u32;
            open.ungranted -= bytes;
            self.http2.grant(open.stream, bytes);
        }
        if story.cancel_at.is_some_and(|at| open.sent >= at) && random.below(3) == 0 {
            self.http2.reset(open.stream, ErrorCode::Cancel);
            return self.close(index, Ending::Cancelled, tally);
        }
        if open.ended || self.http2.queued(open.stream) > QUEUE_BYTES {
            return;
        }
        let size = (1 + random.below(8_000)).min(story.request_bytes - open.sent);
        let payload: Vec<u8> = (open.sent..open.sent + size).map(|at| byte(open.call, false, at)).collect();
        open.sent += size;
        let last = open.sent == story.request_bytes;
        self.http2.send_data(open.stream, &payload, last && !story.request_trailers);
        if last && story.request_trailers {
            let mut trailers = FieldList::new();
            trailers.push(b"x-request-trailer", b"kept");
            self.http2.send_trailers(open.stream, &trailers);
        }
        open.ended = last;
    }

    /// The connection is gone, and with it every call that has no end yet.
    pub(super) fn lost(&mut self, tally: &mut [Tally]) {
        self.is_lost = true;
        for open in self.open.drain(..) {
            tally[open.call].end(Ending::Lost);
        }
        for call in self.to_open.drain(..) {
            tally[call].end(Ending::Lost);
        }
    }
}
