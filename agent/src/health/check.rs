//! One question of gRPC's health checking protocol, `grpc.health.v1.Health/Check`, on the h2 crate: it is the agent's own call, and no
//! pod's.

use crate::mesh::CheckAnswer;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Request};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer that takes longer says nothing.
const WITHIN: Duration = Duration::from_secs(2);

/// The message is two bytes; what is much longer is none.
const MOST_BYTES: usize = 4 << 10;

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It serves, or does not know of health checks.
    Serving,
    /// It says that it does not, in these words.
    NotServing(String),
    /// Nothing can be told, because of this.
    None(String),
}

impl Answer {
    /// Which it is, without its words.
    pub(super) fn kind(&self) -> CheckAnswer {
        match self {
            Self::Serving => CheckAnswer::Serving,
            Self::NotServing(_) => CheckAnswer::NotServing,
            Self::None(_) => CheckAnswer::NoAnswer,
        }
    }
}

/// Asks the server at the address for a service's health; empty: for its own.
pub(super) async fn check(address: SocketAddr, service: &str) -> Answer {
    match timeout(WITHIN, ask(address, service)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(cause)) => Answer::None(cause.to_string()),
        Err(_) => Answer::None(format!("no answer within {} s", WITHIN.as_secs())),
    }
}

#[derive(Debug)]
enum Failed {
    Io(std::io::Error),
    Http2(h2::Error),
    Http(http::Error),
    TooLong,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Http2(error) => error.fmt(f),
            Self::Http(error) => error.fmt(f),
            Self::TooLong => write!(f, "its answer is longer than {MOST_BYTES} bytes"),
        }
    }
}

async fn ask(address: SocketAddr, service: &str) -> Result<Answer, Failed> {
    let stream = TcpStream::connect(address).await.map_err(Failed::Io)?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(Failed::Http2)?;
    let exchange = async {
        let mut sender = sender.ready().await.map_err(Failed::Http2)?;
        let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(Failed::Http)?;
        let (response, mut body) = sender.send_request(request, false).map_err(Failed::Http2)?;
        body.send_data(request_message(service), true).map_err(Failed::Http2)?;
        let response = response.await.map_err(Failed::Http2)?;
        let status = response.status();
        if let Some(status) = grpc_status(response.headers()) {
            return Ok(judge(Some(status), &[]));
        }
        let mut body = response.into_body();
        let message = read(&mut body).await?;
        let trailers = body.trailers().await.map_err(Failed::Http2)?.unwrap_or_default();
        match grpc_status(&trailers) {
            None => Ok(Answer::None(format!("HTTP status {status} without a grpc-status"))),
            status => Ok(judge(status, &message)),
        }
    };
    tokio::select! {
        answer = exchange => answer,
        // It drives the other one, and ends only when the server hangs up.
        ended = connection => ended.map_err(Failed::Http2).map(|()| Answer::None("it hung up".into())),
    }
}

async fn read(body: &mut RecvStream) -> Result<Vec<u8>, Failed> {
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(Failed::Http2)?;
        if message.len() + piece.len() > MOST_BYTES {
            return Err(Failed::TooLong);
        }
        message.extend_from_slice(&piece);
        // A stream's window is far larger than what is taken.
        let _ = body.flow_control().release_capacity(piece.len());
    }
    Ok(message)
}

fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckRequest { service = 1 }`, in gRPC's frame.
fn request_message(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        // A field of bytes: its number and type, its length (a varint), itself.
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

fn put_varint(into: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        into.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

/// gRPC's health checking protocol: OK comes with a status of its own, of which SERVING is 1; NOT_FOUND is a service that the
/// server does not know; who does not implement it counts as well.
fn judge(grpc_status: Option<u8>, framed: &[u8]) -> Answer {
    match grpc_status {
        Some(0) => match serving_status(framed) {
            Some(1) => Answer::Serving,
            Some(2) => Answer::NotServing("NOT_SERVING".into()),
            other => Answer::None(format!("the serving status is {other:?}")),
        },
        Some(5) => Answer::None("the server does not know the service: see the annotation".into()),
        Some(12) => Answer::Serving,
        Some(status) => Answer::NotServing(format!("grpc-status {status}")),
        None => Answer::None("there is no grpc-status".into()),
    }
}

/// `HealthCheckResponse { status = 1 }`, in gRPC's frame; `None` if it is none. A field that is not there is 0.
fn serving_status(mut framed: &[u8]) -> Option<u8> {
    let compressed = framed.try_get_u8().ok()?;
    let length = framed.try_get_u32().ok()? as usize;
    match framed.get(..length)? {
        _ if compressed != 0 => None,
        [] => Some(0),
        [0x08, status @ 0..0x80] => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_names_the_service() {
        assert_eq!(request_message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(request_message("cart")[..], *b"\0\0\0\0\x06\x0a\x04cart");
        let long = "s".repeat(200);
        let message = request_message(&long);
        assert_eq!(message[..8], [0, 0, 0, 0, 203, 0x0a, 200 | 0x80, 1]);
        assert_eq!(message.len(), 208);
    }

    #[test]
    fn answers_are_judged_as_the_protocol_says() {
        let serving: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
        let not_serving: &[u8] = &[0, 0, 0, 0, 2, 8, 2];
        assert_eq!(judge(Some(0), serving), Answer::Serving);
        assert_eq!(judge(Some(0), not_serving), Answer::NotServing("NOT_SERVING".into()));
        assert_eq!(judge(Some(12), &[]), Answer::Serving);
        assert_eq!(judge(Some(14), &[]), Answer::NotServing("grpc-status 14".into()));
        // UNKNOWN, a service that is unknown, and what is no answer at all.
        for (status, message) in [
            (Some(0), &[0, 0, 0, 0, 0][..]),
            (Some(0), &[0, 0, 0, 0, 2, 8, 3]),
            (Some(0), &[1, 0, 0, 0, 2, 8, 2]),
            (Some(0), &[0, 0, 0, 0, 9, 8, 2]),
            (Some(0), &[0, 0]),
            (Some(0), &[0, 0, 0, 0, 2, 8, 0x82]),
            (Some(5), &[]),
            (None, serving),
        ] {
            assert!(matches!(judge(status, message), Answer::None(_)), "{status:?} {message:?}");
        }
    }
}
