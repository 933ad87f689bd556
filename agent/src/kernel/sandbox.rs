//! A pod's network namespace, found by the pod's first process, and whether the pod is still there. Next: [`events`](super::events), when
//! to look.

use super::error::{Context as _, KernelError, if_there, is_gone};
use super::netns::{self, Netns};
use super::pods::{pod_of_process, program_of, started_at};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

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
    /// The kernel does not let this process look, or a path leads to no network namespace: what it says.
    Refused(String),
}

impl From<KernelError> for NotFound {
    fn from(error: KernelError) -> Self {
        let missing = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => {
                ": the agent needs CAP_SYS_PTRACE and CAP_SYS_ADMIN, and no security profile in their way"
            }
            _ => "",
        };
        Self::Refused(format!("{error}{missing}"))
    }
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
        let mut known = Vec::new();
        for pid in visible {
            known.extend(started_at(pid)?.map(|started| (started, pid)));
        }
        // The sandbox's own process comes first; a later one may be in a namespace that an app made for itself.
        known.sort_unstable();
        // All have ended since.
        let Some((_, first)) = known.first() else { return Err(NotFound::NoProcess) };
        // And so the first says what runs the pod: a virtual machine within an ordinary pod comes later.
        if let Some(program) = sandboxed_runtime(&program_of(*first)) {
            return Err(NotFound::SandboxedRuntime(program));
        }
        let mut not_found = NotFound::NoProcess;
        for (_, pid) in known {
            // A refusal ends the search: with the first process out of sight, a later one must not speak for the pod.
            let is_outside = netns::is_outside_of_pods(pid);
            match is_outside.context(|| format!("looking at the network namespace of process {pid}"))? {
                None => {}
                Some(true) => not_found = NotFound::InNodeNamespace,
                Some(false) => {
                    if let Some(found) = Self::of_process(uid, pid)? {
                        return Ok(found);
                    }
                }
            }
        }
        Err(not_found)
    }

    /// The sandbox whose network namespace is at a path, as `/run/netns/NAME`, for as long as it is.
    ///
    /// # Errors
    /// [`NotFound::Refused`], also where the path leads nowhere; [`NotFound::InNodeNamespace`].
    pub fn at(path: &Path) -> Result<Self, NotFound> {
        let netns = Netns::open(path)?;
        let is_outside = netns.is_outside_of_pods();
        if is_outside.context(|| format!("looking at the network namespace {}", path.display()))? {
            return Err(NotFound::InNodeNamespace);
        }
        Ok(Self { netns, witness: Witness::Path(path.to_owned()) })
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Whether the pod still has this network namespace; `processes` gives the pod's, if they have to be asked for.
    ///
    /// # Errors
    /// It cannot be told now: for want of descriptors, of memory, of a right.
    pub fn is_there<E: From<KernelError>>(
        &mut self,
        uid: &str,
        processes: impl FnOnce() -> Result<Vec<u32>, E>,
    ) -> Result<bool, E> {
        match &self.witness {
            Witness::Process(process) if !has_ended(process) => Ok(true),
            Witness::Process(_) => Ok(self.find_witness(uid, &processes()?)?),
            Witness::Path(path) => Ok(self.is_at(path)?),
        }
    }

    /// Another process that shows it: the first may have been a runtime's, or there is none for the sandbox alone.
    fn find_witness(&mut self, uid: &str, processes: &[u32]) -> Result<bool, KernelError> {
        let mut refused = None;
        for pid in processes {
            match Self::of_process(uid, *pid) {
                Ok(Some(found)) if found.netns.cookie() == self.netns.cookie() => {
                    self.witness = found.witness;
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(false), Err)
    }

    fn is_at(&self, path: &Path) -> Result<bool, KernelError> {
        match Netns::open(path) {
            Ok(named) => Ok(named.cookie() == self.netns.cookie()),
            // The path is gone, or no network namespace any more: `ip netns del` unmounts it before that.
            Err(error) if is_gone(error.raw_os_error()) => Ok(false),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::EINVAL)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The sandbox that the process is in; `None`: it has ended, or its id is of no process of the pod.
    fn of_process(uid: &str, pid: u32) -> Result<Option<Self>, KernelError> {
        let Some(id) = pid.try_into().ok().and_then(Pid::from_raw) else { return Ok(None) };
        let process = pidfd_open(id, PidfdFlags::empty()).map_err(io::Error::from);
        let Some(process) = if_there(process).context(|| format!("keeping sight of process {pid}"))? else {
            return Ok(None);
        };
        let netns = match Netns::of_process(pid) {
            Ok(netns) => netns,
            Err(error) if is_gone(error.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The id may have gone to another process since it was listed, but not while this one lives.
        let is_the_pods = pod_of_process(pid)?.is_some_and(|of| of == uid) && !has_ended(&process);
        Ok(is_the_pods.then_some(Self { netns, witness: Witness::Process(process) }))
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
            Self::Refused(refusal) => f.write_str(refusal),
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
