//! The samples: which allocations that live are sampled, and what each stack has asked for. One lock, taken once in half a megabyte.

use super::stands_for;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Samples that live at a time: those of 64 GiB.
const MOST_LIVE: usize = 131_072;

/// Stacks that are told apart: some megabytes of them. Of more, those go that hold nothing; where all hold something, others count as
/// [`OTHERS`].
const MOST_STACKS: usize = 8_192;

/// The stack that stands for all that are not told apart: it has no frames.
const OTHERS: u32 = 0;

/// Slots of [`SAMPLED`]: ten times the samples of a large agent, in 16 KiB.
const SLOTS: usize = 1 << 14;

/// How many samples begin at addresses that fall into each slot, so that a free of what is none takes no lock. A slot that
/// was ever full stays so.
static SAMPLED: [AtomicU8; SLOTS] = [const { AtomicU8::new(0) }; SLOTS];

static SAMPLES: Mutex<Option<Samples>> = Mutex::new(None);

#[derive(Default)]
struct Samples {
    /// By address.
    live: FxHashMap<usize, Sample>,
    stacks: Vec<Stack>,
    by_frames: FxHashMap<Arc<[u64]>, u32>,
    /// Which stack was last looked at, in search of one that holds nothing.
    hand: usize,
}

#[derive(Clone, Copy)]
struct Sample {
    bytes: usize,
    stack: u32,
}

#[derive(Default)]
struct Stack {
    frames: Arc<[u64]>,
    allocated_objects: f64,
    allocated_bytes: f64,
    /// Its samples that live.
    live: u32,
}

/// What a stack has asked for, and holds: what its samples stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackMemory {
    /// Return addresses, the innermost first; empty for all stacks that are not told apart.
    pub(crate) frames: Arc<[u64]>,
    /// Allocations so far.
    pub(crate) allocated_objects: f64,
    /// And their bytes.
    pub(crate) allocated_bytes: f64,
    /// Those of them that live.
    pub(crate) live_objects: f64,
    /// And their bytes.
    pub(crate) live_bytes: f64,
}

/// Whether an allocation at a marked address may be sampled.
#[inline]
pub(super) fn may_have(address: usize) -> bool {
    // Whoever frees has the address from whoever allocated, and has seen before what that has counted.
    slot(address).load(Relaxed) != 0
}

fn slot(address: usize) -> &'static AtomicU8 {
    // Fibonacci hashing of what tells marked addresses apart.
    let hash = (address / super::MARKED_ALIGN).wrapping_mul(super::GOLDEN_RATIO as usize);
    &SAMPLED[hash >> (usize::BITS - SLOTS.trailing_zeros())]
}

fn samples() -> MutexGuard<'static, Option<Samples>> {
    // What is done under the lock leaves nothing half done.
    SAMPLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an allocation at a marked address is sampled.
pub(super) fn has(address: usize) -> bool {
    samples().as_ref().is_some_and(|samples| samples.live.contains_key(&address))
}

impl Samples {
    /// A place for a stack that is not known.
    fn add_stack(&mut self, frames: &[u64]) -> u32 {
        let place = if self.stacks.len() < MOST_STACKS {
            self.stacks.push(Stack::default());
            self.stacks.len() - 1
        } else {
            let Some(place) = self.stack_without_samples() else { return OTHERS };
            let former = std::mem::take(&mut self.stacks[place]);
            self.by_frames.remove(&former.frames);
            let others = &mut self.stacks[OTHERS as usize];
            others.allocated_objects += former.allocated_objects;
            others.allocated_bytes += former.allocated_bytes;
            place
        };
        let frames: Arc<[u64]> = frames.into();
        self.by_frames.insert(Arc::clone(&frames), place as u32);
        self.stacks[place].frames = frames;
        place as u32
    }

    fn stack_without_samples(&mut self) -> Option<usize> {
        let all = self.stacks.len();
        for _ in 0..all {
            self.hand = (self.hand + 1) % all;
            if self.hand != OTHERS as usize && self.stacks[self.hand].live == 0 {
                return Some(self.hand);
            }
        }
        None
    }
}

/// Takes a sample in. The caller sees to it that what this allocates is not sampled.
pub(super) fn remember(address: usize, bytes: usize, frames: &[u64]) {
    let mut samples = samples();
    let samples =
        samples.get_or_insert_with(|| Samples { stacks: vec![Stack::default()], ..Samples::default() });
    let stack = match samples.by_frames.get(frames) {
        Some(known) => *known,
        None => samples.add_stack(frames),
    };
    let stood_for = stands_for(bytes);
    let of_stack = &mut samples.stacks[stack as usize];
    of_stack.allocated_objects += stood_for;
    of_stack.allocated_bytes += stood_for * bytes as f64;
    if samples.live.len() < MOST_LIVE {
        of_stack.live += 1;
        samples.live.insert(address, Sample { bytes, stack });
        let _ = slot(address).fetch_update(Relaxed, Relaxed, |count| count.checked_add(1));
    }
}

/// Ends the sample at an address, if there is one.
pub(super) fn forget(address: usize) {
    let mut samples = samples();
    if let Some(samples) = samples.as_mut()
        && let Entry::Occupied(sample) = samples.live.entry(address)
    {
        let Sample { stack, .. } = sample.remove();
        samples.stacks[stack as usize].live -= 1;
        let ended = |count| (count != u8::MAX).then(|| count - 1);
        let _ = slot(address).fetch_update(Relaxed, Relaxed, ended);
    }
}

/// What all stacks hold; `None`: the process has another allocator, or has allocated too little for a sample.
pub(crate) fn snapshot() -> Option<Vec<StackMemory>> {
    super::IS_SAMPLING.set(true);
    let copied = samples().as_ref().map(|samples| {
        // Whoever waits for the lock meanwhile is a thread that carries calls: nothing is summed up here.
        let live: Vec<Sample> = samples.live.values().copied().collect();
        let stacks: Vec<_> = samples
            .stacks
            .iter()
            .map(|stack| StackMemory {
                frames: Arc::clone(&stack.frames),
                allocated_objects: stack.allocated_objects,
                allocated_bytes: stack.allocated_bytes,
                ..StackMemory::default()
            })
            .collect();
        (live, stacks)
    });
    super::IS_SAMPLING.set(false);
    let (live, mut stacks) = copied?;
    for sample in live {
        let stood_for = stands_for(sample.bytes);
        let stack = &mut stacks[sample.stack as usize];
        stack.live_objects += stood_for;
        stack.live_bytes += stood_for * sample.bytes as f64;
    }
    Some(stacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_room_a_stack_that_holds_nothing_gives_way() {
        let mut samples = Samples { stacks: vec![Stack::default()], ..Samples::default() };
        for number in 1..MOST_STACKS as u64 {
            let place = samples.add_stack(&[number]);
            samples.stacks[place as usize].live = 1;
        }
        assert_eq!(samples.add_stack(&[0]), OTHERS, "all hold something");
        let freed = samples.by_frames[&[7_u64][..]];
        samples.stacks[freed as usize] =
            Stack { live: 0, allocated_bytes: 5.0, frames: Arc::from([7]), ..Stack::default() };
        assert_eq!(samples.add_stack(&[0]), freed);
        assert_eq!(samples.by_frames.get(&[0_u64][..]), Some(&freed));
        assert!(!samples.by_frames.contains_key(&[7_u64][..]));
        assert!(
            (samples.stacks[OTHERS as usize].allocated_bytes - 5.0).abs() < 1e-9,
            "nothing is lost of what was allocated"
        );
        assert_eq!(samples.stacks.len(), MOST_STACKS);
    }
}
