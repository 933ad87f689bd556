//! The h2 crate's server, told the same bytes.

use bytes::Bytes;
use h2::server::{Builder, Connection};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Times that a future is asked before nothing more can come of the input: it is there from the start.
const MOST_TURNS: usize = 16;

/// A request with all that belongs to it, and nothing that only one of two servers would tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `:method`.
    pub method: Vec<u8>,
    /// The fields that are not pseudo-header fields: by name, and of one name in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// Body bytes.
    pub body: Vec<u8>,
    /// Trailers, if there were any.
    pub trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    /// END_STREAM came.
    pub is_whole: bool,
}

/// What became of the input.
#[derive(Debug)]
pub struct Told {
    /// In the order in which they were begun.
    pub requests: Vec<Request>,
    /// The error code with which the server ended the connection.
    pub refused: Option<h2::Reason>,
    /// The client said GOAWAY with an error, which this server takes for the end.
    pub client_left: bool,
}

/// The input, then the end of the stream; what is written goes nowhere.
struct Script<'i>(&'i [u8]);

impl AsyncRead for Script<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let (now, later) = self.0.split_at(self.0.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Tells the crate's server the input, the client's preface included.
pub fn tell(input: &[u8], max_streams: u32, max_header_list: u32) -> Told {
    let mut told = Told { requests: Vec::new(), refused: None, client_left: false };
    let mut builder = Builder::new();
    builder.max_concurrent_streams(max_streams).max_header_list_size(max_header_list);
    // Limits on floods are each server's own: they are tested by themselves.
    builder.max_pending_accept_reset_streams(usize::MAX).max_local_error_reset_streams(None);
    let mut context = Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(builder.handshake::<_, Bytes>(Script(input)));
    let Some(connected) = ready(|| handshake.as_mut().poll(&mut context)) else { return told };
    match connected {
        Ok(mut connection) => serve(&mut connection, &mut context, &mut told),
        Err(error) => told.end(&error),
    }
    told
}

fn serve(connection: &mut Connection<Script<'_>, Bytes>, context: &mut Context<'_>, told: &mut Told) {
    let mut accepted = Vec::new();
    while let Some(Some(next)) = ready(|| connection.poll_accept(context)) {
        match next {
            Ok((request, respond)) => accepted.push((request, respond)),
            Err(error) => {
                told.end(&error);
                break;
            }
        }
    }
    for (request, _respond) in accepted {
        let (parts, mut body) = request.into_parts();
        let mut bytes = Vec::new();
        let mut is_whole = true;
        while let Some(Some(part)) = ready(|| body.poll_data(context)) {
            match part {
                Ok(part) => bytes.extend(part),
                Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        let trailers = match ready(|| body.poll_trailers(context)) {
            Some(Ok(trailers)) => trailers.as_ref().map(pairs),
            Some(Err(_)) | None => {
                is_whole = false;
                None
            }
        };
        told.requests.push(Request {
            method: parts.method.as_str().as_bytes().to_vec(),
            fields: pairs(&parts.headers),
            body: bytes,
            trailers,
            is_whole,
        });
    }
}

impl Told {
    fn end(&mut self, error: &h2::Error) {
        if error.is_remote() {
            self.client_left = true;
        } else if !error.is_io() {
            self.refused = error.reason();
        }
    }
}

/// Asks again while the answer is to come: it needs more turns, and never another's doing.
fn ready<T>(mut poll: impl FnMut() -> Poll<T>) -> Option<T> {
    for _ in 0..MOST_TURNS {
        if let Poll::Ready(value) = poll() {
            return Some(value);
        }
    }
    None
}

fn pairs(headers: &http::HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs =
        headers.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()));
    let mut pairs: Vec<_> = pairs.collect();
    // Stable: values of one name stay in order.
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}
