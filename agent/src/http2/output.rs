//! What waits for the socket: frames, one behind the other.

use super::error::{ErrorCode, Fault, Flood};
use super::frame::{FrameHeader, HEADER_LEN, MAX_PAYLOAD, flag, kind};

/// Frames that only answer the peer's (acknowledgements, stream errors) and wait for it to read: a peer that sends and
/// never reads would grow them without end (CVE-2019-9512, -9514, -9515). More than any burst of cancelled calls.
const MAX_UNSENT_REPLIES: u32 = 4_096;
/// Sent bytes in front are cut off when they are as many as that; less often means less copying.
const COMPACT_BYTES: usize = 64 << 10;
/// The output of a connection without streams keeps this much memory.
const KEPT_BYTES: usize = 32 << 10;

/// And of one with streams: what the worker fills in a turn.
const MOST_KEPT_BYTES: usize = 512 << 10;

#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// So many of them are at the socket already.
    sent: usize,
    /// Replies since `replies_from`.
    replies: u32,
    /// Where the first counted reply ends in `bytes`: once that is sent, counting starts again.
    replies_from: usize,
}

impl Output {
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn sent(&mut self, bytes: usize, is_idle: bool) {
        self.sent = (self.sent + bytes).min(self.bytes.len());
        if self.sent >= self.replies_from {
            self.replies = 0;
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            // A busy one would only grow again, and copy with each step.
            self.bytes.shrink_to(if is_idle { KEPT_BYTES } else { MOST_KEPT_BYTES });
            (self.sent, self.replies_from) = (0, 0);
        } else if self.sent >= COMPACT_BYTES && self.sent * 2 >= self.bytes.len() {
            self.bytes.drain(..self.sent);
            self.replies_from = self.replies_from.saturating_sub(self.sent);
            self.sent = 0;
        }
    }

    /// Lets go of the memory of what has been sent.
    pub(super) fn trim(&mut self) {
        if self.len() == 0 {
            *self = Self::default();
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let header = FrameHeader { length: payload.len(), kind, flags, stream };
        self.bytes.reserve(HEADER_LEN + payload.len());
        self.bytes.extend_from_slice(&header.to_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// A frame that only answers one of the peer's.
    pub(super) fn reply(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Fault> {
        self.frame(kind, flags, stream, payload);
        if self.replies == 0 {
            self.replies_from = self.bytes.len();
        }
        self.replies += 1;
        if self.replies > MAX_UNSENT_REPLIES {
            return Err(Fault::flood(Flood::Unread, "makes us answer and does not read"));
        }
        Ok(())
    }

    pub(super) fn data(&mut self, stream: u32, payload: &[u8], end_stream: bool) {
        let flags = if end_stream { flag::END_STREAM } else { 0 };
        self.frame(kind::DATA, flags, stream, payload);
    }

    pub(super) fn rst_stream(&mut self, stream: u32, code: ErrorCode) {
        self.frame(kind::RST_STREAM, 0, stream, &code.to_wire().to_be_bytes());
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) {
        self.frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes());
    }

    pub(super) fn go_away(&mut self, last_stream: u32, code: ErrorCode, reason: &str) {
        let mut payload = Vec::with_capacity(8 + reason.len());
        payload.extend_from_slice(&last_stream.to_be_bytes());
        payload.extend_from_slice(&code.to_wire().to_be_bytes());
        payload.extend_from_slice(reason.as_bytes());
        self.frame(kind::GOAWAY, 0, 0, &payload);
    }

    /// A header list: HEADERS, and CONTINUATION for what does not fit in. `encode` writes the block.
    pub(super) fn headers(&mut self, stream: u32, end_stream: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_LEN]);
        encode(&mut self.bytes);
        let length = self.bytes.len() - at - HEADER_LEN;
        let end_stream = if end_stream { flag::END_STREAM } else { 0 };
        if length <= MAX_PAYLOAD {
            let flags = flag::END_HEADERS | end_stream;
            let header = FrameHeader { length, kind: kind::HEADERS, flags, stream };
            self.bytes[at..at + HEADER_LEN].copy_from_slice(&header.to_bytes());
            return;
        }
        let block = self.bytes.split_off(at + HEADER_LEN);
        self.bytes.truncate(at);
        let pieces = block.len().div_ceil(MAX_PAYLOAD);
        for (i, piece) in block.chunks(MAX_PAYLOAD).enumerate() {
            let (kind, flags) = if i == 0 { (kind::HEADERS, end_stream) } else { (kind::CONTINUATION, 0) };
            let last = if i + 1 == pieces { flag::END_HEADERS } else { 0 };
            self.frame(kind, flags | last, stream, piece);
        }
    }
}
