//! What a connection remembers of its streams: one slab, and the way from an identifier to its slot.

use super::fields::FieldList;
use super::flow::{ReceiveWindow, SendWindow};
use super::message::UNKNOWN_LENGTH;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// A stream's slot in its connection; valid until [`release`](super::Connection::release).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct StreamKey(pub(super) u32);

#[derive(Debug)]
pub(super) struct Stream {
    /// 0 in a free slot.
    pub(super) id: u32,
    pub(super) token: u32,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
    /// END_STREAM went out, or the stream was reset.
    pub(super) local_closed: bool,
    /// END_STREAM came, or the stream was reset.
    pub(super) remote_closed: bool,
    /// RST_STREAM came or went: what still comes is late and ignored.
    pub(super) reset: bool,
    /// The peer's request or final response came, so that the next header list is its trailers.
    pub(super) has_message: bool,
    /// The request that we sent was HEAD.
    pub(super) is_head: bool,
    /// Bytes of the peer's body that are still to come, if it has said how many.
    pub(super) body_left: u64,
    /// It waits for its turn to write what is queued.
    pub(super) in_turn: bool,
    /// Body bytes that wait for a window or for the output; never empty of bytes.
    pub(super) queue: Option<Box<Queue>>,
}

/// The unsent end of a message.
#[derive(Debug)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    written: usize,
    /// END_STREAM goes with the last byte, or with the trailers.
    pub(super) ends: bool,
    pub(super) trailers: Option<FieldList>,
    /// Bytes that have gone since the last look at whether the peer takes any.
    pub(super) taken: usize,
    /// There was no look yet.
    pub(super) is_fresh: bool,
    /// So many looks have found that it takes too few.
    pub(super) slow_looks: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            written: 0,
            ends: false,
            trailers: None,
            taken: 0,
            is_fresh: true,
            slow_looks: 0,
        }
    }
}

impl Queue {
    pub(super) fn push(&mut self, payload: &[u8]) {
        if self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        self.bytes.extend_from_slice(payload);
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn written(&mut self, bytes: usize) {
        self.written += bytes;
        self.taken += bytes;
    }

    /// Everything that it holds in memory, itself included.
    pub(super) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.trailers.as_ref().map_or(0, FieldList::held_bytes)
    }
}

impl Stream {
    pub(super) fn is_closed(&self) -> bool {
        self.local_closed && self.remote_closed
    }

    /// So many bytes of the peer's body come; false if that is more, or ends with less, than it said (RFC 9113 §8.1.1).
    pub(super) fn body_comes(&mut self, bytes: usize, ends: bool) -> bool {
        if self.body_left == UNKNOWN_LENGTH {
            return true;
        }
        match self.body_left.checked_sub(bytes as u64) {
            Some(left) => {
                self.body_left = left;
                !ends || left == 0
            }
            None => false,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.unwritten().len())
    }
}

/// The streams of one connection, open or not yet released.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u32>,
    ids: IdTable,
    /// Streams of which a half is still open: what the limit on concurrent streams counts.
    open: u32,
}

impl Streams {
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Slots in use: open streams and closed ones that their owner still holds.
    pub(super) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, id: u32, send: SendWindow, receive: ReceiveWindow) -> StreamKey {
        let stream = Stream {
            id,
            token: 0,
            send_window: send,
            receive_window: receive,
            local_closed: false,
            remote_closed: false,
            reset: false,
            has_message: false,
            is_head: false,
            body_left: UNKNOWN_LENGTH,
            in_turn: false,
            queue: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                self.slots.len() as u32 - 1
            }
        };
        self.ids.insert(slot, &self.slots);
        self.open += 1;
        StreamKey(slot)
    }

    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        self.ids.find(id, &self.slots).map(StreamKey)
    }

    /// Whether the slot still holds that stream.
    pub(super) fn is_still(&self, key: StreamKey, id: u32) -> bool {
        let stream = &self.slots[key.0 as usize];
        stream.id == id && !stream.reset
    }

    /// The slot, whether a stream is in it or not.
    pub(super) fn slot_mut(&mut self, key: StreamKey) -> &mut Stream {
        &mut self.slots[key.0 as usize]
    }

    pub(super) fn remove(&mut self, key: StreamKey) {
        self.ids.remove(key.0, &self.slots);
        let stream = &mut self.slots[key.0 as usize];
        stream.id = 0;
        stream.queue = None;
        self.free.push(key.0);
    }

    /// Closes halves of a stream. `queue` is dropped with the local half.
    pub(super) fn close(&mut self, key: StreamKey, local: bool, remote: bool) {
        let stream = &mut self.slots[key.0 as usize];
        let was_closed = stream.is_closed();
        stream.local_closed |= local;
        stream.remote_closed |= remote;
        if stream.is_closed() && !was_closed {
            self.open -= 1;
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamKey, &mut Stream)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.map(|(slot, stream)| (StreamKey(slot as u32), stream)).filter(|(_, stream)| stream.id != 0)
    }

    pub(super) fn slots(&self) -> &[Stream] {
        &self.slots
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Stream>()
            + (self.free.capacity() + self.ids.slots.capacity()) * size_of::<u32>()
    }
}

