//! One end of a connection, told any bytes at all: what its owner hears, and what it says.

use crate::http2::{
    Connection, ConnectionError, ErrorCode, Event, FieldList, HeadersKind, LastStream, Limits, PREFACE,
    StreamKey,
};
use crate::pieces::pieces;

/// What no input of a megabyte may make a connection hold: some buffers' worth, and never the input over and over.
const MOST_HELD_BYTES: usize = 8 << 20;
/// Streams that a client may have open, so that few frames reach the limit.
const MAX_STREAMS: u32 = 10;
/// Streams that our client has open when the bytes come.
const OPEN_STREAMS: u32 = 3;
const FRAME_HEADER: usize = 9;
const MAX_FRAME: usize = 16_384;

/// Which end of the connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepted; the client's preface is put in front of the input.
    Server,
    /// It connected, and has asked for something.
    Client,
}

/// What the owner heard, by value; pieces of a body that follow each other are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A header list.
    Headers(u32, HeadersKind, bool, Vec<(Vec<u8>, Vec<u8>)>),
    /// A body's bytes.
    Data(u32, Vec<u8>, bool),
    /// A stream's end before its time.
    Reset(u32, ErrorCode, bool),
    /// GOAWAY.
    GoAway(u32, ErrorCode),
    /// A stream that was never processed.
    Refused(u32),
    /// SETTINGS.
    Settings,
    /// The answer to a PING.
    Pong([u8; 8]),
}

/// All of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Story {
    /// In order.
    pub heard: Vec<Heard>,
    /// How the peer broke the connection, if it did.
    pub end: Option<ConnectionError>,
    /// Streams of the peer that broke a rule or were refused.
    pub faults: u32,
}

/// What must hold whatever comes: nothing panics, memory is bounded, only whole frames go out, and an owner that only listens
/// hears the same however the input is cut.
pub fn check(role: Role, cut: u8, input: &[u8]) {
    let whole = live(role, 0, input, false);
    let in_pieces = live(role, cut, input, false);
    assert_eq!(whole.end, in_pieces.end, "the end depends on how the input is cut");
    if whole.end.is_none() {
        assert_eq!(whole.heard, in_pieces.heard, "what is heard depends on how the input is cut");
    }
    live(role, cut, input, true);
}

/// Feeds the input to a fresh end. An owner that `answers` sends back what it gets, gives credit and ends streams.
pub fn live(role: Role, cut: u8, input: &[u8], answers: bool) -> Story {
    let mut owner = Owner::new(role, &limits(), answers);
    let preface: &[u8] = if role == Role::Server { PREFACE } else { &[] };
    let sent = [preface, input].concat();
    let mut buffer = Vec::new();
    for piece in pieces(&sent, cut) {
        if let Err(error) = owner.take(piece, &mut buffer) {
            owner.story.end = Some(error);
            break;
        }
    }
    owner.story.faults = owner.connection.take_faults();
    owner.leave();
    owner.story
}

/// What a connection of these targets may cost.
pub fn limits() -> Limits {
    Limits { max_concurrent_streams: MAX_STREAMS, ..Limits::default() }
}

/// One end of a connection whose owner only listens, told bytes a piece at a time.
pub struct Listener {
    owner: Owner,
    buffer: Vec<u8>,
}

impl Listener {
    /// The server's end.
    pub fn server() -> Self {
        Self { owner: Owner::new(Role::Server, &limits(), false), buffer: Vec::new() }
    }

    /// Tells it bytes.
    ///
    /// # Errors
    /// When they break the connection.
    pub fn tell(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        self.owner.take(bytes, &mut self.buffer)
    }

    /// What its owner has heard since the last question.
    pub fn heard(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.owner.story.heard)
    }

    /// What it has said since the last question.
    pub fn said(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.owner.said)
    }
}

struct Owner {
    connection: Connection,
    answers: bool,
    fields: FieldList,
    reply: FieldList,
    trailers: FieldList,
    /// Streams that are ours to release, by the token that they have.
    streams: Vec<Option<StreamKey>>,
    story: Story,
    preface_is_out: bool,
    /// Frames that went out.
    said: Vec<u8>,
}

impl Owner {
    fn new(role: Role, limits: &Limits, answers: bool) -> Self {
        let mut owner = Self {
            connection: match role {
                Role::Server => Connection::server(limits),
                Role::Client => Connection::client(limits),
            },
            answers,
            fields: FieldList::new(),
            reply: list(&[(":status", "200"), ("content-type", "application/grpc")]),
            trailers: list(&[("grpc-status", "0")]),
            streams: Vec::new(),
            story: Story { heard: Vec::new(), end: None, faults: 0 },
            preface_is_out: role == Role::Server,
            said: Vec::new(),
        };
        if role == Role::Client {
            let request =
                list(&[(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "b")]);
            for token in 0..OPEN_STREAMS {
                let stream = owner.connection.open(&request, false, token).expect("a fresh connection");
                owner.streams.push(Some(stream));
            }
        }
        owner
    }

