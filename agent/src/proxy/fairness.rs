//! What one turn does for one connection, and for one source of calls: others of the worker wait for no more than that.
//!
//! Bulk is counted by its bytes. A frame costs as much as many of them, and most of what a peer makes a worker do in little is in
//! many small frames: requests of a dozen bytes, PINGs, windows.

use super::conns::ConnId;
use super::engine::Engine;

/// What one connection may be read in a turn: many small calls do not wait for another connection's bulk.
pub(super) const READ_BUDGET_BYTES: usize = 64 << 10;
/// And frames: a busy client's have some hundreds of calls; to begin so many takes less than a millisecond. What a read brings is not
/// known before, so that the next one is the shorter.
const FRAMES_A_TURN: usize = 512;
/// A read is never shorter than this: the frames that fit in it are not worth a system call each.
const LEAST_READ_BYTES: usize = 1 << 10;
/// A frame, in bytes of bulk.
const FRAME_WORK_BYTES: usize = READ_BUDGET_BYTES / FRAMES_A_TURN;
/// What one source may have done in a turn, in bytes of bulk: as much as eight connections that use all that they may. Those of its
/// connections that have not had their turn by then have it in the next one.
const SOURCE_BUDGET_BYTES: usize = 8 * READ_BUDGET_BYTES;

/// How much a connection is read in a turn: less where it brings many frames.
pub(super) fn next_read(this: usize, read: usize, frames: u32) -> usize {
    let frames = frames as usize;
    if frames > FRAMES_A_TURN {
        (read * FRAMES_A_TURN / frames).max(LEAST_READ_BYTES)
    } else {
        (this * 2).min(READ_BUDGET_BYTES)
    }
}

impl Engine {
    /// Whether the connection's source has had its share of this turn.
    pub fn has_had_its_share(&self, conn: ConnId) -> bool {
        let budget = self.conns.budget_of_open(conn);
        budget.is_some_and(|budget| self.budgets.work_in_turn(budget, self.turn) >= SOURCE_BUDGET_BYTES)
    }

    /// Frames that the last input brought.
    pub fn input_frames(&self) -> u32 {
        self.input_frames
    }

    /// Counts what an input has brought.
    pub(super) fn count_work(&mut self, budget: u32, bytes: usize, frames: u32) {
        self.input_frames = frames;
        self.budgets.note_work(budget, bytes + frames as usize * FRAME_WORK_BYTES, self.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_with_many_frames_is_read_less_until_it_has_fewer() {
        let full = READ_BUDGET_BYTES;
        for (this, read, frames, next) in [
            (full, full, 4, full),
            (full, 20_000, 512, full),
            (full, full, 8 * 512, full / 8),
            (full / 8, full / 8, 512, full / 4),
            (full, full, u32::MAX, LEAST_READ_BYTES),
            (LEAST_READ_BYTES, 100, 2, 2 * LEAST_READ_BYTES),
        ] {
            assert_eq!(next_read(this, read, frames), next, "{this} {read} {frames}");
        }
    }
}
