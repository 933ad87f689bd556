//! A program of the cluster that runs on by itself. It is known by its cgroup, not by its pid: so it is found again by
//! another process, and ends with all that it has started.

use super::hierarchies;
use crate::process::Place;
use crate::wait::{WAIT_LIMIT, eventually, undisturbed_within};
use crate::{cgroup, host};
use anyhow::{Context, Result};
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The cgroup of a node's own programs, below the node's.
const SYSTEM: &str = "system";

/// A program that is started, ended and looked after by its cgroup.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    relative: PathBuf,
    cgroup: PathBuf,
    log: PathBuf,
    /// Known to the process that started it, which must reap it.
    child: Option<Child>,
}

impl Daemon {
    /// The daemon whose cgroup has that path below each hierarchy's root, running or not.
    ///
    /// # Errors
    /// Without a cgroup2 mount.
    pub(super) fn at(name: &str, relative: PathBuf, log: PathBuf) -> Result<Self> {
        let cgroup = cgroup::mount()?.join(&relative);
        Ok(Self { name: name.to_owned(), relative, cgroup, log, child: None })
    }

    /// Starts it; what it says is added to its log.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(&mut self, command: Command, netns: Option<OwnedFd>) -> Result<()> {
        // A cgroup that was killed keeps no trace of that: the next process starts in it as in a fresh one.
        let folders = hierarchies::create(&self.relative)?;
        self.spawn(command, Place::in_all(&folders, netns)?)
    }

    /// Starts it as the first process of a node: in a cgroup namespace whose root is the daemon's cgroup, and there in `system`, as
    /// the pods' cgroups will stand beside it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start_as_node(&mut self, command: Command, netns: OwnedFd) -> Result<()> {
        let root = hierarchies::create(&self.relative)?;
        let system = hierarchies::create(&self.relative.join(SYSTEM))?;
        let place = Place::in_all(&root, Some(netns))?.with_cgroup_namespace(&system)?;
        self.spawn(command, place)
    }

    fn spawn(&mut self, mut command: Command, place: Place) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| self.log.display().to_string())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        place.in_session_of_its_own().apply(&mut command);
        let child = command.spawn().with_context(|| format!("{}: {:?}", self.name, command.get_program()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Lets it run on when this process ends.
    pub(super) fn leave(&mut self) {
        self.child = None;
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether anything of it runs.
    pub fn is_running(&self) -> bool {
        cgroup::populated(&self.cgroup)
    }

    /// The pids of its processes, less those of cgroups below.
    pub fn pids(&self) -> Vec<i32> {
        pids_in(&self.cgroup)
    }

    /// The pids of a node's own programs.
    pub(super) fn system_pids(&self) -> Vec<i32> {
        pids_in(&self.cgroup.join(SYSTEM))
    }

    /// Kills it (SIGKILL) with all that it has started, and waits until nothing is left.
    ///
    /// # Errors
    /// When something does not end.
    pub fn kill(&mut self) -> Result<()> {
        if self.cgroup.exists() {
            fs::write(self.cgroup.join("cgroup.kill"), "1").context("cgroup.kill")?;
        }
        if let Some(mut child) = self.child.take() {
            child.wait()?;
        }
        undisturbed_within(WAIT_LIMIT, &format!("{} ends", self.name), || {
            Ok((!self.is_running()).then_some(()))
        })
    }

    /// Stops it from running, as if it hung.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    /// Lets it run on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        fs::write(self.cgroup.join("cgroup.freeze"), if frozen { "1" } else { "0" })
            .context("cgroup.freeze")?;
        let expected = format!("frozen {}", u8::from(frozen));
        eventually(&format!("{}: {expected}", self.name), || {
            fs::read_to_string(self.cgroup.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == expected))
        })
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The log's last lines.
    pub fn last_words(&self) -> String {
        const LINES: usize = 15;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// The pids in a cgroup, less those of cgroups below.
pub(super) fn pids_in(cgroup: &Path) -> Vec<i32> {
    let list = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    list.lines().flat_map(str::parse).collect()
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some()
            && let Err(error) = self.kill()
        {
            host::complain(&format!("{error:#}"));
        }
    }
}
