//! What the kernel programs say: rare lines, by way of aya-log and the `log` crate into tracing.

use super::error::{Context as _, KernelError};
use super::load::Kernel;
use ::log::Log;
use aya_log::EbpfLogger;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

impl Kernel {
    /// The programs' log, from the lines that wait unread. One reader at a time.
    ///
    /// # Errors
    /// The programs' maps cannot be listed (needs CAP_SYS_ADMIN).
    pub fn log(&self) -> Result<KernelLog, KernelError> {
        let logger = EbpfLogger::init_from_id(self.program_id()?)
            .map_err(|e| KernelError::refused("opening the kernel programs' log", e))?;
        Ok(KernelLog { logger })
    }
}

/// The programs' log. Readable (epoll) when there are lines.
pub struct KernelLog {
    logger: EbpfLogger<&'static dyn Log>,
}

impl KernelLog {
    /// Passes on the lines that wait, to the process's logger.
    pub fn flush(&mut self) {
        self.logger.flush();
    }

    /// Passes on lines for as long as it is polled, on the current tokio runtime.
    ///
    /// # Errors
    /// No runtime, or it ends.
    pub async fn relay(self) -> Result<Infallible, KernelError> {
        // SAFETY: the map's descriptor stays the same, and open, for as long as `self` lives.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        let waiting = || "waiting for the kernel programs' log".to_owned();
        let mut readable =
            registered.map_err(|refused| KernelError::refused(waiting(), refused.into_parts().1))?;
        loop {
            // First what waited before: only a line that finds the reader at its end wakes it.
            readable.get_mut().flush();
            let ready: io::Result<_> = readable.readable_mut().await;
            ready.context(waiting)?.clear_ready();
        }
    }
}

impl AsFd for KernelLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.logger.as_fd()
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.logger.as_raw_fd()
    }
}
