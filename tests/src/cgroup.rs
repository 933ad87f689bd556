//! Folders of the cgroup2 hierarchy, on hybrid hosts and on pure ones.

use crate::wait::{WAIT_LIMIT, undisturbed_within};
use crate::{host, leftovers};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup made by the harness; on drop its processes are killed and it is removed with all below it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a cgroup at the root of the hierarchy, with a name of this process's own.
    ///
    /// # Errors
    /// Without a cgroup2 mount, or without the right to write there.
    pub fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::make(mount()?.join(leftovers::own_name(number)))
    }

    /// Makes the cgroup of that folder.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }

    /// Makes a cgroup below this one.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn child(&self, relative: &str) -> Result<Self> {
        let path = self.path.join(relative);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path })
    }

    /// Lets the kernel count and limit this cgroup's memory, by handing the controller on from the root of the hierarchy, as none of the
    /// cgroups between has a process of its own.
    ///
    /// # Errors
    /// Where cgroup2 does not have the controller: on a hybrid host cgroup v1 does.
    pub(crate) fn control_memory(&self) -> Result<()> {
        let mount = mount()?;
        let between: Vec<&Path> =
            self.path.ancestors().skip(1).take_while(|path| path.starts_with(&mount)).collect();
        for folder in between.into_iter().rev() {
            let control = folder.join("cgroup.subtree_control");
            fs::write(&control, "+memory").with_context(|| control.display().to_string())?;
        }
        Ok(())
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Kills what runs in the cgroup and below, and removes it with all below.
pub fn remove(path: &Path) {
    // Its own parent may have removed it already.
    if !path.exists() {
        return;
    }
    let _ = fs::write(path.join("cgroup.kill"), "1");
    // A process that has just ended may still hold its cgroup for a moment.
    let removed = undisturbed_within(WAIT_LIMIT, "the cgroup's processes end, and it goes", || {
        Ok((!populated(path) && (remove_empty(path).is_ok() || !path.exists())).then_some(()))
    });
    if let Err(error) = removed {
        host::complain(&format!("{}: {error:#}", path.display()));
    }
}

/// Whether a process runs in the cgroup2 folder or below.
pub(crate) fn populated(path: &Path) -> bool {
    fs::read_to_string(path.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

fn remove_empty(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_empty(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// The cgroup2 folder of a process.
///
/// # Errors
/// When it has ended, or cgroup2 is not mounted.
pub fn of(pid: i32) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let list = fs::read_to_string(&path).with_context(|| path.clone())?;
    // cgroups(7): cgroup2's line has neither a number nor controllers.
    let own = list.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(mount()?.join(own.with_context(|| format!("{path} names no cgroup of cgroup2: {list}"))?))
}

/// Where cgroup2 is mounted: `/sys/fs/cgroup` on a pure host, usually `/sys/fs/cgroup/unified` on a hybrid one.
///
/// # Errors
/// When it is not mounted.
pub fn mount() -> Result<PathBuf> {
    // proc_pid_mountinfo(5): the mount point is the fifth field, the type the first after the lone dash.
    fs::read_to_string("/proc/self/mountinfo")?
        .lines()
        .find_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let root = mount.split(' ').nth(3)?;
            let point = mount.split(' ').nth(4)?;
            (file_system.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
        })
        .context("cgroup2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
}
