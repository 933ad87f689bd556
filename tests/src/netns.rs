//! A network namespace with a name, as a container runtime makes it.

use crate::host::{self, run};
use anyhow::{Context, Result};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

/// Where `ip netns` keeps namespaces by name.
pub const NETNS_FOLDER: &str = "/run/netns";

/// A named network namespace; the name goes on drop, the namespace when nothing in it is left.
#[derive(Debug)]
pub struct Netns {
    name: String,
    left_to_others: bool,
}

impl Netns {
    /// Makes it, with `lo` up.
    ///
    /// # Errors
    /// `ip`'s own.
    pub fn create(name: String) -> Result<Self> {
        run("ip", &["netns", "add", &name], "")?;
        let netns = Self { name, left_to_others: false };
        netns.ip("link set lo up\n")?;
        Ok(netns)
    }

    /// One that somebody else has made and will remove.
    pub fn of_others(name: String) -> Self {
        Self { name, left_to_others: true }
    }

    /// Leaves its removal to somebody else.
    #[must_use]
    pub fn left_to_others(mut self) -> Self {
        self.left_to_others = true;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file by which it can be entered.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NETNS_FOLDER).join(&self.name)
    }

    /// Opens [`Self::path`].
    ///
    /// # Errors
    /// When it has gone.
    pub fn open(&self) -> Result<OwnedFd> {
        let path = self.path();
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        Ok(file.into())
    }

    /// Runs lines of `ip` commands in it.
    ///
    /// # Errors
    /// `ip`'s own.
    pub fn ip(&self, batch: &str) -> Result<()> {
        run("ip", &["-n", &self.name, "-batch", "-"], batch).map(drop)
    }

    /// Loads rules into it, all or none.
    ///
    /// # Errors
    /// `nft`'s own.
    pub fn nft(&self, rules: &str) -> Result<()> {
        let netns = format!("--net={}", self.path().display());
        run("nsenter", &[&netns, "nft", "-f", "-"], rules).map(drop)
    }

    /// The packets that the rules of a table have met so far, such as `ip resets`: those of its rules that count.
    ///
    /// # Errors
    /// `nft`'s own, or when no rule of it counts.
    pub fn nft_counter(&self, table: &str) -> Result<u64> {
        let netns = format!("--net={}", self.path().display());
        let listed = run(
            "nsenter",
            &[&[netns.as_str(), "nft", "list", "table"][..], &table.split(' ').collect::<Vec<_>>()].concat(),
            "",
        )?;
        // `… counter packets 12 bytes 720 …`
        let counters =
            listed.split("counter packets ").skip(1).map(|rule| rule.split(' ').next()?.parse::<u64>().ok());
        let packets = counters.collect::<Option<Vec<u64>>>().filter(|packets| !packets.is_empty());
        Ok(packets.context(listed)?.iter().sum())
    }

    /// Writes a setting below `/proc/sys/net`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{setting}");
        self.enter(|| std::fs::write(&path, value).with_context(|| path.clone()))?
    }

    /// Does `work` on a thread inside the namespace: its sockets belong there.
    ///
    /// # Errors
    /// When the namespace has gone.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        within(&self.open()?, work)
    }

    /// Whether the namespace has a link of that name.
    pub fn has_link(&self, link: &str) -> bool {
        run("ip", &["-n", &self.name, "link", "show", "dev", link], "").is_ok()
    }
}

/// Does `work` on a thread inside the namespace: its sockets belong there.
///
/// # Errors
/// The kernel's own.
pub fn within<T: Send>(netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(netns)?;
            Ok(work())
        });
        match inside.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling thread into the namespace, for good.
///
/// # Errors
/// The kernel's own.
pub fn enter(netns: &OwnedFd) -> Result<()> {
    // SAFETY: an open descriptor; setns changes the calling thread only.
    if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error()).context("setns");
    }
    Ok(())
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.left_to_others {
            return;
        }
        if let Err(error) = run("ip", &["netns", "delete", &self.name], "") {
            host::complain(&format!("{error:#}"));
        }
    }
}
