//! Peers that keep us waiting: that take nothing of what is queued for a stream, read nothing of the output, or never come to the
//! end of a frame or of a header block. There is no clock here: the owner looks from time to time, and each look that finds
//! too little done since the last one counts.

use super::Connection;
use super::header_block::PartialBlock;

/// In how many looks in a row the peer has done too little. Nothing that it was waited for: 0.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug)]
pub struct Waits {
    /// For it to read the output.
    pub unread: u32,
    /// For the rest of a frame, or of a header block.
    pub unfinished: u32,
}

/// What a connection remembers from look to look.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Bytes of the output that the socket took since the last look.
    pub(super) sent: usize,
    unread: u32,
    /// Looks since the beginning of the frame that is cut off.
    pub(super) unfinished: u32,
}

impl Connection {
    /// Looks at the connection as a whole; one that is idle lets go of its output's memory. Where output `has_waited` ever since the last
    /// look, a peer that took fewer than `least` bytes of it has taken too few.
    pub fn look(&mut self, has_waited: bool, least: usize) -> Waits {
        let sent = std::mem::take(&mut self.patience.sent);
        let waits = has_waited && sent < least;
        if sent == 0 && self.streams.open() == 0 {
            self.output.trim();
        }
        self.patience.unread = if waits { self.patience.unread + 1 } else { 0 };
        // Of DATA, what came goes on.
        let is_whole = self.kept.is_empty() || self.data.is_some();
        self.patience.unfinished = if is_whole { 0 } else { self.patience.unfinished + 1 };
        let block = self.block.as_mut().map_or(0, PartialBlock::look);
        Waits { unread: self.patience.unread, unfinished: self.patience.unfinished.max(block) }
    }

    /// The streams with queued bytes: token, memory that is held for them, and whether the peer would take more.
    pub fn queues(&self) -> impl Iterator<Item = (u32, usize, bool)> {
        let slots = if self.queues_held == 0 { &[] } else { self.streams.slots() };
        slots.iter().filter_map(|stream| {
            let queue = stream.queue.as_ref()?;
            let has_window = self.send_window.available() > 0 && stream.send_window.available() > 0;
            Some((stream.token, queue.held_bytes(), has_window))
        })
    }

    /// Looks at the streams with queued bytes, and adds to `slow` the tokens of those of which the peer has taken fewer than `least`
    /// bytes between any two of the last looks, `looks` times in a row.
    pub fn look_at_queues(&mut self, least: usize, looks: u32, slow: &mut Vec<u32>) {
        if self.queues_held == 0 {
            return;
        }
        for (_, stream) in self.streams.iter_mut() {
            let Some(queue) = &mut stream.queue else { continue };
            // What has come since the last look has not waited from look to look.
            let enough = std::mem::replace(&mut queue.is_fresh, false) | (queue.taken >= least);
            queue.taken = 0;
            queue.slow_looks = if enough { 0 } else { queue.slow_looks + 1 };
            if queue.slow_looks >= looks {
                slow.push(stream.token);
            }
        }
    }
}
