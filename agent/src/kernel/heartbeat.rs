//! How the kernel programs know that the agent lives: a time in shared memory, that the keeper writes without a system call.
//! Next: [`pods`](super::pods), who is to be enrolled.

use super::error::{Context as _, KernelError};
use super::load::Kernel;
use evenkeel_common::names;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

impl Kernel {
    /// A copy of the heartbeat's descriptor, for [`Heartbeat::new`] in whichever process beats.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn heartbeat(&self) -> Result<OwnedFd, KernelError> {
        self.map_fd(names::HEARTBEAT)
    }
}

/// The heartbeat's memory. While it is not written for [`HEARTBEAT_LIMIT_NS`](evenkeel_common::HEARTBEAT_LIMIT_NS), connections
/// go straight.
#[derive(Debug)]
pub struct Heartbeat {
    page: NonNull<AtomicU64>,
}

/// What is mapped: the kernel gives a mappable array whole pages, and one is enough on any page size.
const MAPPED_BYTES: usize = 8;

impl Heartbeat {
    /// Maps the memory. The descriptor may be closed after.
    ///
    /// # Errors
    /// Not the descriptor of the heartbeat.
    pub fn new(map: BorrowedFd<'_>) -> Result<Self, KernelError> {
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MAPPED_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context(|| "mapping the heartbeat".into());
        }
        let page = NonNull::new(page.cast()).expect("mmap gives no null page unasked");
        Ok(Self { page })
    }

    /// Says that the agent was alive at this time: `CLOCK_MONOTONIC` nanoseconds ([`monotonic_ns`]). 0 = connections go straight
    /// from now on.
    pub fn write(&self, alive_at_ns: u64) {
        self.cell().store(alive_at_ns, Relaxed);
    }

    /// What was written last.
    pub fn read(&self) -> u64 {
        self.cell().load(Relaxed)
    }

    fn cell(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for as long as `self` lives, is page-aligned, and is shared with the kernel programs, which
        // read it whole.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), MAPPED_BYTES) };
    }
}

// SAFETY: all access to the memory is atomic.
unsafe impl Send for Heartbeat {}
// SAFETY: as above.
unsafe impl Sync for Heartbeat {}

/// The clock that the kernel programs compare with (`bpf_ktime_get_ns`).
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
