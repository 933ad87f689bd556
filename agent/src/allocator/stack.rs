//! The stack of the thread that runs, by frame pointers: the build has them everywhere but in the C library
//! (`.cargo/config.toml`). No lock, no allocation of ours, and nothing is read beyond the thread's own stack, whatever a register holds.

use std::arch::asm;
use std::cell::Cell;

/// The deepest stack that is kept whole; of deeper ones it is the part next to the allocation.
pub(super) const MOST_FRAMES: usize = 64;

thread_local! {
    /// Where the thread's stack begins and ends; nowhere, where nobody has asked yet.
    static STACK: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The return addresses above the caller, from the innermost; how many there are.
#[inline(never)]
pub(super) fn of_caller(frames: &mut [u64; MOST_FRAMES]) -> usize {
    let mut frame: usize;
    // SAFETY: it reads a register.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        asm!("mov {}, x29", out(reg) frame, options(nomem, nostack, preserves_flags));
    }
    let (lowest, end) = stack_of_thread();
    // This very frame is where the stack ends the other way. Of another stack, as signals have, nothing is known.
    let mut below = std::ptr::from_ref(&end).addr();
    if !(lowest..end).contains(&below) {
        return 0;
    }
    let mut depth = 0;
    // A frame is the caller's frame, then where to return to; callers' frames are at higher addresses.
    while depth < MOST_FRAMES
        && frame > below
        && frame.is_multiple_of(size_of::<usize>())
        && frame.saturating_add(2 * size_of::<usize>()) <= end
    {
        let at = std::ptr::with_exposed_provenance::<usize>(frame);
        // SAFETY: both words are aligned and on this thread's own stack, above this function's frame.
        let [caller, returns_to] = unsafe { [at.read_volatile(), at.add(1).read_volatile()] };
        if returns_to == 0 {
            break;
        }
        frames[depth] = returns_to as u64;
        depth += 1;
        (below, frame) = (frame, caller);
    }
    depth
}

/// This thread's stack: its lowest address and its end; nothing, where the system does not say.
fn stack_of_thread() -> (usize, usize) {
    let known = STACK.get();
    if known != (0, 0) {
        return known;
    }
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut lowest, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are made by the first call, read by the second and destroyed by the third; it allocates by the C
    // library, whose allocator is another one.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 {
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut bytes);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
    }
    // Where it is not known, the empty range, which is not asked for again.
    let stack = if bytes == 0 { (1, 1) } else { (lowest.addr(), lowest.addr() + bytes) };
    STACK.set(stack);
    stack
}
