//! How many requests a client takes back before the server has said anything about them.
//!
//! A server that reads a request and its reset in one go has never begun it, and counts: with the h2 crate (tonic, hyper) the
//! 21st such request ends the connection, and everybody's calls with it. So no more than a few of these resets are on their way at
//! a time, with a SETTINGS frame behind them, whose acknowledgement says that the server has read so far. Those beyond
//! are held until then: the server could not have read them any sooner.

use super::Connection;
use crate::http2::error::ErrorCode;
use crate::http2::frame::kind;
use crate::http2::settings::Role;
use std::collections::VecDeque;

/// Half of what the strictest server in the field puts up with: it may acknowledge before it begins what it has read.
const MAX_UNREAD: u32 = 10;
/// With so many resets held, no further stream is opened.
const MAX_HELD: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Cancels {
    /// Resets that the server may not have read.
    unread: u32,
    /// The SETTINGS frame is behind them.
    asked: bool,
    held: VecDeque<(u32, ErrorCode)>,
}

impl Cancels {
    /// Streams that are open as far as the server knows; `None`: too many.
    pub(super) fn held(&self) -> Option<u32> {
        (self.held.len() < MAX_HELD).then_some(self.held.len() as u32)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.capacity() * size_of::<(u32, ErrorCode)>()
    }
}

impl Connection {
    /// RST_STREAM for a stream that is about to close; held, where the server would count it.
    pub(super) fn send_reset(&mut self, id: u32, code: ErrorCode, is_answered: bool) {
        if self.role == Role::Server || is_answered {
            return self.output.rst_stream(id, code);
        }
        self.cancels.held.push_back((id, code));
        self.send_held_resets();
    }

    fn send_held_resets(&mut self) {
        while self.cancels.unread < MAX_UNREAD
            && let Some((id, code)) = self.cancels.held.pop_front()
        {
            self.output.rst_stream(id, code);
            self.cancels.unread += 1;
        }
        if self.cancels.unread == MAX_UNREAD && !self.cancels.asked {
            self.cancels.asked = true;
            self.unacknowledged_settings += 1;
            self.output.frame(kind::SETTINGS, 0, 0, &[]);
        }
    }

    /// The server has read what was sent so far; whether that has closed further streams for it.
    pub(super) fn resets_are_read(&mut self) -> bool {
        if !self.cancels.asked {
            return false;
        }
        let held = self.cancels.held.len();
        (self.cancels.unread, self.cancels.asked) = (0, false);
        self.send_held_resets();
        self.cancels.held.len() < held
    }
}