    /// Takes a piece of the input, behind what was kept of earlier ones, and says what there is to say.
    fn take(&mut self, piece: &[u8], buffer: &mut Vec<u8>) -> Result<(), ConnectionError> {
        buffer.resize(MAX_FRAME + FRAME_HEADER + piece.len(), 0);
        let held = self.connection.restore(buffer);
        buffer[held..held + piece.len()].copy_from_slice(piece);
        let outcome = self.read(&buffer[..held + piece.len()]);
        self.write();
        outcome
    }

    fn read(&mut self, mut input: &[u8]) -> Result<(), ConnectionError> {
        let mut fields = std::mem::take(&mut self.fields);
        let outcome = loop {
            match self.connection.receive(&mut input, &mut fields) {
                Ok(Some(event)) => self.hear(event, &fields),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            let held = self.connection.held_bytes();
            assert!(held < MOST_HELD_BYTES, "the connection holds {held} bytes");
        };
        self.fields = fields;
        if outcome.is_ok() {
            self.connection.keep(input);
        }
        outcome
    }

    fn hear(&mut self, event: Event<'_>, fields: &FieldList) {
        let heard = match event {
            Event::Headers { stream, token, kind, end_stream } => {
                let token = self.known(stream, token, kind);
                if self.answers {
                    self.answer_headers(stream, kind, end_stream, fields);
                }
                let pairs = fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec()));
                Heard::Headers(token, kind, end_stream, pairs.collect())
            }
            Event::Data { stream, token, payload, end_stream } => {
                if self.answers {
                    let written = self.connection.send_data(stream, payload, end_stream);
                    self.connection.grant(stream, written as u32);
                }
                Heard::Data(token, payload.to_vec(), end_stream)
            }
            Event::Reset { stream, token, code, by_peer } => {
                self.release(stream, token);
                Heard::Reset(token, code, by_peer)
            }
            Event::GoAway { last_stream, code } => Heard::GoAway(last_stream, code),
            Event::Refused { stream, token } => {
                self.release(stream, token);
                Heard::Refused(token)
            }
            Event::Settings => Heard::Settings,
            Event::Pong(payload) => Heard::Pong(payload),
        };
        match (heard, self.story.heard.last_mut()) {
            (Heard::Data(token, bytes, ends), Some(Heard::Data(last, before, before_ends)))
                if token == *last && !*before_ends =>
            {
                before.extend(bytes);
                *before_ends = ends;
            }
            (heard, _) => self.story.heard.push(heard),
        }
    }

    /// A stream's token; a stream that has just come gets one.
    fn known(&mut self, stream: StreamKey, token: u32, kind: HeadersKind) -> u32 {
        if !matches!(kind, HeadersKind::Request | HeadersKind::Connect | HeadersKind::RequestTooLarge) {
            return token;
        }
        let token = self.streams.len() as u32;
        self.streams.push(Some(stream));
        self.connection.set_token(stream, token);
        token
    }

    fn answer_headers(&mut self, stream: StreamKey, kind: HeadersKind, end_stream: bool, fields: &FieldList) {
        match kind {
            HeadersKind::Request => self.connection.send_headers(stream, &self.reply, end_stream),
            HeadersKind::Connect => self.connection.reset(stream, ErrorCode::Cancel),
            HeadersKind::RequestTooLarge => self.connection.send_headers(stream, &self.reply, true),
            HeadersKind::Trailers => self.connection.send_trailers(stream, fields),
            HeadersKind::Response => {
                self.connection.send_data(stream, b"more", false);
                self.connection.send_trailers(stream, &self.trailers);
            }
            HeadersKind::Informational => {}
        }
    }

    fn release(&mut self, stream: StreamKey, token: u32) {
        let ours = self.streams.get_mut(token as usize).and_then(Option::take);
        assert_eq!(ours, Some(stream), "an event of a stream that is not there");
        self.connection.release(stream);
    }

    /// Everything that is to be said goes out, and it is whole frames.
    fn write(&mut self) {
        let mut progress = Vec::new();
        loop {
            let mut output = self.connection.output();
            if !self.preface_is_out {
                output = output.strip_prefix(PREFACE).expect("a client begins with the preface");
                self.preface_is_out = true;
            }
            self.said.extend(output);
            while !output.is_empty() {
                let (header, rest) = output.split_at(FRAME_HEADER.min(output.len()));
                assert_eq!(header.len(), FRAME_HEADER, "half a frame header went out");
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
                assert!(length <= MAX_FRAME && length <= rest.len(), "a frame of {length} bytes went out");
                output = &rest[length..];
            }
            let bytes = self.connection.output().len();
            self.connection.sent(bytes);
            if !self.connection.wants_advance() {
                return;
            }
            progress.clear();
            self.connection.advance(&mut progress);
            for step in &progress {
                self.connection.grant(step.stream, step.bytes);
            }
        }
    }

    /// The owner goes as it would when its clients have gone.
    fn leave(&mut self) {
        self.connection.go_away(ErrorCode::NoError, LastStream::Seen);
        for stream in self.streams.drain(..).flatten() {
            self.connection.release(stream);
        }
        assert_eq!(self.connection.open_streams(), 0, "a stream is left over");
    }
}

/// A header list of text.
pub fn list(fields: &[(&str, &str)]) -> FieldList {
    let mut list = FieldList::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}
