//! Finding a pod on the node: its processes, by their cgroup, and by them its network namespace. Next: [`sandbox`](super::sandbox),
//! what was found.

use super::cgroups::{by_uid, directories, processes_in, uid_and_depth_in_path};
use super::error::{Context as _, KernelError, if_there};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How far below a pod's cgroup its own processes are: in its containers' cgroups, and one further down (CRI-O's `container`, systemd's
/// `init.scope`). Still deeper are containers within a container, which have network namespaces of their own.
const DEPTH: usize = 2;

/// Where the node's pods are, as far as it was looked up: one look serves all pods that are looked for in one go.
#[derive(Debug)]
pub struct PodCgroups {
    by_uid: HashMap<String, PathBuf>,
}

impl PodCgroups {
    /// The pods that have a cgroup below `kubepods` now. Costs as many directories as there are pods, not as there are processes.
    ///
    /// # Errors
    /// The cgroups cannot be read.
    pub fn below(kubepods: &Path) -> Result<Self, KernelError> {
        let by_uid = by_uid(kubepods).context(|| format!("looking for pods below {}", kubepods.display()))?;
        Ok(Self { by_uid })
    }

    /// The ids of a pod's processes; 0 stands for one that this process' PID namespace does not show.
    ///
    /// # Errors
    /// The pod's cgroups cannot be read; not that there are none.
    pub fn processes_of(&self, uid: &str) -> Result<Vec<u32>, KernelError> {
        let mut found = Vec::new();
        if let Some(cgroup) = self.by_uid.get(uid) {
            collect(cgroup, DEPTH, &mut found)
                .context(|| format!("looking for processes in {}", cgroup.display()))?;
        }
        Ok(found)
    }
}

fn collect(cgroup: &Path, depth: usize, found: &mut Vec<u32>) -> io::Result<()> {
    found.extend(processes_in(cgroup)?);
    if depth > 0 {
        for below in directories(cgroup)? {
            collect(&below, depth - 1, found)?;
        }
    }
    Ok(())
}

/// The processes of all pods, by the pod's UID, in one pass over /proc: for nodes whose pods have no cgroup in cgroup2.
///
/// # Errors
/// /proc cannot be read.
pub fn by_process() -> Result<HashMap<String, Vec<u32>>, KernelError> {
    let mut found: HashMap<String, Vec<u32>> = HashMap::new();
    for pid in process_ids()? {
        if let Some(uid) = pod_of_process(pid)? {
            found.entry(uid).or_default().push(pid);
        }
    }
    Ok(found)
}

/// The UID of a process' pod. `None`: the process has ended, or is no pod's.
pub(super) fn pod_of_process(pid: u32) -> Result<Option<String>, KernelError> {
    Ok(read_if_there(&format!("/proc/{pid}/cgroup"))?.and_then(|cgroups| pod_of(&cgroups)))
}

/// When a process started, in clock ticks since boot: the 22nd field of proc_pid_stat(5). `None`: it has ended.
pub(super) fn started_at(pid: u32) -> Result<Option<u64>, KernelError> {
    Ok(read_if_there(&format!("/proc/{pid}/stat"))?.and_then(|stat| started_in(&stat)))
}

fn read_if_there(path: &str) -> Result<Option<String>, KernelError> {
    let read = if_there(fs::read(path)).context(|| format!("reading {path}"))?;
    // Programs and cgroups may have any bytes in their names.
    Ok(read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Whether a process is a thread of the kernel's own.
pub(super) fn is_kernel_thread(pid: u32) -> bool {
    read_if_there(&format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.is_some_and(|stat| is_kernels(&stat)))
}

fn started_in(stat: &str) -> Option<u64> {
    field(stat, 22)
}

fn is_kernels(stat: &str) -> bool {
    /// `PF_KTHREAD` of `linux/sched.h`.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    field(stat, 9).is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// A field of proc_pid_stat(5), counted from 1, behind the third.
fn field(stat: &str, number: usize) -> Option<u64> {
    // The second, a name in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(number - 3)?.parse().ok()
}

/// The program of a process, as it was called: without its folder. Empty for a process that has ended.
pub(super) fn program_of(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name);
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The UID of a process' pod, which any of its hierarchies may name. `None` for one of a container within a container, too: [`DEPTH`].
fn pod_of(cgroups: &str) -> Option<String> {
    cgroups.lines().find_map(|line| {
        // hierarchy-ID:controller-list:path, and a path may hold colons.
        let path = line.splitn(3, ':').nth(2)?;
        let (uid, depth) = uid_and_depth_in_path(path)?;
        (depth <= DEPTH).then_some(uid)
    })
}

fn process_ids() -> Result<Vec<u32>, KernelError> {
    let entries = fs::read_dir("/proc").context(|| "reading /proc".into())?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "01234567-89ab-cdef-0123-456789abcdef";

    #[test]
    fn a_process_is_of_the_pod_that_any_hierarchy_names() {
        let hybrid = format!(
            "12:memory:/kubepods/pod{UID}/c0\n1:name=systemd:/kubepods/pod{UID}/c0\n0::/system.slice/containerd.service\n"
        );
        assert_eq!(pod_of(&hybrid), Some(UID.into()));
        let pure = format!(
            "0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-a:b.scope\n",
            UID.replace('-', "_")
        );
        assert_eq!(pod_of(&pure).as_deref(), Some(UID));
        assert_eq!(pod_of("0::/init.scope\n"), None);
    }

    #[test]
    fn a_process_of_a_container_within_a_container_is_of_no_pod() {
        let at = |below: &str| pod_of(&format!("5:memory:/kubepods/besteffort/pod{UID}{below}\n"));
        for own in ["", "/c0ffee", "/crio-c0ffee.scope/container", "/c0ffee/init.scope"] {
            assert_eq!(at(own).as_deref(), Some(UID), "{own}");
        }
        for nested in ["/c0ffee/docker/decaf", "/c0ffee/kubepods/podinner/decaf"] {
            assert_eq!(at(nested), None, "{nested}");
        }
    }

    #[test]
    fn a_process_start_is_read_past_any_name() {
        let stat =
            |name: &str| format!("42 ({name}) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 8192 1\n");
        assert_eq!(started_in(&stat("pause")), Some(777));
        assert_eq!(started_in(&stat("a) S 1 2 (b")), Some(777));
        assert_eq!(started_in("42 (pause"), None);
    }

    #[test]
    fn threads_of_the_kernel_are_told_from_processes() {
        assert!(is_kernels("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 24 0 0"));
        assert!(!is_kernels("1 (systemd) S 0 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 24 8192 1"));
        assert!(!is_kernel_thread(std::process::id()));
    }
}
