//! Finding a pod on the node: its processes by its UID in their cgroup paths, and by them its network namespace; and whether it
//! is still there. Next: [`events`](super::events), when to look.

use super::error::{Context as _, KernelError};
use super::netns::{Netns, is_at_home};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A process that runs in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodProcess {
    /// Its process id.
    pub pid: u32,
    /// Its cgroup's path, from the root of the hierarchy that names the pod.
    pub cgroup: String,
}

/// All processes of pods, in one pass over /proc, by the pod's UID: for many pods at once.
///
/// # Errors
/// /proc cannot be read.
pub fn processes() -> Result<HashMap<String, Vec<PodProcess>>, KernelError> {
    let mut found: HashMap<String, Vec<PodProcess>> = HashMap::new();
    for pid in process_ids()? {
        // A process may end at any time.
        let Ok(cgroups) = fs::read_to_string(format!("/proc/{pid}/cgroup")) else { continue };
        if let Some((uid, cgroup)) = pod_of(&cgroups) {
            found.entry(uid).or_default().push(PodProcess { pid, cgroup });
        }
    }
    Ok(found)
}

/// The network namespace of the first of these processes that has left the host's: a runtime's child may still be in the host's
/// when its cgroup is the pod's already. `None`: not yet, or hostNetwork.
pub fn network_namespace(processes: &[PodProcess]) -> Option<Netns> {
    processes.iter().filter(|process| matches!(is_at_home(process.pid), Ok(false))).find_map(|process| {
        // It may have ended since, and its id gone to another: the cgroup is read again after the namespace is held.
        let netns = Netns::of_process(process.pid).ok()?;
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok()?;
        (pod_of(&cgroups)?.1 == process.cgroup).then_some(netns)
    })
}

/// The network namespace of the pod with this UID, by one pass over /proc; `None` as of [`network_namespace`].
///
/// # Errors
/// /proc cannot be read.
pub fn find(uid: &str) -> Result<Option<Netns>, KernelError> {
    Ok(processes()?.get(uid).and_then(|processes| network_namespace(processes)))
}

/// The network namespaces that have a process, by inode number, in one pass over /proc. A pod that was found by a process is gone
/// when its namespace ([`namespace_inode`]) is not among them.
///
/// # Errors
/// /proc cannot be read.
pub fn live_namespaces() -> Result<std::collections::HashSet<u64>, KernelError> {
    let inode = |pid: u32| Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.st_ino());
    Ok(process_ids()?.into_iter().filter_map(inode).collect())
}

/// The inode number of a network namespace, as [`live_namespaces`] gives it.
///
/// # Errors
/// No more descriptors.
pub fn namespace_inode(netns: &Netns) -> io::Result<u64> {
    use std::os::fd::AsFd as _;
    Ok(fs::File::from(netns.as_fd().try_clone_to_owned()?).metadata()?.st_ino())
}

/// Whether a path, as of `/run/netns/NAME`, still stands for this namespace.
pub fn is_named(path: &Path, netns: &Netns) -> bool {
    Netns::open(path).is_ok_and(|named| named.cookie() == netns.cookie())
}

/// The cgroup2 hierarchy's mount, also where it stands beside cgroup v1.
///
/// # Errors
/// It is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf, KernelError> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    cgroup2_in(&mounts).ok_or_else(|| {
        KernelError::refused(
            "finding cgroup2",
            "not mounted: `mount -t cgroup2 none /sys/fs/cgroup` or boot with it",
        )
    })
}

/// The cgroup that holds all pods of the node, relative to the hierarchy's mount: from the path of any one pod's process, in the
/// cgroup2 hierarchy (`0::` in `/proc/PID/cgroup`). `None` where that path names no pod: a node with cgroup v1 and the cgroupfs
/// driver has its pods' processes elsewhere in cgroup2, and its root is the fallback.
pub fn common_ancestor(pid: u32) -> Option<String> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    ancestor_in(path)
}

/// The UID in a pod's cgroup path, dashes restored.
pub fn uid_in_path(path: &str) -> Option<String> {
    path.split('/').find_map(uid_in_component)
}

