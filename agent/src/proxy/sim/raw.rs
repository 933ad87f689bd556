//! What is not HTTP/2: a client that sends bytes, a server that sends them back, and every one of them is looked at.

use super::network::Link;
use super::story::byte;
use crate::balance::Random;
use crate::http2::PREFACE;
use std::collections::VecDeque;

/// The number of a tunnel's bytes, apart from the calls'.
const SALT: usize = 1 << 20;

/// How a connection that is no HTTP/2 may begin.
const BEGINNINGS: [&[u8]; 4] =
    [b"\x16\x03\x01", b"GET / HTTP/1.1", b"PRI * HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"];

pub(super) struct RawClient {
    beginning: &'static [u8],
    number: usize,
    total: usize,
    sent: usize,
    received: usize,
}

impl RawClient {
    pub(super) fn new(number: usize, random: &mut Random) -> Self {
        let beginning = BEGINNINGS[random.below(BEGINNINGS.len())];
        // Some say nothing at all, some stop in the middle of the preface.
        let total = match random.below(5) {
            0 => 0,
            1 => random.below(beginning.len()),
            2 => beginning.len() + random.below(400_000),
            _ => beginning.len() + random.below(5_000),
        };
        Self { beginning, number, total, sent: 0, received: 0 }
    }

    fn byte(&self, at: usize) -> u8 {
        self.beginning.get(at).copied().unwrap_or_else(|| byte(SALT + self.number, false, at))
    }

    pub(super) fn act(&mut self, random: &mut Random, link: &mut Link) {
        let size = (1 + random.below(30_000)).min(self.total - self.sent).min(link.room_to_engine());
        link.to_engine.extend((self.sent..self.sent + size).map(|at| self.byte(at)));
        self.sent += size;
        link.to_engine_ends |= self.sent == self.total;
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        for got in bytes {
            assert!(self.received < self.sent, "a tunnel brings more than was sent");
            assert_eq!(*got, self.byte(self.received), "byte {} of tunnel {}", self.received, self.number);
            self.received += 1;
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.received == self.total
    }
}

/// The other end of a tunnel.
#[derive(Default)]
pub(super) struct RawServer {
    waiting: VecDeque<u8>,
    ended: bool,
}

impl RawServer {
    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn act(&mut self, random: &mut Random, link: &mut Link) {
        let size = (1 + random.below(30_000)).min(self.waiting.len()).min(link.room_to_engine());
        link.to_engine.extend(self.waiting.drain(..size));
        link.to_engine_ends |= self.ended && self.waiting.is_empty();
    }
}

/// Whether bytes are the beginning of HTTP/2; `None`: not to be told yet.
pub(super) fn is_http2(start: &[u8]) -> Option<bool> {
    if start.len() < PREFACE.len() && PREFACE.starts_with(start) {
        return None;
    }
    Some(start.starts_with(PREFACE))
}
