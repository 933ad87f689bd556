//! What the tests share: header lists by text, events that own their bytes, and two connections joined in memory.

use crate::http2::{Connection, ConnectionError, ErrorCode, Event, FieldList, HeadersKind, StreamKey};

pub(super) type Pairs = Vec<(String, String)>;

pub(super) fn list(fields: &[(&str, &str)]) -> FieldList {
    let mut list = FieldList::new();
    for (name, value) in fields {
        list.push(name.as_bytes(), value.as_bytes());
    }
    list
}

pub(super) fn request(path: &str) -> FieldList {
    list(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("te", "trailers"),
    ])
}

pub(super) fn response() -> FieldList {
    list(&[(":status", "200"), ("content-type", "application/grpc")])
}

pub(super) fn trailers() -> FieldList {
    list(&[("grpc-status", "0"), ("grpc-message", "")])
}

pub(super) fn pairs(list: &FieldList) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    list.iter().map(|field| (text(field.name), text(field.value))).collect()
}

/// An event with what it borrowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Headers { stream: StreamKey, token: u32, kind: HeadersKind, end_stream: bool, fields: Pairs },
    Data { stream: StreamKey, token: u32, payload: Vec<u8>, end_stream: bool },
    Reset { stream: StreamKey, token: u32, code: ErrorCode, by_peer: bool },
    GoAway { last_stream: u32, code: ErrorCode },
    Refused { stream: StreamKey, token: u32 },
    Settings,
    Pong([u8; 8]),
}

/// Feeds `bytes` as one read, behind what the connection kept.
pub(super) fn feed(connection: &mut Connection, bytes: &[u8]) -> Result<Vec<Seen>, ConnectionError> {
    let mut seen = Vec::new();
    feed_each(connection, bytes, |_, event| seen.push(event))?;
    Ok(seen)
}

/// The same, with each event told as it comes, for an owner that acts on it before the next.
pub(super) fn feed_each(
    connection: &mut Connection,
    bytes: &[u8],
    mut tell: impl FnMut(&mut Connection, Seen),
) -> Result<(), ConnectionError> {
    let mut buffer = vec![0; 16_393 + bytes.len()];
    let held = connection.restore(&mut buffer);
    buffer[held..held + bytes.len()].copy_from_slice(bytes);
    let mut input = &buffer[..held + bytes.len()];
    let mut fields = FieldList::new();
    while let Some(event) = connection.receive(&mut input, &mut fields)? {
        let seen = match event {
            Event::Headers { stream, token, kind, end_stream } => {
                Seen::Headers { stream, token, kind, end_stream, fields: pairs(&fields) }
            }
            Event::Data { stream, token, payload, end_stream } => {
                Seen::Data { stream, token, payload: payload.to_vec(), end_stream }
            }
            Event::Reset { stream, token, code, by_peer } => Seen::Reset { stream, token, code, by_peer },
            Event::GoAway { last_stream, code } => Seen::GoAway { last_stream, code },
            Event::Refused { stream, token } => Seen::Refused { stream, token },
            Event::Settings => Seen::Settings,
            Event::Pong(payload) => Seen::Pong(payload),
        };
        tell(connection, seen);
    }
    connection.keep(input);
    Ok(())
}

/// Takes all that a connection has to say.
pub(super) fn drain(connection: &mut Connection) -> Vec<u8> {
    let bytes = connection.output().to_vec();
    connection.sent(bytes.len());
    bytes
}

/// One way across: what `from` has to say, heard by `to`.
pub(super) fn carry(from: &mut Connection, to: &mut Connection) -> Vec<Seen> {
    let bytes = drain(from);
    feed(to, &bytes).expect("both keep to the protocol")
}
