//! A limit on a process' memory, by whichever cgroup hierarchy has that controller on this machine: cgroup v1's own beside a cgroup2
//! that has none (a hybrid host), or cgroup2.

use crate::cgroup::Cgroup;
use crate::{kubernetes, leftovers};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup whose memory is limited; it goes with the value.
#[derive(Debug)]
pub struct MemoryLimit {
    folder: PathBuf,
    files: &'static Files,
    /// cgroup v1 has a hierarchy for it.
    v1: Option<Cgroup>,
}

/// What the kernel calls them (memory.rst of cgroup v1, cgroup-v2.rst).
#[derive(Debug)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// Has a line `oom_kill N`.
    kills: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", kills: "memory.oom_control" };
const V2: Files = Files { limit: "memory.max", usage: "memory.current", kills: "memory.events" };

impl MemoryLimit {
    /// Limits the memory of what runs in that cgroup of cgroup2, or in [`Self::folder_of_v1`] as well.
    ///
    /// # Errors
    /// When no hierarchy has the controller.
    pub(crate) fn of(cgroup: &Cgroup, bytes: u64) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let v1 = kubernetes::cgroup_mounts()?.into_iter().find(|mount| mount.join(V1.limit).exists());
        let limit = match v1 {
            Some(mount) => {
                let name = leftovers::own_name(format!("memory-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
                let own = Cgroup::make(mount.join(name))?;
                Self { folder: own.path().to_owned(), files: &V1, v1: Some(own) }
            }
            None => {
                cgroup.control_memory()?;
                Self { folder: cgroup.path().to_owned(), files: &V2, v1: None }
            }
        };
        let path = limit.folder.join(limit.files.limit);
        fs::write(&path, bytes.to_string()).with_context(|| path.display().to_string())?;
        Ok(limit)
    }

    /// The cgroup that a process must be in besides that of cgroup2, for the limit to be its own.
    pub(crate) fn folder_of_v1(&self) -> Option<&Path> {
        self.v1.as_ref().map(Cgroup::path)
    }

    /// What is charged now.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.read(self.files.usage)?.trim().parse()?)
    }

    /// How many processes the kernel has ended for want of memory.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn kills(&self) -> Result<u64> {
        let counted = self.read(self.files.kills)?;
        let kills = counted.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.with_context(|| counted.clone())?.parse().context("a number of processes")
    }

    /// Which hierarchy it is of.
    pub fn hierarchy(&self) -> &'static str {
        if self.v1.is_some() { "cgroup v1" } else { "cgroup2" }
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}
