//! Whose turn it is to write what is queued: streams with queued bytes and a window for them, first come, first served.

use super::stream::{Stream, StreamKey, Streams};
use std::collections::VecDeque;

/// Entries of streams that are gone are cleared away when they outnumber the others by this.
const SLACK: usize = 64;

/// Streams in the order of their turns. A stream that is reset stays behind, to be passed over: to look for it would make
/// each of a peer's many resets cost as much as there are streams.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Slots, and the identifier of the stream that was in there.
    queue: VecDeque<(StreamKey, u32)>,
}

impl Turns {
    /// The stream gets a turn, unless it has one already.
    pub(super) fn join(&mut self, key: StreamKey, stream: &mut Stream) {
        if !stream.in_turn {
            stream.in_turn = true;
            self.queue.push_back((key, stream.id));
        }
    }

    /// Whether somebody may be waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The stream whose turn it is, which it gives up.
    pub(super) fn next(&mut self, streams: &mut Streams) -> Option<StreamKey> {
        while let Some((key, id)) = self.queue.pop_front() {
            let stream = streams.slot_mut(key);
            if stream.id == id && stream.in_turn {
                stream.in_turn = false;
                return Some(key);
            }
        }
        None
    }

    /// Clears away what streams that are gone have left, now and then.
    pub(super) fn tidy(&mut self, streams: &mut Streams) {
        if self.queue.len() > 2 * streams.in_use() + SLACK {
            self.queue.retain(|(key, id)| {
                let stream = streams.slot_mut(*key);
                stream.id == *id && stream.in_turn
            });
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<(StreamKey, u32)>()
    }
}