impl std::ops::Index<StreamKey> for Streams {
    type Output = Stream;

    fn index(&self, key: StreamKey) -> &Stream {
        let stream = &self.slots[key.0 as usize];
        debug_assert!(stream.id != 0, "a stream's key is used after its release");
        stream
    }
}

impl std::ops::IndexMut<StreamKey> for Streams {
    fn index_mut(&mut self, key: StreamKey) -> &mut Stream {
        let stream = &mut self.slots[key.0 as usize];
        debug_assert!(stream.id != 0, "a stream's key is used after its release");
        stream
    }
}

/// From identifier to slot: open addressing, of which the identifiers themselves are in the slab. Identifiers come in
/// order, so that a multiplication spreads them evenly; a second one, by a number that the peer does not know, keeps it from
/// choosing identifiers that all have one home.
#[derive(Debug)]
struct IdTable {
    /// A power of two of them, at most half of them used.
    slots: Vec<u32>,
    used: usize,
    /// Takes the high bits, as many as the table has.
    shift: u32,
    /// Odd: a bijection.
    secret: u32,
}

impl Default for IdTable {
    fn default() -> Self {
        static SECRET: LazyLock<u32> = LazyLock::new(|| RandomState::new().hash_one(0) as u32 | 1);
        Self { slots: Vec::new(), used: 0, shift: 0, secret: *SECRET }
    }
}

const NO_SLOT: u32 = u32::MAX;

impl IdTable {
    fn home(&self, id: u32) -> usize {
        let even = (id >> 1).wrapping_mul(0x9e37_79b1);
        let spread = (even ^ (even >> 15)).wrapping_mul(self.secret);
        (spread >> self.shift) as usize
    }

    fn find(&self, id: u32, streams: &[Stream]) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut at = self.home(id);
        loop {
            match self.slots[at] {
                NO_SLOT => return None,
                slot if streams[slot as usize].id == id => return Some(slot),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn insert(&mut self, slot: u32, streams: &[Stream]) {
        if (self.used + 1) * 2 > self.slots.len() {
            let larger = vec![NO_SLOT; (self.slots.len() * 2).max(8)];
            self.shift = u32::BITS - larger.len().trailing_zeros();
            for old in std::mem::replace(&mut self.slots, larger) {
                if old != NO_SLOT {
                    self.place(old, streams);
                }
            }
        }
        self.place(slot, streams);
        self.used += 1;
    }

    fn place(&mut self, slot: u32, streams: &[Stream]) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(streams[slot as usize].id);
        while self.slots[at] != NO_SLOT {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn remove(&mut self, slot: u32, streams: &[Stream]) {
        let mask = self.slots.len() - 1;
        let mut hole = self.home(streams[slot as usize].id);
        while self.slots[hole] != slot {
            hole = (hole + 1) & mask;
        }
        // What stands behind the hole moves up, as far as that brings it nearer to its home.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let moving = self.slots[at];
            if moving == NO_SLOT {
                break;
            }
            let home = self.home(streams[moving as usize].id);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = moving;
                hole = at;
            }
        }
        self.slots[hole] = NO_SLOT;
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(streams: &mut Streams, id: u32) -> StreamKey {
        streams.insert(id, SendWindow::new(1), ReceiveWindow::new(1))
    }

    #[test]
    fn every_stream_is_found_by_its_identifier_and_no_other_is() {
        let mut streams = Streams::default();
        let mut alive = std::collections::BTreeMap::new();
        // Streams end in another order than they began in, and some stay for long.
        for step in 0u32..5_000 {
            let id = 2 * step + 1;
            alive.insert(id, insert(&mut streams, id));
            if step % 3 != 0 {
                let gone = *alive.keys().nth((step as usize * 7) % alive.len()).expect("not empty");
                let key = alive.remove(&gone).expect("just seen");
                assert_eq!(streams.find(gone), Some(key));
                streams.remove(key);
                assert_eq!(streams.find(gone), None);
            }
            if step % 97 == 0 {
                for (id, key) in &alive {
                    assert_eq!(streams.find(*id), Some(*key));
                }
            }
        }
        assert_eq!(streams.in_use(), alive.len());
        assert_eq!(streams.find(2), None);
    }

    #[test]
    fn a_stream_counts_as_open_until_both_halves_are_closed() {
        let mut streams = Streams::default();
        let key = insert(&mut streams, 1);
        streams.close(key, true, false);
        assert_eq!(streams.open(), 1);
        streams.close(key, false, true);
        assert_eq!(streams.open(), 0);
        streams.close(key, true, true);
        assert_eq!(streams.open(), 0);
    }
}
