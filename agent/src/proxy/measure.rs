//! What a call leaves behind: how much went each way, when, and how it ended. A few integers in the call, filled in by the files
//! that it passes; [`super::finish`] hands them on.

use super::call::Call;
use crate::telemetry::{CallStats, Flag, MethodId, Status};

/// What has been seen of a call so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Measured {
    /// When it was first sent to a server; 0: never.
    pub(super) first_sent_ns: u64,
    /// When a server's response headers came; 0: never.
    pub(super) headers_ns: u64,
    /// Body bytes that came from the client, each counted once, however often they were sent on.
    pub(super) request_bytes: u64,
    /// Body bytes that came from a server.
    pub(super) response_bytes: u64,
    /// Of gRPC calls: messages from the client.
    pub(super) request_messages: Messages,
    /// And from a server.
    pub(super) response_messages: Messages,
    /// Of the response, be it the agent's own; 0: none has begun.
    pub(super) http_status: u16,
    /// The `grpc-status` as the client understands the call's end.
    pub(super) grpc_status: GrpcStatus,
    /// Of gRPC calls, in its target's table.
    pub(super) method: MethodId,
    /// Endpoints that were chosen for it, one after the other.
    pub(super) attempts: u8,
    /// What went wrong.
    pub(super) flag: Flag,
    /// The client's connection had carried a call before.
    pub(super) on_existing_connection: bool,
}

impl Call {
    /// All of that, of a call that is over.
    pub(super) fn stats(&self, ended_ns: u64) -> CallStats {
        let measured = &self.measured;
        let time = |ns: u64| (ns > 0).then_some(ns);
        CallStats {
            status: Status {
                is_grpc: self.is_grpc,
                http: measured.http_status,
                grpc: measured.grpc_status.code(),
                flag: measured.flag,
            },
            began_ns: self.arrived_ns,
            first_sent_ns: time(measured.first_sent_ns),
            headers_ns: time(measured.headers_ns),
            ended_ns,
            request_bytes: measured.request_bytes,
            response_bytes: measured.response_bytes,
            request_messages: measured.request_messages.count,
            response_messages: measured.response_messages.count,
            attempts: measured.attempts,
            on_existing_connection: measured.on_existing_connection,
        }
    }
}

/// Counts a direction's gRPC messages: a flag byte, four bytes of length, and so many bytes, wherever frames end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Messages {
    /// Messages whose length is known: they have begun.
    pub(super) count: u32,
    /// Of the present message: what is still to come of it, or, while its prefix is not whole, the length so far.
    length: u32,
    /// Bytes of the present message's prefix that have come.
    prefix: u8,
}

/// The flag byte and the length before each message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: u8 = 5;

impl Messages {
    /// Takes in a piece of the body.
    #[inline]
    pub(super) fn take(&mut self, piece: &[u8]) {
        // Nearly always a frame is one message.
        if self.prefix == 0
            && let Some((&[_, a, b, c, d], rest)) = piece.split_first_chunk()
            && rest.len() == u32::from_be_bytes([a, b, c, d]) as usize
        {
            self.count = self.count.wrapping_add(1);
        } else {
            self.take_any(piece);
        }
    }

    fn take_any(&mut self, mut piece: &[u8]) {
        loop {
            if self.prefix == PREFIX_BYTES {
                let skipped = (self.length as usize).min(piece.len());
                self.length -= skipped as u32;
                if self.length > 0 {
                    return;
                }
                piece = &piece[skipped..];
                self.prefix = 0;
            }
            if self.prefix == 0
                && let Some((&[_, a, b, c, d], rest)) = piece.split_first_chunk()
            {
                self.length = u32::from_be_bytes([a, b, c, d]);
                self.prefix = PREFIX_BYTES;
                self.count = self.count.wrapping_add(1);
                piece = rest;
            } else {
                let Some((&byte, rest)) = piece.split_first() else { return };
                self.take_of_prefix(byte);
                piece = rest;
            }
        }
    }

