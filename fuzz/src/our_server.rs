//! Our server, told bytes a step at a time.

use crate::http2::{HeadersKind, PREFACE};
use crate::opinion::{Opinion, Request, reset_streams, sorted};
use crate::story::{Heard, Listener};

/// The server's end of one connection, whose owner only listens.
pub struct OurServer {
    listener: Listener,
    /// By token. None: it is over.
    underway: Vec<Option<Request>>,
    whole: Vec<Request>,
}

impl OurServer {
    /// A fresh connection, which has read the client's preface.
    pub fn new() -> Self {
        let mut listener = Listener::server();
        listener.tell(PREFACE).expect("the preface is right");
        Self { listener, underway: Vec::new(), whole: Vec::new() }
    }

    /// Tells it a step that begins with a frame of that stream, and gives what it makes of it.
    pub fn tell(&mut self, bytes: &[u8], stream: u32) -> Opinion {
        let outcome = self.listener.tell(bytes);
        let heard = self.listener.heard();
        // How large a request may be is each server's own measure, too.
        let too_large = |event: &Heard| matches!(event, Heard::Headers(_, HeadersKind::RequestTooLarge, ..));
        if heard.iter().any(too_large) {
            return Opinion::Flood;
        }
        for event in heard {
            self.hear(event, stream);
        }
        if let Err(error) = outcome {
            return match error.flood {
                Some(_) => Opinion::Flood,
                None => Opinion::Refused(error.reason.to_owned()),
            };
        }
        match reset_streams(&self.listener.said()).next() {
            Some((stream, code)) => Opinion::Reset(stream, code),
            None => Opinion::Taken,
        }
    }

    /// Requests that have become whole since the last question, by stream.
    pub fn whole(&mut self) -> Vec<Request> {
        let mut whole = std::mem::take(&mut self.whole);
        whole.sort_by_key(|request| request.stream);
        whole
    }

    fn hear(&mut self, event: Heard, stream: u32) {
        match event {
            Heard::Headers(token, HeadersKind::Request | HeadersKind::Connect, ends, fields) => {
                let method = fields.iter().find(|(name, _)| name == b":method");
                let method = method.map(|(_, value)| value.clone()).unwrap_or_default();
                let request = Request { stream, method, fields: regular(fields), ..Request::default() };
                self.underway.resize(self.underway.len().max(token as usize + 1), None);
                self.underway[token as usize] = Some(request);
                self.end(token, ends);
            }
            Heard::Headers(token, HeadersKind::Trailers, _, fields) => {
                if let Some(request) = self.of(token) {
                    request.trailers = Some(regular(fields));
                }
                self.end(token, true);
            }
            Heard::Data(token, bytes, ends) => {
                if let Some(request) = self.of(token) {
                    request.body.extend(bytes);
                }
                self.end(token, ends);
            }
            Heard::Reset(token, ..) => drop(self.underway.get_mut(token as usize).and_then(Option::take)),
            _ => {}
        }
    }

    fn of(&mut self, token: u32) -> Option<&mut Request> {
        self.underway.get_mut(token as usize)?.as_mut()
    }

    fn end(&mut self, token: u32, ends: bool) {
        if ends {
            self.whole.extend(self.underway.get_mut(token as usize).and_then(Option::take));
        }
    }
}

impl Default for OurServer {
    fn default() -> Self {
        Self::new()
    }
}

/// Fields that are not pseudo-header fields.
fn regular(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    sorted(fields.into_iter().filter(|(name, _)| !name.starts_with(b":")).collect())
}
