//! The process' allocator: mimalloc, with a sample of what it hands out, by stack, for [`heap_stacks`](crate::telemetry::profile::heap_stacks).
//!
//! On average one allocation in [`SAMPLE_EVERY_BYTES`] is sampled, by the bytes that a thread has asked for: that costs an allocation
//! a subtraction and a branch. A sampled one begins at a multiple of [`MARKED_ALIGN`], so that a free looks at the address alone, and
//! further only at those few that begin there ([`samples`]). jemalloc finds its samples in the same way. [`stack`] says who asked.

mod samples;
mod stack;

pub(crate) use samples::snapshot;

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An allocation is sampled after so many bytes on average: as in Go's and tcmalloc's heap profiles.
pub(crate) const SAMPLE_EVERY_BYTES: f64 = 524_288.0;

/// 2^64 by the golden ratio: multiples of it are spread evenly.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// What no two threads begin their random numbers with.
static SEEDS: AtomicU64 = AtomicU64::new(0);

/// What sampled allocations are aligned to, and few others: what they waste of it is a hundredth of [`SAMPLE_EVERY_BYTES`].
const MARKED_ALIGN: usize = 4_096;

thread_local! {
    // Without destructors: they are there for as long as the thread allocates anything.
    /// Bytes to the next sample.
    static UNTIL_SAMPLE: Cell<i64> = const { Cell::new(0) };
    /// Of the thread's random numbers; 0 before its first.
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    /// Allocates for the samples themselves.
    static IS_SAMPLING: Cell<bool> = const { Cell::new(false) };
}

/// mimalloc, with samples.
#[derive(Debug)]
pub struct SampledAllocator;

// SAFETY: all memory is mimalloc's, asked for and given back by layouts of the same size and of no smaller alignment than asked for.
unsafe impl GlobalAlloc for SampledAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_turn(layout.size()) {
            // SAFETY: the caller's promise.
            return unsafe { sampled(layout, |marked| MiMalloc.alloc(marked)) };
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_turn(layout.size()) {
            // SAFETY: the caller's promise.
            return unsafe { sampled(layout, |marked| MiMalloc.alloc_zeroed(marked)) };
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if may_be_sampled(pointer) {
            forget(pointer);
        }
        // SAFETY: the caller's promise; mimalloc knows the block by its address.
        unsafe { MiMalloc.dealloc(pointer, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if may_be_sampled(pointer) && is_sampled(pointer) {
            // SAFETY: the caller's promise.
            return unsafe { moved(pointer, layout, new_size, |new| self.alloc(new)) };
        }
        if is_turn(new_size) {
            // SAFETY: the caller's promise.
            return unsafe {
                moved(pointer, layout, new_size, |new| sampled(new, |marked| MiMalloc.alloc(marked)))
            };
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(pointer, layout, new_size) }
    }
}

/// Counts an allocation; whether it is to be sampled.
#[inline(always)]
fn is_turn(bytes: usize) -> bool {
    UNTIL_SAMPLE.with(|until| {
        // A layout's size is below 2^63.
        let left = until.get() - bytes as i64;
        until.set(left);
        left < 0
    })
}

/// Whether it may be a sampled one.
#[inline(always)]
fn may_be_sampled(pointer: *mut u8) -> bool {
    pointer.addr().is_multiple_of(MARKED_ALIGN) && samples::may_have(pointer.addr())
}

/// Allocates, and takes a sample of it if this is no thread's first, nor for samples.
///
/// # Safety
/// As of [`GlobalAlloc::alloc`].
#[cold]
#[inline(never)]
unsafe fn sampled(layout: Layout, allocate: impl Fn(Layout) -> *mut u8) -> *mut u8 {
    if !begin_interval(layout.size()) || IS_SAMPLING.get() {
        return allocate(layout);
    }
    let Ok(marked) = Layout::from_size_align(layout.size(), layout.align().max(MARKED_ALIGN)) else {
        return allocate(layout);
    };
    let pointer = allocate(marked);
    if !pointer.is_null() {
        let mut frames = [0; stack::MOST_FRAMES];
        let depth = stack::of_caller(&mut frames);
        IS_SAMPLING.set(true);
        samples::remember(pointer.addr(), layout.size(), &frames[..depth]);
        IS_SAMPLING.set(false);
    }
    pointer
}

/// Whether it is.
#[cold]
#[inline(never)]
fn is_sampled(pointer: *mut u8) -> bool {
    // What the samples themselves are kept in is not.
    !IS_SAMPLING.get() && samples::has(pointer.addr())
}

/// Ends the sample of an allocation that is freed, if there is one.
#[cold]
#[inline(never)]
fn forget(pointer: *mut u8) {
    // What the samples themselves are kept in is none.
    if !IS_SAMPLING.replace(true) {
        samples::forget(pointer.addr());
        IS_SAMPLING.set(false);
    }
}

/// Reallocates what is sampled, or is to be: as the allocation and the free that it is where a block moves.
///
/// # Safety
/// As of [`GlobalAlloc::realloc`]; `allocate` keeps [`GlobalAlloc::alloc`]'s promise.
#[cold]
#[inline(never)]
unsafe fn moved(
    pointer: *mut u8,
    layout: Layout,
    new_size: usize,
    allocate: impl FnOnce(Layout) -> *mut u8,
) -> *mut u8 {
    // SAFETY: the caller's promise: the size fits with the alignment.
    let to = allocate(unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) });
    if !to.is_null() {
        // SAFETY: both blocks hold the bytes that are copied, and are not one; the former is the allocator's.
        unsafe {
            std::ptr::copy_nonoverlapping(pointer, to, layout.size().min(new_size));
            SampledAllocator.dealloc(pointer, layout);
        }
    }
    to
}

/// Draws after how many bytes the next sample is due; false for a thread's first allocation, if its sample is due later.
fn begin_interval(bytes: usize) -> bool {
    if RANDOM.get() == 0 {
        // Where the thread is, differs from process to process; an odd number is never 0. A clock would have to be set up first.
        let place = RANDOM.with(|random| std::ptr::from_ref(random).addr() as u64);
        RANDOM.set((place ^ SEEDS.fetch_add(GOLDEN_RATIO, Relaxed)).wrapping_mul(GOLDEN_RATIO) | 1);
        let left = exponential(next_random()) - bytes as i64;
        if left >= 0 {
            UNTIL_SAMPLE.set(left);
            return false;
        }
    }
    UNTIL_SAMPLE.set(exponential(next_random()));
    true
}

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
fn next_random() -> u64 {
    let mut state = RANDOM.get();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    RANDOM.set(state);
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// An interval of a Poisson process over bytes: whether a byte is sampled does not depend on how allocations follow each other.
fn exponential(random: u64) -> i64 {
    // 53 bits, above 0 and up to 1.
    let uniform = ((random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    (-uniform.ln() * SAMPLE_EVERY_BYTES) as i64
}

/// What one sample stands for: an allocation of this size is sampled with the probability 1 − e^(−size / mean), so that
/// each sampled one stands for the inverse of it (as in tcmalloc and Go's `runtime.MemProfile`).
pub(crate) fn stands_for(bytes: usize) -> f64 {
    1.0 / -(-(bytes.max(1) as f64) / SAMPLE_EVERY_BYTES).exp_m1()
}

#[cfg(test)]
mod tests;
