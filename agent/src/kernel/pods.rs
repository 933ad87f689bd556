//! Finding a pod on the node: its processes by its UID in their cgroup paths, and by them its network namespace; and whether it
//! is still there. Next: [`events`](super::events), when to look.

use super::error::{Context as _, KernelError};
use super::netns::{Netns, is_outside_of_pods};
use std::collections::{HashMap, HashSet};
use std::fs;
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

/// The network namespace of these processes' pod. `None`: not yet (a runtime's child may still be in the host's namespace when its
/// cgroup is the pod's already), or hostNetwork.
pub fn network_namespace(processes: &[PodProcess]) -> Option<Netns> {
    let mut inside: Vec<_> = processes
        .iter()
        .filter(|process| matches!(is_outside_of_pods(process.pid), Ok(false)))
        .filter_map(|process| Some((started_at(process.pid)?, process)))
        .collect();
    // The sandbox's own process comes first; a later one may be in a namespace that an app made for itself.
    inside.sort_by_key(|(started, _)| *started);
    inside.into_iter().find_map(|(_, process)| {
        let netns = Netns::of_process(process.pid).ok()?;
        // It may have ended since, and its id gone to another: its cgroup is read again now that the namespace is held.
        let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok()?;
        (pod_of(&cgroups)?.1 == process.cgroup).then_some(netns)
    })
}

/// When a process started, in clock ticks since boot: the 22nd field of proc_pid_stat(5).
fn started_at(pid: u32) -> Option<u64> {
    started_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn started_in(stat: &str) -> Option<u64> {
    // The second field, a name in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(22 - 3)?.parse().ok()
}

/// The network namespace of the pod with this UID, by one pass over /proc; `None` as of [`network_namespace`].
///
/// # Errors
/// /proc cannot be read.
pub fn find(uid: &str) -> Result<Option<Netns>, KernelError> {
    Ok(processes()?.get(uid).and_then(|processes| network_namespace(processes)))
}

/// The network namespaces that have a process, by inode number, in one pass over /proc. A pod that was found by a process is gone
/// when its namespace ([`Netns::inode`]) is not among them.
///
/// # Errors
/// /proc cannot be read.
pub fn live_namespaces() -> Result<HashSet<u64>, KernelError> {
    let inode = |pid: u32| Some(fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.st_ino());
    Ok(process_ids()?.into_iter().filter_map(inode).collect())
}

/// Whether a path, as of `/run/netns/NAME`, still stands for this namespace.
pub fn is_named(path: &Path, netns: &Netns) -> bool {
    Netns::open(path).is_ok_and(|named| named.cookie() == netns.cookie())
}

/// The cgroup2 hierarchy's mount, also where it stands beside cgroup v1. Where there are several, as in a container with the host's
/// mounted beside its own, one that holds the whole hierarchy.
///
/// # Errors
/// It is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf, KernelError> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    let found = cgroup2_in(&mounts);
    let whole = found.iter().find(|mount| is_whole(mount));
    whole
        .or(found.first())
        .cloned()
        .ok_or_else(|| KernelError::refused("finding cgroup2", "it is not mounted"))
}

/// Whether a cgroup2 mount holds the whole hierarchy, not one cgroup's part: only the root has no `cgroup.events`.
pub(super) fn is_whole(mount: &Path) -> bool {
    !mount.join("cgroup.events").exists()
}

/// The cgroup that holds all pods of the node: the first `kubepods` from the top of the hierarchy, whether or not a pod runs yet.
/// `None` on a node with cgroup v1 and the cgroupfs driver, whose pods are elsewhere in cgroup2, and on a plain host: the
/// root is the fallback.
///
/// It is looked for by name, since from a private cgroup namespace pods' own paths do not show it (`/../../burstable/pod…`).
pub fn kubepods(mount: &Path) -> Option<PathBuf> {
    /// A node that is itself a container has it at the fourth level: /docker/ID/kubelet.slice/kubelet-kubepods.slice.
    const DEEPEST: usize = 4;
    let mut level = vec![mount.to_owned()];
    for _ in 0..DEEPEST {
        let mut below: Vec<PathBuf> = level.iter().flat_map(|cgroup| directories(cgroup)).collect();
        below.sort();
        if let Some(found) = below.iter().find(|cgroup| is_kubepods(cgroup)) {
            return Some(found.clone());
        }
        level = below;
    }
    None
}

fn directories(cgroup: &Path) -> Vec<PathBuf> {
    // Cgroups come and go.
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// `kubepods` or `kubepods.slice`, the latter with any prefix, but none of its classes (`kubepods-burstable.slice`).
fn is_kubepods(cgroup: &Path) -> bool {
    let name = cgroup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice")
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

/// Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)): the mount point is the fifth field, the type follows a lone dash.
fn cgroup2_in(mounts: &str) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        filesystem.starts_with("cgroup2 ").then(|| PathBuf::from(unescape(point)))
    });
    points.collect()
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
    fn a_process_start_is_read_past_any_name() {
        let stat =
            |name: &str| format!("42 ({name}) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 8192 1\n");
        assert_eq!(started_in(&stat("pause")), Some(777));
        assert_eq!(started_in(&stat("a) S 1 2 (b")), Some(777));
        assert_eq!(started_in("42 (pause"), None);
    }

    #[test]
    fn the_cgroup_of_all_pods_is_known_by_its_name() {
        for name in ["/kubepods", "/kubepods.slice", "/docker/c0/kubelet.slice/kubelet-kubepods.slice"] {
            assert!(is_kubepods(Path::new(name)), "{name}");
        }
        for name in [
            "/",
            "/kubepods/burstable",
            "/kubepods.slice/kubepods-burstable.slice",
            "/my-kubepods",
            "/kubelet.slice",
        ] {
            assert!(!is_kubepods(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn cgroup2_is_found_beside_cgroup1_and_alone() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                      31 24 0:27 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(hybrid), [Path::new("/sys/fs/cgroup/unified")]);
        let pure = "31 24 0:27 / /host\\040cgroup rw - cgroup2 none rw\n";
        assert_eq!(cgroup2_in(pure), [Path::new("/host cgroup")]);
        assert_eq!(cgroup2_in("30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n").len(), 0);
    }
}
