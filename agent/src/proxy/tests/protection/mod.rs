//! What a source of calls may cost, on the engine alone: memory, time, calls and connections; and that nobody else pays.

mod circuits;
mod memory;
mod room;
mod stalls;

use super::super::shared_use::Ledger;
use super::super::{ConnId, Origin};
use super::turns::{START_NS, Turns, list, read, take};
use super::{fixed, pod_named};
use crate::http2::{Connection, ErrorCode, Event, HeadersKind, LastStream, Limits, Name, StreamKey};
use crate::mesh::{CircuitLimits, Protection};

const SECOND_NS: u64 = 1_000_000_000;
const MIB: u64 = 1 << 20;

/// A client of its own.
pub(super) struct Client {
    pub(super) conn: ConnId,
    pub(super) http2: Connection,
}

/// What a client was told of its streams, in the order in which it heard it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Status(String, String),
    Reset(ErrorCode),
}

impl Client {
    pub(super) fn connect(turns: &mut Turns, origin: Origin) -> Self {
        Self::with_window(turns, origin, Limits::default().stream_window)
    }

    /// Its streams take so much before it gives any credit.
    fn with_window(turns: &mut Turns, origin: Origin, stream_window: u32) -> Self {
        let conn = turns.engine.accepted(origin, fixed()).expect("the destination is known");
        let http2 = Connection::client(&Limits { stream_window, ..Limits::default() });
        let mut client = Self { conn, http2 };
        client.speak(turns);
        client
    }

    pub(super) fn of_pod(turns: &mut Turns, name: &str, cookie: u64) -> Self {
        Self::connect(turns, Origin::Pod(pod_named(name, cookie)))
    }

    pub(super) fn call(&mut self, turns: &mut Turns) -> StreamKey {
        let fields = list(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a"),
            ("content-type", "application/grpc"),
        ]);
        let stream = self.http2.open(&fields, true, 0).expect("there is room");
        self.speak(turns);
        stream
    }

    /// A call that is not gRPC's, whose request goes on unless it `ends`.
    fn plain_call(&mut self, turns: &mut Turns, ends: bool) -> StreamKey {
        let fields = list(&[(":method", "POST"), (":scheme", "http"), (":path", "/a")]);
        let stream = self.http2.open(&fields, ends, 0).expect("there is room");
        self.speak(turns);
        stream
    }

    fn speak(&mut self, turns: &mut Turns) {
        let bytes = take(&mut self.http2);
        turns.feed(self.conn, &bytes);
        turns.settle();
    }

    /// Reads everything, and gives credit for none of it.
    pub(super) fn told(&mut self, turns: &mut Turns) -> Vec<Told> {
        let mut told = Vec::new();
        let bytes = without_data(&turns.output(self.conn));
        read(&mut self.http2, &bytes, |event, fields| match event {
            Event::Headers { .. } => {
                let text = |name| String::from_utf8_lossy(fields.find(name).unwrap_or_default()).into_owned();
                if fields.find(Name::GrpcStatus).is_some() {
                    told.push(Told::Status(text(Name::GrpcStatus), text(Name::GrpcMessage)));
                }
            }
            Event::Reset { code, .. } => told.push(Told::Reset(code)),
            _ => {}
        });
        told
    }
}

/// Frames that are no DATA: a client that counts what it gets would not let itself be sent more than its window.
fn without_data(mut bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let [a, b, c, kind, ..] = *bytes {
        let (frame, rest) = bytes.split_at(9 + u32::from_be_bytes([0, a, b, c]) as usize);
        if kind != 0 {
            kept.extend_from_slice(frame);
        }
        bytes = rest;
    }
    kept
}

/// What the client's source is charged.
fn held(turns: &Turns, client: &Client) -> u64 {
    let budget = turns.engine.conns.budget(client.conn);
    turns.engine.budgets.held().find(|(index, _)| *index == budget).expect("it has one").1
}

/// What is closed now, but for the client that the turns began with: it has not a word to say.
fn closed(turns: &Turns) -> Vec<(ConnId, bool)> {
    turns.closed.iter().copied().filter(|(conn, _)| *conn != turns.client_conn).collect()
}

fn requests(turns: &mut Turns, conn: ConnId, server: &mut Connection) -> Vec<StreamKey> {
    let mut streams = Vec::new();
    let bytes = turns.output(conn);
    read(server, &bytes, |event, _| {
        if let Event::Headers { stream, kind: HeadersKind::Request, .. } = event {
            streams.push(stream);
        }
    });
    streams
}

/// What the server has to say reaches the engine, as far as windows let it.
fn speak(turns: &mut Turns, conn: ConnId, server: &mut Connection) {
    for _ in 0..100 {
        let bytes = take(server);
        turns.feed(conn, &bytes);
        turns.settle();
        requests(turns, conn, server);
        if !server.wants_advance() {
            return;
        }
        server.advance(&mut Vec::new());
    }
}

fn answer(turns: &mut Turns, conn: ConnId, server: &mut Connection, stream: StreamKey) {
    server.send_headers(stream, &list(&[(":status", "200"), ("grpc-status", "0")]), true);
    speak(turns, conn, server);
}

pub(super) fn status(code: &str, message: &str) -> Told {
    Told::Status(code.to_owned(), message.to_owned())
}

fn ok() -> Told {
    status("0", "")
}

fn circuit(calls: u32, pending: u32, connections: u32) -> Protection {
    let circuit = CircuitLimits { calls, pending, connections };
    Protection { circuit, ..Protection::default() }
}
