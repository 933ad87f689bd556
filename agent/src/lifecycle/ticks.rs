//! One page that the worker process writes and the keeper reads: when each worker thread was last alive.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of the page.
const PAGE_BYTES: usize = 4096;

/// The most worker threads that fit the page.
pub const MAX_THREADS: usize = PAGE_BYTES / size_of::<AtomicU64>();

/// A page of 64-bit words, shared between processes by its descriptor: an anonymous file here, or a kernel map.
#[derive(Debug)]
pub struct SharedPage {
    memory: NonNull<AtomicU64>,
}

// SAFETY: the page is only ever read and written through atomics.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// A page of an anonymous file; the descriptor is for the other process.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let file = memfd_create("evenkeel-ticks", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, PAGE_BYTES as u64)?;
        Ok((Self::map(&file)?, file))
    }

    /// Maps the first page of a file or of a map made with `BPF_F_MMAPABLE`.
    pub fn map(file: impl AsFd) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing else refers to it.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mmap gave a null page"))?;
        Ok(Self { memory })
    }

    /// The page's words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is PAGE_BYTES long, page-aligned, lives as long as self, and all access is atomic.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), MAX_THREADS) }
    }

    /// The oldest time in the page; zero words belong to no thread. `None` while no thread has ever ticked.
    pub fn oldest(&self) -> Option<u64> {
        self.words().iter().map(|word| word.load(Relaxed)).filter(|&at| at != 0).min()
    }

    /// Forgets all threads: those of a worker process that died.
    pub fn clear(&self) {
        for word in self.words() {
            word.store(0, Relaxed);
        }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping made in map(), which nothing refers to any more.
        let unmapped = unsafe { munmap(self.memory.as_ptr().cast(), PAGE_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tick_of_the_threads_that_ticked_is_seen_through_the_other_mapping() {
        let (worker, file) = SharedPage::create().unwrap();
        let keeper = SharedPage::map(&file).unwrap();
        assert_eq!(keeper.oldest(), None);
        worker.words()[0].store(30, Relaxed);
        worker.words()[1].store(20, Relaxed);
        assert_eq!(keeper.oldest(), Some(20));
        keeper.clear();
        assert_eq!(worker.oldest(), None);
    }
}
