//! A pod's network namespace, found by the pod's first process, and whether the pod is still there. Next: [`events`](super::events), when
//! to look.

use super::netns::{Netns, inode_of_process, is_outside_of_pods};
use super::pods::{pod_of_process, program_of, started_at};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Programs that run a pod's apps on another kernel than the node's, which then sees none of their connections; a `*` stands for
/// the rest of the name.
const SANDBOXED_RUNTIMES: [&str; 8] = [
    "runsc-sandbox",
    "runsc-gofer",
    "qemu-system-*",
    "cloud-hypervisor",
    "firecracker",
    "dragonball",
    "stratovirt",
    "containerd-shim-kata-v2",
];

/// A pod's sandbox: the network namespace, and what shows that it is still the pod's.
#[derive(Debug)]
pub struct Sandbox {
    netns: Netns,
    witness: Witness,
}

#[derive(Debug)]
enum Witness {
    /// A process that runs in it (a pidfd: unlike its id, never another's).
    Process(OwnedFd),
    /// A path that stands for it.
    Path(PathBuf),
}

/// Why a pod has no network namespace that its connections could be taken in, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// No process of it runs on this node.
    NoProcess,
    /// Its processes run where this process cannot see them.
    NotVisible,
    /// Its processes are in the node's own network namespace: a runtime's first steps, or a pod that shares it.
    InNodeNamespace,
    /// Its apps run on another kernel, by this program.
    SandboxedRuntime(String),
    /// The path that stands for it leads to none, or to none that may be entered, and why.
    NotAtPath(String),
}

impl Sandbox {
    /// The sandbox of the pod with these processes ([`PodCgroups`](super::pods::PodCgroups)).
    ///
    /// # Errors
    /// Not now, or never: as said.
    pub fn of(uid: &str, processes: &[u32]) -> Result<Self, NotFound> {
        let visible: Vec<u32> = processes.iter().copied().filter(|pid| *pid != 0).collect();
        if visible.is_empty() {
            return Err(if processes.is_empty() { NotFound::NoProcess } else { NotFound::NotVisible });
        }
        let mut known: Vec<_> = visible.iter().filter_map(|pid| Some((started_at(*pid)?, *pid))).collect();
        // The sandbox's own process comes first; a later one may be in a namespace that an app made for itself.
        known.sort_unstable();
        // And so the first says what runs the pod: a virtual machine within an ordinary pod comes later.
        if let Some(program) = known.first().and_then(|(_, pid)| sandboxed_runtime(&program_of(*pid))) {
            return Err(NotFound::SandboxedRuntime(program));
        }
        let inside = known.iter().filter(|(_, pid)| matches!(is_outside_of_pods(*pid), Ok(false)));
        inside.copied().find_map(|(_, pid)| Self::of_process(uid, pid)).ok_or(NotFound::InNodeNamespace)
    }

    /// The sandbox whose network namespace is at a path, as `/run/netns/NAME`, for as long as it is.
    ///
    /// # Errors
    /// [`NotFound::NotAtPath`]; [`NotFound::InNodeNamespace`].
    pub fn at(path: &Path) -> Result<Self, NotFound> {
        let not_there = |error: &dyn fmt::Display| NotFound::NotAtPath(error.to_string());
        let netns = Netns::open(path).map_err(|error| not_there(&error))?;
        if netns.is_outside_of_pods().map_err(|error| not_there(&error))? {
            return Err(NotFound::InNodeNamespace);
        }
        Ok(Self { netns, witness: Witness::Path(path.to_owned()) })
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Whether the pod still has this network namespace; `processes` gives the pod's, if they have to be asked for.
    pub fn is_there(&mut self, uid: &str, processes: impl FnOnce() -> Vec<u32>) -> bool {
        match &self.witness {
            Witness::Process(process) if !has_ended(process) => true,
            Witness::Process(_) => self.find_witness(uid, &processes()),
            Witness::Path(path) => Netns::open(path).is_ok_and(|named| named.cookie() == self.netns.cookie()),
        }
    }

    /// Another process that shows it: the first may have been a runtime's, or there is none for the sandbox alone.
    fn find_witness(&mut self, uid: &str, processes: &[u32]) -> bool {
        let Ok(inode) = self.netns.inode() else { return false };
        let inside = processes.iter().filter(|pid| inode_of_process(**pid).is_ok_and(|of| of == inode));
        let found = inside.copied().find_map(|pid| Self::of_process(uid, pid));
        match found {
            Some(found) => {
                self.witness = found.witness;
                true
            }
            None => false,
        }
    }

    fn of_process(uid: &str, pid: u32) -> Option<Self> {
        let process = pidfd_open(Pid::from_raw(pid.try_into().ok()?)?, PidfdFlags::empty()).ok()?;
        let netns = Netns::of_process(pid).ok()?;
        // The id may have gone to another process since it was listed, but not while this one lives.
        let is_the_pods = pod_of_process(pid).is_some_and(|of| of == uid) && !has_ended(&process);
        is_the_pods.then_some(Self { netns, witness: Witness::Process(process) })
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    // A poll that fails has said nothing.
    poll(&mut ended, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

fn sandboxed_runtime(program: &str) -> Option<String> {
    let is_that = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => program.starts_with(beginning),
        None => program == pattern,
    };
    SANDBOXED_RUNTIMES.iter().any(|pattern| is_that(pattern)).then(|| program.to_owned())
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProcess => f.write_str("no process of it runs on this node yet"),
            Self::NotVisible => {
                f.write_str("its processes are not visible: the agent needs the host's PIDs (hostPID: true)")
            }
            Self::InNodeNamespace => f.write_str("its processes are in the node's network namespace"),
            Self::NotAtPath(error) => f.write_str(error),
            Self::SandboxedRuntime(program) => {
                write!(
                    f,
                    "its runtime ({program}) runs it on another kernel, whose connections the node's kernel does not see"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_with_a_kernel_of_their_own_are_known_by_their_program() {
        for program in ["runsc-sandbox", "qemu-system-x86_64", "firecracker", "containerd-shim-kata-v2"] {
            assert_eq!(sandboxed_runtime(program).as_deref(), Some(program));
        }
        for program in ["", "pause", "runc", "qemu-img", "firecracker-ctl", "containerd-shim-runc-v2"] {
            assert_eq!(sandboxed_runtime(program), None, "{program}");
        }
    }

    #[test]
    fn a_pod_without_processes_is_told_from_one_that_cannot_be_seen() {
        assert_eq!(Sandbox::of("uid", &[]).unwrap_err(), NotFound::NoProcess);
        assert_eq!(Sandbox::of("uid", &[0, 0]).unwrap_err(), NotFound::NotVisible);
        let own = std::process::id();
        assert_eq!(Sandbox::of("uid", &[own]).unwrap_err(), NotFound::InNodeNamespace);
    }
}
