//! Where a node has its cgroups, and which of them are pods'. Next: [`pods`](super::pods), the processes in them.

use super::error::{Context as _, KernelError, if_there};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The cgroup2 hierarchy's mount, also where it stands beside cgroup v1. Where there are several, as in a container with the host's
/// mounted beside its own, one that holds the whole hierarchy; on a node that is itself a container, and sees none of that kind, the
/// one that holds most.
///
/// # Errors
/// It is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf, KernelError> {
    let path = "/proc/self/mountinfo";
    // A mount may be at a path of any bytes.
    let mounts = fs::read(path).context(|| format!("reading {path}"))?;
    let found = cgroup2_in(&String::from_utf8_lossy(&mounts));
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

/// The cgroup that holds all pods of the node: `kubepods`, whether or not a pod runs yet. `None` on a node with cgroup v1 and the
/// cgroupfs driver, whose pods are elsewhere in cgroup2, and on a plain host: the root is the fallback.
///
/// It is looked for by name, since from a private cgroup namespace pods' own paths do not show it (`/../../burstable/pod…`). Where
/// several nodes share one kernel (as containers or network namespaces) there are several: then it is the one with the
/// agent's own pod in it, or else with a process that this process sees.
pub fn kubepods(mount: &Path, own_pod_uid: Option<&str>) -> Option<PathBuf> {
    let mut found = all_kubepods(mount);
    if found.len() > 1 {
        let own = found.iter().position(|kubepods| own_pod_uid.is_some_and(|uid| holds_pod(kubepods, uid)));
        let own = own.or_else(|| found.iter().position(|kubepods| holds_a_process(kubepods)))?;
        found.swap(0, own);
    }
    found.into_iter().next()
}

fn holds_pod(kubepods: &Path, uid: &str) -> bool {
    by_uid(kubepods).is_ok_and(|pods| pods.contains_key(uid))
}

/// All of that name at the level where the first is.
fn all_kubepods(mount: &Path) -> Vec<PathBuf> {
    /// A node that is itself a container has it at the fourth level: /docker/ID/kubelet.slice/kubelet-kubepods.slice.
    const DEEPEST: usize = 4;
    let mut level = vec![mount.to_owned()];
    for _ in 0..DEEPEST {
        let mut below: Vec<PathBuf> =
            level.iter().flat_map(|cgroup| directories(cgroup).unwrap_or_default()).collect();
        below.sort();
        let found: Vec<PathBuf> = below.iter().filter(|cgroup| is_kubepods(cgroup)).cloned().collect();
        if !found.is_empty() {
            return found;
        }
        level = below;
    }
    Vec::new()
}

/// Whether a process that this process' PID namespace shows is in a cgroup or below it.
fn holds_a_process(cgroup: &Path) -> bool {
    let visible = || processes_in(cgroup).is_ok_and(|pids| pids.iter().any(|pid| *pid != 0));
    visible() || directories(cgroup).is_ok_and(|below| below.iter().any(|below| holds_a_process(below)))
}

/// Whether a process that has not ended is in a cgroup or anywhere below it ("populated", as the kernel's cgroup-v2.rst has it).
///
/// # Errors
/// The cgroup cannot be read; not that there is none.
pub fn is_populated(cgroup: &Path) -> Result<bool, KernelError> {
    let path = cgroup.join("cgroup.events");
    let events = if_there(fs::read_to_string(&path)).context(|| format!("reading {}", path.display()))?;
    Ok(events.is_some_and(|events| events.lines().any(|line| line == "populated 1")))
}

/// The ids of the processes that are in a cgroup itself; 0 stands for one of another PID namespace. None if there is no such cgroup.
pub(super) fn processes_in(cgroup: &Path) -> io::Result<Vec<u32>> {
    let list = match fs::read_to_string(cgroup.join("cgroup.procs")) {
        // It is threaded: its processes are listed further up.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => None,
        read => if_there(read)?,
    };
    Ok(list.unwrap_or_default().lines().filter_map(|pid| pid.parse().ok()).collect())
}

/// The cgroups of all pods below `kubepods`, by the UID in their names: `kubepods/[CLASS/]POD`.
pub(super) fn by_uid(kubepods: &Path) -> io::Result<HashMap<String, PathBuf>> {
    let mut pods = HashMap::new();
    let mut add = |cgroup: PathBuf| {
        let uid = cgroup.file_name().and_then(|name| uid_in_component(name.to_str()?));
        match uid {
            Some(uid) => {
                pods.insert(uid, cgroup);
                None
            }
            None => Some(cgroup),
        }
    };
    let classes: Vec<PathBuf> = directories(kubepods)?.into_iter().filter_map(&mut add).collect();
    for class in classes {
        directories(&class)?.into_iter().for_each(|cgroup| drop(add(cgroup)));
    }
    Ok(pods)
}

/// The cgroups right below one. None if there is no such cgroup.
pub(super) fn directories(cgroup: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in if_there(fs::read_dir(cgroup))?.into_iter().flatten() {
        let Some(entry) = if_there(entry)? else { break };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// `kubepods` or `kubepods.slice`, the latter with any prefix, but none of its classes (`kubepods-burstable.slice`).
pub fn is_kubepods(cgroup: &Path) -> bool {
    let name = cgroup.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "kubepods" || name == "kubepods.slice" || name.ends_with("-kubepods.slice")
}

/// The UID in a pod's cgroup path, dashes restored.
pub fn uid_in_path(path: &str) -> Option<String> {
    uid_and_depth_in_path(path).map(|(uid, _)| uid)
}

/// As [`uid_in_path`], and how far below the pod's cgroup the path leads.
pub(super) fn uid_and_depth_in_path(path: &str) -> Option<(String, usize)> {
    let mut components = path.split('/');
    let uid = components.find_map(uid_in_component)?;
    Some((uid, components.count()))
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

/// Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)): the mount's root is the fourth field, its point the fifth, the type follows a
/// lone dash. In a cgroup namespace a root above the namespace's is told as `/../..` (cgroup_namespaces(7)): the higher ones come first.
fn cgroup2_in(mounts: &str) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let levels_up = root.split('/').filter(|part| *part == "..").count();
        filesystem.starts_with("cgroup2 ").then(|| (levels_up, PathBuf::from(unescape(point))))
    });
    let mut points: Vec<_> = points.collect();
    points.sort_by_key(|(levels_up, _)| std::cmp::Reverse(*levels_up));
    points.into_iter().map(|(_, point)| point).collect()
}

/// Spaces and such stand as octal escapes in mountinfo.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escape, character)| text.replace(escape, character))
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
    fn in_a_container_the_hosts_mount_comes_before_its_own() {
        let container = "30 24 0:26 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw\n\
                         31 24 0:26 /../../.. /host/sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroup2_in(container), [Path::new("/host/sys/fs/cgroup"), Path::new("/sys/fs/cgroup")]);
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
