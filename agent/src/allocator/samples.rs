//! The samples: which allocations that live are sampled, and what each stack has asked for. One lock, taken once in half a megabyte.

use super::stands_for;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Samples that live at a time: those of 64 GiB.
const MOST_LIVE: usize = 131_072;

/// Stacks that are told apart: some megabytes of them. What comes from others counts as [`OTHERS`].
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
    by_frames: FxHashMap<Box<[u64]>, u32>,
}

#[derive(Clone, Copy)]
struct Sample {
    bytes: usize,
    stack: u32,
}

#[derive(Default)]
struct Stack {
    frames: Box<[u64]>,
    allocated_objects: f64,
    allocated_bytes: f64,
}

/// What a stack has asked for, and holds: what its samples stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct StackMemory {
    /// Return addresses, the innermost first; empty for all stacks that are not told apart.
    pub(crate) frames: Box<[u64]>,
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

/// Takes a sample in. The caller sees to it that what this allocates is not sampled.
pub(super) fn remember(address: usize, bytes: usize, frames: &[u64]) {
    let mut samples = samples();
    let samples =
        samples.get_or_insert_with(|| Samples { stacks: vec![Stack::default()], ..Samples::default() });
    let stack = match samples.by_frames.get(frames) {
        Some(known) => *known,
        None if samples.stacks.len() < MOST_STACKS => {
            let stack = samples.stacks.len() as u32;
            samples.stacks.push(Stack { frames: frames.into(), ..Stack::default() });
            samples.by_frames.insert(frames.into(), stack);
            stack
        }
        None => OTHERS,
    };
    let stood_for = stands_for(bytes);
    let of_stack = &mut samples.stacks[stack as usize];
    of_stack.allocated_objects += stood_for;
    of_stack.allocated_bytes += stood_for * bytes as f64;
    if samples.live.len() < MOST_LIVE {
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
        sample.remove();
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
                frames: stack.frames.clone(),
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