/// `pod<UID>` (cgroupfs driver), or `kubepods[-burstable|-besteffort]-pod<UID with underscores>.slice` (systemd driver), the
/// latter with any prefix where the node is itself a container.
fn uid_in_component(component: &str) -> Option<String> {
    let uid = match component.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => component.strip_prefix("pod")?.to_owned(),
    };
    let is_uid = !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_uid.then_some(uid)
}

/// The pod of a process, by any of its hierarchies: the UID and the path that names it.
fn pod_of(cgroups: &str) -> Option<(String, String)> {
    cgroups.lines().find_map(|line| {
        // hierarchy-ID:controller-list:path, and a path may hold colons.
        let path = line.splitn(3, ':').nth(2)?;
        Some((uid_in_path(path)?, path.to_owned()))
    })
}

/// The path up to the last component that is a `kubepods` but not a pod's, nor a class of them.
fn ancestor_in(path: &str) -> Option<String> {
    let components: Vec<&str> = path.split('/').collect();
    let at = components.iter().position(|c| {
        let name = c.strip_suffix(".slice").unwrap_or(c);
        name == "kubepods" || name.ends_with("-kubepods")
    })?;
    Some(components.get(..=at)?.join("/"))
}

/// Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)): the mount point is the fifth field, the type follows a lone dash.
fn cgroup2_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        filesystem.starts_with("cgroup2 ").then(|| PathBuf::from(unescape(point)))
    })
}

/// Spaces and such stand as octal escapes in mountinfo.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, character)| text.replace(escape, character))
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
    fn a_pods_uid_is_found_in_every_form_of_path() {
        let underscored = UID.replace('-', "_");
        for path in [
            format!("/kubepods/burstable/pod{UID}/c0ffee"),
            format!("/kubepods/pod{UID}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-c0.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{underscored}.slice"),
            format!("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{underscored}.slice/x.scope"),
            format!("/../../../burstable/pod{UID}/c0ffee"),
        ] {
            assert_eq!(uid_in_path(&path).as_deref(), Some(UID), "{path}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(
            uid_in_path(&format!("/kubepods/burstable/pod{hash}")).as_deref(),
            Some(hash),
            "a static pod"
        );
        for path in [
            "/",
            "/kubepods",
            "/kubepods.slice/kubepods-burstable.slice",
            "/system.slice/podman.service",
            "/pod",
        ] {
            assert_eq!(uid_in_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_process_is_of_the_pod_that_any_hierarchy_names() {
        let hybrid = format!(
            "12:memory:/kubepods/pod{UID}/c0\n1:name=systemd:/kubepods/pod{UID}/c0\n0::/system.slice/containerd.service\n"
        );
        assert_eq!(pod_of(&hybrid), Some((UID.into(), format!("/kubepods/pod{UID}/c0"))));
        let pure = format!(
            "0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-a:b.scope\n",
            UID.replace('-', "_")
        );
        assert_eq!(pod_of(&pure).unwrap().0, UID);
        assert_eq!(pod_of("0::/init.scope\n"), None);
    }

    #[test]
    fn all_pods_have_one_ancestor() {
        for (path, ancestor) in [
            ("/kubepods/burstable/podab/c0", Some("/kubepods")),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab.slice/x.scope",
                Some("/kubepods.slice"),
            ),
            (
                "/docker/c0/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podab.slice/x.scope",
                Some("/docker/c0/kubelet.slice/kubelet-kubepods.slice"),
            ),
            ("/system.slice/containerd.service", None),
        ] {
            assert_eq!(ancestor_in(path).as_deref(), ancestor, "{path}");
        }
    }

    #[test]
    fn cgroup2_is_found_beside_cgroup1_and_alone() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let pure = "31 24 0:27 / /host\\040cgroup rw - cgroup2 none rw\n";
        assert_eq!(cgroup2_in(pure), Some("/host cgroup".into()));
        assert_eq!(cgroup2_in("30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"), None);
    }
}