    /// A frame ends within a prefix.
    #[cold]
    fn take_of_prefix(&mut self, byte: u8) {
        // The flag byte is shifted out by the length's four.
        self.length = if self.prefix == 0 { 0 } else { self.length << 8 | u32::from(byte) };
        self.prefix += 1;
        if self.prefix == PREFIX_BYTES {
            self.count = self.count.wrapping_add(1);
        }
    }
}

/// A `grpc-status`, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GrpcStatus(u8);

impl Default for GrpcStatus {
    fn default() -> Self {
        Self::NONE
    }
}

impl GrpcStatus {
    /// The call is not gRPC, or its client did not wait for its end.
    pub(super) const NONE: Self = Self(u8::MAX);
    pub(super) const UNKNOWN: Self = Self(2);
    /// The last code that there is: UNAUTHENTICATED.
    const LAST: u8 = 16;

    pub(super) const fn of(code: u8) -> Self {
        if code <= Self::LAST { Self(code) } else { Self::UNKNOWN }
    }

    /// What a field's value says. Clients take what is no code of theirs for UNKNOWN.
    pub(super) fn parse(value: &[u8]) -> Self {
        match *value {
            [ones @ b'0'..=b'9'] => Self(ones - b'0'),
            [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Self::of((tens - b'0') * 10 + (ones - b'0')),
            _ => Self::UNKNOWN,
        }
    }

    /// What clients make of an answer without one (gRPC's "HTTP to gRPC Status Code Mapping").
    pub(super) fn of_http(status: u16) -> Self {
        Self(match status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        })
    }

    /// The code.
    pub(super) fn code(self) -> Option<u8> {
        (self != Self::NONE).then_some(self.0)
    }
}

/// What `:status` says; 0 for what cannot be one.
pub(super) fn http_status(value: Option<&[u8]>) -> u16 {
    match value {
        Some(b"200") => 200,
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) => {
            u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0')
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        // No byte of it looks like a prefix's zero.
        bytes.extend(std::iter::repeat_n(0xff, length));
        bytes
    }

    #[test]
    fn messages_are_counted_wherever_the_frames_end() {
        let body: Vec<u8> = [0, 1, 300, 0, 0, 7, 70_000, 0].into_iter().flat_map(message).collect();
        for size in [1, 2, 3, 4, 5, 6, 7, 11, 300, 16_384, body.len()] {
            let mut messages = Messages::default();
            body.chunks(size).for_each(|piece| messages.take(piece));
            assert_eq!(messages.count, 8, "in pieces of {size}");
        }
        for cut in 0..40 {
            let mut messages = Messages::default();
            messages.take(&body[..cut]);
            messages.take(&[]);
            messages.take(&body[cut..]);
            assert_eq!(messages.count, 8, "cut at {cut}");
        }
    }

    #[test]
    fn a_message_counts_when_its_length_is_known() {
        for (bytes, expected) in [(0, 0), (4, 0), (5, 1), (104, 1), (105, 1), (109, 1), (110, 2)] {
            let mut messages = Messages::default();
            let body = [message(100), message(100)].concat();
            messages.take(&body[..bytes]);
            assert_eq!(messages.count, expected, "{bytes} bytes");
        }
    }

    #[test]
    fn statuses_are_read_as_clients_read_them() {
        for (text, code) in
            [("0", 0), ("14", 14), ("05", 5), ("16", 16), ("17", 2), ("99", 2), ("", 2), ("100", 2), ("x", 2)]
        {
            assert_eq!(GrpcStatus::parse(text.as_bytes()).code(), Some(code), "{text}");
        }
        for (text, status) in [("200", 200), ("404", 404), ("099", 0), ("20", 0), ("", 0), ("abc", 0)] {
            assert_eq!(http_status(Some(text.as_bytes())), status, "{text}");
        }
        assert_eq!(http_status(None), 0);
    }
}
