//! The h2 crate's server, told the same bytes, a step at a time: what it has taken so far can be told from what it then refuses.

use crate::opinion::{Opinion, Request, reset_streams, sorted};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, Handshake, SendResponse};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The two directions of a connection that stays open.
#[derive(Clone, Default)]
struct Wire(Rc<RefCell<Bytestreams>>);

#[derive(Default)]
struct Bytestreams {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let input = &mut self.0.borrow_mut().input;
        if input.is_empty() {
            // Who brings more asks again.
            return Poll::Pending;
        }
        let count = input.len().min(buffer.remaining());
        buffer.put_slice(&input[..count]);
        input.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.borrow_mut().output.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Notes that a future wants to be asked again.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks until nothing more can come of what is there.
struct Asking {
    woken: Arc<Woken>,
    waker: Waker,
}

impl Asking {
    fn new() -> Self {
        let woken = Arc::<Woken>::default();
        Self { waker: Arc::clone(&woken).into(), woken }
    }

    fn ready<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            match poll(&mut Context::from_waker(&self.waker)) {
                Poll::Ready(value) => return Some(value),
                Poll::Pending if self.woken.0.load(Ordering::Relaxed) => {}
                Poll::Pending => return None,
            }
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "there is one, and it lives as long as its input")]
enum State {
    Handshake(Handshake<Wire, Bytes>),
    Serving(Connection<Wire, Bytes>),
    /// Refused, or left by its client.
    Over,
}

/// A request under way; dropping its ends would reset the stream.
struct Underway {
    request: Request,
    body: RecvStream,
    _response: SendResponse<Bytes>,
    is_over: bool,
}

/// The server's end of one connection.
pub struct CrateServer {
    wire: Wire,
    asking: Asking,
    state: State,
    underway: Vec<Underway>,
    whole: Vec<Request>,
}

impl CrateServer {
    /// A fresh connection that allows so much.
    pub fn new(max_streams: u32, max_header_list: u32) -> Self {
        let wire = Wire::default();
        let mut builder = Builder::new();
        builder.max_concurrent_streams(max_streams).max_header_list_size(max_header_list);
        // Limits on floods are each server's own: they are tested by themselves.
        builder.max_pending_accept_reset_streams(usize::MAX).max_local_error_reset_streams(None);
        let handshake = builder.handshake(wire.clone());
        Self {
            wire,
            asking: Asking::new(),
            state: State::Handshake(handshake),
            underway: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// Tells it bytes, and gives what it makes of them.
    pub fn tell(&mut self, bytes: &[u8]) -> Opinion {
        self.wire.0.borrow_mut().input.extend(bytes);
        let ended = match self.take() {
            Ok(true) => None,
            // It has said GOAWAY, and all its streams are over.
            Ok(false) => Some(Opinion::ClientLeft),
            Err(error) if error.is_remote() || error.is_io() => Some(Opinion::ClientLeft),
            Err(error) if error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) => Some(Opinion::Flood),
            Err(error) => Some(Opinion::Refused(format!("{:?}", error.reason()))),
        };
        if let Some(opinion) = ended {
            self.state = State::Over;
            return opinion;
        }
        self.read_bodies();
        let output = std::mem::take(&mut self.wire.0.borrow_mut().output);
        match reset_streams(&output).next() {
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

    /// Whether the connection goes on.
    fn take(&mut self) -> Result<bool, h2::Error> {
        if let State::Handshake(handshake) = &mut self.state {
            match self.asking.ready(|context| Pin::new(&mut *handshake).poll(context)) {
                Some(connected) => self.state = State::Serving(connected?),
                None => return Ok(true),
            }
        }
        let State::Serving(connection) = &mut self.state else { return Ok(false) };
        while let Some(next) = self.asking.ready(|context| connection.poll_accept(context)) {
            let Some(next) = next else { return Ok(false) };
            let (request, response) = next?;
            let (parts, body) = request.into_parts();
            let request = Request {
                stream: body.stream_id().as_u32(),
                method: parts.method.as_str().as_bytes().to_vec(),
                fields: pairs(&parts.headers),
                ..Request::default()
            };
            self.underway.push(Underway { request, body, _response: response, is_over: false });
        }
        Ok(true)
    }

    fn read_bodies(&mut self) {
        for one in self.underway.iter_mut().filter(|one| !one.is_over) {
            loop {
                match self.asking.ready(|context| one.body.poll_data(context)) {
                    Some(Some(Ok(part))) => one.request.body.extend(part),
                    Some(Some(Err(_))) => {
                        one.is_over = true;
                        break;
                    }
                    Some(None) => {
                        one.is_over = true;
                        if let Some(Ok(trailers)) =
                            self.asking.ready(|context| one.body.poll_trailers(context))
                        {
                            one.request.trailers = trailers.as_ref().map(pairs);
                            self.whole.push(one.request.clone());
                        }
                        break;
                    }
                    None => break,
                }
            }
        }
    }
}

fn pairs(headers: &http::HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs =
        headers.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()));
    sorted(pairs.collect())
}
