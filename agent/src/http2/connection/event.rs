//! What a connection tells its owner, and what it answers.

use std::fmt;

use crate::http2::error::ErrorCode;
use crate::http2::stream::StreamKey;

/// What arrived.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Event<'i> {
    /// A header list; it is in the [`FieldList`](crate::http2::FieldList) given to `receive`. With
    /// [`HeadersKind::Request`], and its like, the stream is just made: give it a token.
    Headers {
        /// The stream.
        stream: StreamKey,
        /// The owner's token.
        token: u32,
        /// What the list is.
        kind: HeadersKind,
        /// Nothing follows from the peer on this stream.
        end_stream: bool,
    },
    /// Part of a body. A DATA frame may come in several pieces; its padding is left out and accounted for already, and
    /// so is the connection's credit. The stream's credit comes back with `grant`.
    Data {
        /// The stream.
        stream: StreamKey,
        /// The owner's token.
        token: u32,
        /// Bytes of the body; may be empty when the stream ends with it.
        payload: &'i [u8],
        /// Nothing follows from the peer on this stream.
        end_stream: bool,
    },
    /// The stream is over, both halves.
    Reset {
        /// The stream.
        stream: StreamKey,
        /// The owner's token.
        token: u32,
        /// Why.
        code: ErrorCode,
        /// False: the peer broke the stream's rules and has been sent RST_STREAM with this code.
        by_peer: bool,
    },
    /// The peer is going away. In the client's role an [`Event::Refused`] follows for each open stream above `last_stream`.
    GoAway {
        /// The highest stream that the peer may have processed.
        last_stream: u32,
        /// Why.
        code: ErrorCode,
    },
    /// The peer never processed this stream (it is above GOAWAY's last): safe to retry elsewhere. It is closed.
    Refused {
        /// The stream.
        stream: StreamKey,
        /// The owner's token.
        token: u32,
    },
    /// The peer's SETTINGS, or its acknowledgement of ours, were taken in: more streams may fit.
    Settings,
    /// The answer to a `ping`.
    Pong([u8; 8]),
}

/// Which of a message's header lists it is.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum HeadersKind {
    /// A request's (server role).
    Request,
    /// A CONNECT request's (server role).
    Connect,
    /// A request's that is larger than the limits: the list is cut short. For an answer of the owner's own.
    RequestTooLarge,
    /// A 1xx response's (client role); the final one follows.
    Informational,
    /// The final response's (client role).
    Response,
    /// Trailers, behind the body.
    Trailers,
}

/// What [`advance`](crate::http2::Connection::advance) wrote of a stream's queue.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The stream.
    pub stream: StreamKey,
    /// The owner's token.
    pub token: u32,
    /// Bytes that left the queue.
    pub bytes: u32,
    /// Everything is out, END_STREAM included.
    pub finished: bool,
}

/// Which streams a GOAWAY of ours still lets through.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum LastStream {
    /// All: the graceful notice of RFC 9113 §6.8 (2^31 - 1).
    Max,
    /// Those seen so far.
    Seen,
}

/// Why a stream cannot be opened on this connection (another one can serve).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub enum OpenError {
    /// As many are open as the peer allows.
    AtPeerLimit,
    /// A GOAWAY came or went.
    GoingAway,
    /// Stream identifiers are used up.
    IdsExhausted,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtPeerLimit => "the peer allows no further stream",
            Self::GoingAway => "the connection is going away",
            Self::IdsExhausted => "the connection has used up its stream identifiers",
        })
    }
}

impl std::error::Error for OpenError {}
