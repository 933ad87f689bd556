//! A timer wheel: one timer a key, set and cleared in constant time, nothing allocated once warm.
//!
//! Hashed wheel with per-slot lists (Varghese and Lauck, *Hashed and Hierarchical Timing Wheels*, 1987, scheme 6). Timers
//! further away than one turn stay in their slot and are looked at once a turn.

/// The wheel's resolution: the grace that own deadlines have over the server's is of this size.
const SLOT_NS: u64 = 4_000_000;
/// Slots: a turn is 8.2 s, longer than most deadlines.
const SLOTS: usize = 2048;
const WORDS: usize = SLOTS / 64;
const NONE: u32 = u32::MAX;

/// Timers by small integer keys (slab indices).
#[derive(Debug)]
pub(super) struct Timers {
    heads: Box<[u32; SLOTS]>,
    /// Which slots hold a timer, a bit each: how long the worker may sleep is found without walking the slots.
    occupied: [u64; WORDS],
    links: Vec<Link>,
    /// The last slot number (time ÷ resolution) that was looked at.
    cursor: u64,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    at_ns: u64,
    slot: u32,
    previous: u32,
    next: u32,
}

const UNSET: Link = Link { at_ns: 0, slot: NONE, previous: NONE, next: NONE };

impl Timers {
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; WORDS],
            links: Vec::new(),
            cursor: now_ns / SLOT_NS,
        }
    }

    pub(super) fn is_set(&self, key: u32) -> bool {
        self.links.get(key as usize).is_some_and(|link| link.slot != NONE)
    }

    /// Sets the key's timer, in place of the one it had.
    pub(super) fn set(&mut self, key: u32, at_ns: u64) {
        self.clear(key);
        if self.links.len() <= key as usize {
            self.links.resize(key as usize + 1, UNSET);
        }
        // Rounded up, and never into a slot that this turn has passed.
        let slot = (at_ns.div_ceil(SLOT_NS).max(self.cursor + 1) % SLOTS as u64) as u32;
        let next = std::mem::replace(&mut self.heads[slot as usize], key);
        if next != NONE {
            self.links[next as usize].previous = key;
        }
        self.occupied[slot as usize / 64] |= 1 << (slot % 64);
        self.links[key as usize] = Link { at_ns, slot, previous: NONE, next };
    }

    pub(super) fn clear(&mut self, key: u32) {
        let Some(link) = self.links.get_mut(key as usize) else { return };
        let Link { slot, previous, next, .. } = std::mem::replace(link, UNSET);
        if slot == NONE {
            return;
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        if previous != NONE {
            self.links[previous as usize].next = next;
        } else {
            self.heads[slot as usize] = next;
            if next == NONE {
                self.occupied[slot as usize / 64] &= !(1 << (slot % 64));
            }
        }
    }

    /// Takes out the keys whose time has come.
    pub(super) fn expire(&mut self, now_ns: u64, expired: &mut Vec<u32>) {
        let target = now_ns / SLOT_NS;
        let first = (self.cursor + 1).max(target.saturating_sub(SLOTS as u64 - 1));
        for number in first..=target {
            let slot = (number % SLOTS as u64) as usize;
            if self.occupied[slot / 64] == 0 {
                continue;
            }
            let mut key = self.heads[slot];
            while key != NONE {
                let link = self.links[key as usize];
                if link.at_ns <= now_ns {
                    self.clear(key);
                    expired.push(key);
                }
                key = link.next;
            }
        }
        self.cursor = self.cursor.max(target);
    }

    /// How long until a slot that holds a timer comes up; `None` without timers.
    pub(super) fn next_in_ns(&self, now_ns: u64) -> Option<u64> {
        let start = ((self.cursor + 1) % SLOTS as u64) as usize;
        for step in 0..=WORDS {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= !0 << (start % 64);
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let distance = (slot + SLOTS - start) % SLOTS;
                let due_ns = (self.cursor + 1 + distance as u64) * SLOT_NS;
                return Some(due_ns.saturating_sub(now_ns));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Random;
    use std::collections::BTreeMap;

    const MS: u64 = 1_000_000;

    #[test]
    fn timers_fire_once_in_time_and_not_before() {
        let mut random = Random::new(1);
        let mut timers = Timers::new(0);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..20_000 {
            let key = random.below(50) as u32;
            match random.below(4) {
                0 => {
                    timers.clear(key);
                    model.remove(&key);
                }
                1 => {
                    // Up to several turns ahead.
                    let at = now + random.below(30_000) as u64 * MS;
                    timers.set(key, at);
                    model.insert(key, at);
                }
                _ => {
                    let sleep = random.below(20) as u64 * MS;
                    if let Some(&earliest) = model.values().min() {
                        let next = timers.next_in_ns(now).expect("a timer is set");
                        assert!(now + next <= earliest.max(now) + 2 * SLOT_NS, "sleeps past a timer");
                    } else {
                        assert_eq!(timers.next_in_ns(now), None);
                    }
                    now += sleep;
                    let mut expired = Vec::new();
                    timers.expire(now, &mut expired);
                    for key in expired {
                        assert!(model.remove(&key).expect("was set") <= now, "fired early");
                    }
                    let late: Vec<_> = model.iter().filter(|(_, at)| **at + SLOT_NS < now).collect();
                    assert!(late.is_empty(), "overdue at {now}: {late:?}");
                }
            }
            assert!(model.keys().all(|key| timers.is_set(*key)));
        }
    }

    #[test]
    fn a_clock_that_leaps_leaves_no_timer_behind() {
        let mut timers = Timers::new(0);
        (0..100).for_each(|key| timers.set(key, u64::from(key) * 100 * MS));
        let mut expired = Vec::new();
        timers.expire(1_000_000 * MS, &mut expired);
        expired.sort_unstable();
        assert_eq!(expired, (0..100).collect::<Vec<_>>());
        assert_eq!(timers.next_in_ns(1_000_000 * MS), None);
    }
}
