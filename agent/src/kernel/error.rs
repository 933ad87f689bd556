//! What can go wrong between the agent and the kernel.

use std::error::Error;
use std::{fmt, io};

/// What was tried, why it failed, and where a person can do something about it, what.
#[derive(Debug)]
pub enum KernelError {
    /// The binary carries no kernel programs.
    NoObject,
    /// The kernel, or aya, refused something.
    Refused {
        /// What was tried.
        what: String,
        /// The refusal.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A map is full.
    Full {
        /// What does not fit any more.
        what: &'static str,
        /// The map's size.
        limit: u32,
    },
    /// A descriptor that a worker process needs was not handed over.
    NotHeld {
        /// Its label.
        label: String,
    },
    /// No port of the range is free in the pod.
    NoPort {
        /// The range.
        range: std::ops::RangeInclusive<u16>,
    },
}

impl KernelError {
    /// `what` failed because of `source`.
    pub(super) fn refused(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused { what: what.into(), source: source.into() }
    }

    /// The system's number of the refusal, where a system call was refused.
    pub(super) fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.downcast_ref::<io::Error>()?.raw_os_error(),
            _ => None,
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoObject => {
                f.write_str("this binary was built without its kernel programs: run `cargo xtask build`")
            }
            Self::Refused { what, source } => {
                write!(f, "{what}: {source}")?;
                // aya's errors name the step, their sources the cause.
                let mut cause = source.source();
                while let Some(error) = cause {
                    write!(f, ": {error}")?;
                    cause = error.source();
                }
                Ok(())
            }
            Self::Full { what, limit } => write!(f, "no room for another {what}: the limit is {limit}"),
            Self::NotHeld { label } => write!(f, "the keeper did not hand over {label}"),
            Self::NoPort { range } => {
                write!(f, "every port of {}–{} is declared or in use in the pod", range.start(), range.end())
            }
        }
    }
}

impl Error for KernelError {}

/// Names what failed, on the way out.
pub(super) trait Context<T> {
    /// Adds what was tried.
    fn context(self, what: impl FnOnce() -> String) -> Result<T, KernelError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T, KernelError> {
        self.map_err(|error| KernelError::refused(what(), error))
    }
}

/// What was read of something that comes and goes: `None` if it has gone, or was never there. That is ENOENT for a path, ENODEV for
/// the open file of a cgroup, and ESRCH for a process.
pub(super) fn if_there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(error.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says no more than that something has gone: [`if_there`].
pub(super) fn is_gone(error: Option<i32>) -> bool {
    matches!(error, Some(libc::ENOENT | libc::ENODEV | libc::ESRCH))
}
