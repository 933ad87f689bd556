//! A worker that had much to do, and has little to do now, gives back memory that it does not hold any more: an allocator keeps what it
//! once had for the next rush, and the node's other programs may need it before.

/// A worker that works less of its time than this has the time for it.
const IDLE_PERMILLE: u32 = 100;
/// What it must hold less than at the most since it last gave anything back.
const WORTH_BYTES: u64 = 4 << 20;
/// And how long ago that must be: what comes and goes in waves need not be given back with each.
const EVERY_NS: u64 = 5_000_000_000;

/// What a worker knows of its past.
#[derive(Debug, Default)]
pub(super) struct Idle {
    most_held: u64,
    given_back_ns: u64,
}

impl Idle {
    /// Whether it is time to give memory back, for a worker that is so busy and whose connections and calls hold so much.
    pub(super) fn gives_back(&mut self, busy_permille: u32, held: u64, now_ns: u64) -> bool {
        self.most_held = self.most_held.max(held);
        let is_time = busy_permille < IDLE_PERMILLE
            && self.most_held - held >= WORTH_BYTES
            && now_ns - self.given_back_ns >= EVERY_NS;
        if is_time {
            (self.most_held, self.given_back_ns) = (held, now_ns);
        }
        is_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn memory_is_given_back_once_after_a_large_turn_down_when_there_is_time() {
        let mut idle = Idle::default();
        for (second, busy, held, gives_back) in [
            (10, 0, 0, false),
            (11, 900, 50 * MIB, false),
            (12, 900, 10 * MIB, false),
            (13, 50, 10 * MIB, true),
            (14, 0, 10 * MIB, false),
            (15, 0, MIB, false),
            (18, 0, MIB, true),
            (30, 0, 0, false),
            (40, 0, 3 * MIB, false),
            (50, 0, 0, false),
        ] {
            assert_eq!(idle.gives_back(busy, held, second * SECOND_NS), gives_back, "second {second}");
        }
    }
}
