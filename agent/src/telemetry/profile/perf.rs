//! The kernel's samples of one thread: a software clock that ticks while the thread is on a CPU (`perf_event_open(2)`), and the ring of
//! memory that the kernel writes the stacks into. The thread itself sees nothing of it: no signal, no code of ours.
//! Next: [`cpu`](mod@super::cpu), which reads all threads' rings.

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages of a ring, a power of two: at a hundred samples a second, of at most 2 KiB, it is full after a sixth of a second. Without
/// CAP_IPC_LOCK, 129 pages for each of the machine's CPUs are free of charge.
const RING_PAGES: usize = 8;

// `linux/perf_event.h`.
const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_TASK_CLOCK: u64 = 1;
const PERF_SAMPLE_CALLCHAIN: u64 = 1 << 5;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_SAMPLE: u32 = 9;
/// Above it are no addresses: markers of what follows in a call chain (`PERF_CONTEXT_USER`, `PERF_CONTEXT_KERNEL`, …).
const PERF_CONTEXT_MAX: u64 = -4095_i64 as u64;
const PERF_CONTEXT_USER: u64 = -512_i64 as u64;
/// No process has addresses from here on: what a register held that was no frame pointer.
const USER_END: u64 = 1 << 63;
/// Where in a ring's first page the kernel says up to where it has written, and is told up to where was read.
const DATA_HEAD: usize = 1_024;
const DATA_TAIL: usize = 1_032;

/// `struct perf_event_attr`, as long as its first version: what is used of it has not changed since.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// A thread's samples.
pub(super) struct ThreadSamples {
    _event: OwnedFd,
    ring: Ring,
}

impl ThreadSamples {
    /// Begins to sample a thread of this process, each time that it has run for the period.
    ///
    /// # Errors
    /// ESRCH: it has ended. EACCES, EPERM: the kernel does not let this process look at itself; or not into the kernel, where that is
    /// asked for. ENOSYS, ENOENT, EOPNOTSUPP: it has no such events. EMFILE, ENOMEM.
    pub(super) fn begin(thread: u32, period_ns: u64, with_kernel: bool) -> io::Result<Self> {
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            size: size_of::<Attributes>() as u32,
            config: PERF_COUNT_SW_TASK_CLOCK,
            sample_period: period_ns,
            sample_type: PERF_SAMPLE_CALLCHAIN,
            flags: EXCLUDE_HYPERVISOR | if with_kernel { 0 } else { EXCLUDE_KERNEL },
            ..Attributes::default()
        };
        let (any_cpu, no_group) = (-1, -1);
        // SAFETY: the attributes are as long as they say, and are only read.
        let event = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                thread as libc::pid_t,
                any_cpu,
                no_group,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let event = unsafe { OwnedFd::from_raw_fd(event as i32) };
        let ring = Ring::of(&event).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM) => {
                let limits = "kernel.perf_event_mlock_kb and RLIMIT_MEMLOCK leave no room for";
                io::Error::other(format!("{limits} {RING_PAGES} pages for each thread"))
            }
            _ => error,
        })?;
        Ok(Self { _event: event, ring })
    }

    /// Takes the stacks that have come since, each with the leaf first; how many were lost for want of room.
    pub(super) fn drain(&mut self, mut stack: impl FnMut(&[u64])) -> u64 {
        let (mut lost, mut frames) = (0, Vec::new());
        let head = self.ring.head();
        let mut at = self.ring.tail;
        while at < head {
            let [kind, length] = header(self.ring.word(at));
            // A record is some words with its header.
            let length = u64::from(length).max(8);
            match kind {
                PERF_RECORD_SAMPLE => {
                    let words = self.ring.word(at + 8).min((length / 8).saturating_sub(2));
                    frames.clear();
                    frames.extend(call_chain((0..words).map(|word| self.ring.word(at + 16 + 8 * word))));
                    stack(&frames);
                }
                PERF_RECORD_LOST => lost += self.ring.word(at + 16),
                _ => {}
            }
            at += length;
        }
        self.ring.give_back(at);
        lost
    }
}

/// A record's kind and length in bytes, of its first word.
fn header(word: u64) -> [u32; 2] {
    [word as u32, (word >> 48) as u32]
}

/// The addresses of a call chain, each within the instruction that was executed: what a context begins with is one, what follows are
/// addresses to return to, which may be another function's.
fn call_chain(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let (mut begins, mut is_user) = (true, false);
    words.filter_map(move |word| {
        if word >= PERF_CONTEXT_MAX {
            (begins, is_user) = (true, word == PERF_CONTEXT_USER);
            return None;
        }
        let within = if begins { word } else { word.wrapping_sub(1) };
        begins = false;
        (word != 0 && !(is_user && word >= USER_END)).then_some(within)
    })
}

/// The memory that the kernel writes records into.
struct Ring {
    memory: *mut c_void,
    page: usize,
    /// Up to where it was read.
    tail: u64,
}

// SAFETY: the memory is this ring's alone, and goes with it.
unsafe impl Send for Ring {}

impl Ring {
    fn of(event: &OwnedFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let length = page * (1 + RING_PAGES);
        // SAFETY: a mapping of its own, where the kernel likes.
        let memory = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, event, 0)
        }?;
        Ok(Self { memory, page, tail: 0 })
    }

    fn control(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: an aligned word of the first page, which lives as long as the ring and which the kernel writes atomically.
        unsafe { AtomicU64::from_ptr(self.memory.cast::<u8>().add(offset).cast()) }
    }

    fn head(&self) -> u64 {
        self.control(DATA_HEAD).load(Ordering::Acquire)
    }

    /// The word at an offset from the first that was ever written.
    fn word(&self, at: u64) -> u64 {
        let within = at as usize % (self.page * RING_PAGES);
        // SAFETY: records are some words long each, so that the word is whole within the data pages; up to the head the kernel
        // writes no more until the tail has passed it.
        unsafe { self.memory.cast::<u8>().add(self.page + within).cast::<u64>().read() }
    }

    fn give_back(&mut self, tail: u64) {
        self.tail = tail;
        self.control(DATA_TAIL).store(tail, Ordering::Release);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nothing of it is borrowed any more. It cannot fail for a mapping that is there.
        let _ = unsafe { munmap(self.memory, self.page * (1 + RING_PAGES)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_told_without_its_markers_and_with_calls_instead_of_what_follows_them() {
        let (kernel, user) = (-128_i64 as u64, -512_i64 as u64);
        let nonsense = USER_END + 8;
        let chain = [kernel, 0xffff_ffff_8100_0010, 0xffff_ffff_8100_0020, user, 0x1000, nonsense, 0x2000, 0];
        let told: Vec<_> = call_chain(chain.into_iter()).collect();
        assert_eq!(told, [0xffff_ffff_8100_0010, 0xffff_ffff_8100_001f, 0x1000, 0x1fff]);
        assert_eq!(header(0x0028_0002_0000_0009), [PERF_RECORD_SAMPLE, 40]);
    }
}
