//! The ids of destinations: which are free, and which may still be carried by a connection.
//!
//! A connection carries the id of its destination in its loopback address, from `connect()` on. An id that was used again
//! too early would send its calls to another Service. So an id goes
//!
//! ```text
//! free → live → retiring → quarantine → dropped → free
//!                            └→ live, for the same destination
//! ```
//!
//! *live*: in the kernel's map of destinations, or on the way there. *Retiring*: on the way out of it. *Quarantine*: out of it;
//! ends when [`QUARANTINE`] is over and no connection carries the id. *Dropped*: the workers forget it; free a round later.

use crate::mesh::DestinationId;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long an id rests at least after the kernel has let go of it. A connection may wait in a listener's backlog, counted by
/// nobody, for as long as a worker process hangs or starts; that is seconds, and this is much more.
pub const QUARANTINE: Duration = Duration::from_secs(300);

/// Which ids are in use, and how. Numbers are below the capacity, that of the kernel's maps.
#[derive(Debug)]
pub struct Ids {
    capacity: u32,
    /// Numbers that were never used.
    fresh: VecDeque<Range<u32>>,
    /// Numbers that were used and may be again, the longest rested first.
    free: VecDeque<u32>,
    used: HashMap<DestinationId, Use>,
    /// Those in quarantine, by its beginning.
    resting: BTreeSet<(Instant, DestinationId)>,
    dropped: Vec<DestinationId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Live,
    Retiring,
    Quarantine { since: Instant },
    Dropped,
}

impl Ids {
    /// Ids from 0 to the capacity.
    pub fn new(capacity: u32) -> Self {
        let capacity = capacity.min(DestinationId::SPACE);
        Self {
            capacity,
            fresh: std::iter::once(0..capacity).collect(),
            free: VecDeque::new(),
            used: HashMap::new(),
            resting: BTreeSet::new(),
            dropped: Vec::new(),
        }
    }

    /// Takes over the ids of a process before this one: those that are in the kernel's map of destinations, and those that are
    /// in quarantine as far as anybody knows. To be called before any other method.
    pub fn restore(
        &mut self,
        live: impl IntoIterator<Item = DestinationId>,
        resting: impl IntoIterator<Item = DestinationId>,
        now: Instant,
    ) {
        for id in resting {
            self.used.insert(id, Use::Quarantine { since: now });
        }
        for id in live {
            self.used.insert(id, Use::Live);
        }
        let resting = self.used.iter().filter(|(_, usage)| matches!(usage, Use::Quarantine { .. }));
        self.resting = resting.map(|(id, _)| (now, *id)).collect();

        // Numbers above the highest come first: of those below, some may have been used not long ago.
        let mut numbers: Vec<u32> = self.used.keys().map(|id| id.number()).collect();
        numbers.sort_unstable();
        let mut gaps = VecDeque::new();
        let mut next = 0;
        for number in numbers {
            let number = number.min(self.capacity);
            if next < number {
                gaps.push_back(next..number);
            }
            next = number + 1;
        }
        if next < self.capacity {
            gaps.push_front(next..self.capacity);
        }
        self.fresh = gaps;
    }

    /// An id that nothing carries; live from now on. `None`: all are in use or resting.
    pub fn allocate(&mut self) -> Option<DestinationId> {
        while self.fresh.front().is_some_and(Range::is_empty) {
            self.fresh.pop_front();
        }
        let number = self.fresh.front_mut().and_then(Iterator::next).or_else(|| self.free.pop_front());
        let id = number.and_then(DestinationId::new)?;
        self.used.insert(id, Use::Live);
        Some(id)
    }

    /// A live id is to be removed from the kernel's map.
    pub fn retire(&mut self, id: DestinationId) {
        if let Some(usage @ Use::Live) = self.used.get_mut(&id) {
            *usage = Use::Retiring;
        }
    }

    /// A retiring id has been removed from the kernel's map: its quarantine begins.
    pub fn removed_from_kernel(&mut self, id: DestinationId, now: Instant) {
        if let Some(usage @ Use::Retiring) = self.used.get_mut(&id) {
            *usage = Use::Quarantine { since: now };
            self.resting.insert((now, id));
        }
    }

    /// Makes an id in quarantine live again, for the destination that it had. Says whether it could.
    pub fn revive(&mut self, id: DestinationId) -> bool {
        let Some(usage) = self.used.get_mut(&id) else { return false };
        let Use::Quarantine { since } = *usage else { return false };
        *usage = Use::Live;
        self.resting.remove(&(since, id));
        true
    }

    /// Drops the ids whose quarantine is over and that no connection carries, and returns them. Those that were dropped by
    /// the last call are free now: whoever calls has told the workers of them since.
    pub fn advance(&mut self, now: Instant, in_use: impl Fn(DestinationId) -> u64) -> Vec<DestinationId> {
        for id in std::mem::take(&mut self.dropped) {
            if in_use(id) > 0 {
                self.dropped.push(id);
                continue;
            }
            self.used.remove(&id);
            if id.number() < self.capacity {
                self.free.push_back(id.number());
            }
        }
        let Some(rested_since) = now.checked_sub(QUARANTINE) else { return Vec::new() };
        let rested = self.resting.iter().take_while(|(since, _)| *since <= rested_since);
        let over: Vec<_> = rested.copied().filter(|(_, id)| in_use(*id) == 0).collect();
        for (since, id) in &over {
            self.resting.remove(&(*since, *id));
            self.used.insert(*id, Use::Dropped);
            self.dropped.push(*id);
        }
        over.into_iter().map(|(_, id)| id).collect()
    }

    /// How many there are.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many are live.
    pub fn live(&self) -> usize {
        self.used.values().filter(|usage| **usage == Use::Live).count()
    }

    /// How many are used but not live.
    pub fn resting(&self) -> usize {
        self.used.len() - self.live()
    }

    /// How many [`Self::allocate`] would find.
    pub fn available(&self) -> usize {
        self.free.len() + self.fresh.iter().map(ExactSizeIterator::len).sum::<usize>()
    }
}

#[cfg(test)]
#[path = "ids_tests.rs"]
mod tests;
