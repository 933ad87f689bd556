//! All cgroup hierarchies of the machine: cgroup2, and on a hybrid machine cgroup v1's beside it. A node's processes are in
//! the same place of each, as container runtimes expect.

use crate::cgroup;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) mount: PathBuf,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// cgroup2.
    Unified,
    /// cgroup v1: the mount options that choose it, such as `cpu,cpuacct` or `none,name=systemd`.
    Controllers(String),
}

/// The hierarchies that this process sees whole, as they are mounted.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn mounted() -> Result<Vec<Hierarchy>> {
    Ok(read()?.into_iter().filter(|(root, _)| root == "/").map(|(_, hierarchy)| hierarchy).collect())
}

/// The hierarchies that are mounted, whole or in part: seen from a cgroup namespace, the machine's mounts begin above its root.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn visible() -> Result<Vec<Hierarchy>> {
    Ok(read()?.into_iter().map(|(_, hierarchy)| hierarchy).collect())
}

/// Where the hierarchies that this process sees whole are mounted.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn mounts() -> Result<Vec<PathBuf>> {
    Ok(mounted()?.into_iter().map(|hierarchy| hierarchy.mount).collect())
}

fn read() -> Result<Vec<(String, Hierarchy)>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    Ok(mounts.lines().filter_map(hierarchy).collect())
}

/// The root and the hierarchy of a line of proc_pid_mountinfo(5).
fn hierarchy(line: &str) -> Option<(String, Hierarchy)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, options) = (file_system.next()?, file_system.nth(1)?);
    let kind = match kind {
        "cgroup2" => Kind::Unified,
        "cgroup" => Kind::Controllers(choosing(options)),
        _ => return None,
    };
    Some((root.to_owned(), Hierarchy { mount: point.into(), kind }))
}

/// Of a mount's options those that say which hierarchy it is.
fn choosing(options: &str) -> String {
    const OTHERS: [&str; 4] = ["rw", "ro", "xattr", "clone_children"];
    let named = options.split(',').any(|option| option.starts_with("name="));
    let mut chosen: Vec<&str> = options
        .split(',')
        .filter(|option| !OTHERS.contains(option) && !option.starts_with("release_agent="))
        .collect();
    if named {
        chosen.insert(0, "none");
    }
    chosen.join(",")
}

/// Makes a cgroup in every hierarchy, and gives its folders.
///
/// # Errors
/// The kernel's own.
pub(super) fn create(relative: &Path) -> Result<Vec<PathBuf>> {
    let hierarchies = mounted()?;
    // Beside cgroup v1, that has the controllers.
    let delegates = hierarchies.len() == 1;
    hierarchies
        .into_iter()
        .map(|hierarchy| {
            let mut folder = hierarchy.mount;
            for part in relative {
                let parent = folder.clone();
                folder.push(part);
                if !folder.exists() {
                    if delegates {
                        delegate(&parent)?;
                    }
                    fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
                    inherit(&parent, &folder)?;
                }
            }
            Ok(folder)
        })
        .collect()
}

/// Lets the cgroups below one of cgroup2's have the controllers that it has itself; but for the root's, none of its own processes may
/// be in it.
///
/// # Errors
/// When a controller cannot be handed on.
pub(super) fn delegate(folder: &Path) -> Result<()> {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers"))?;
    for controller in controllers.split_whitespace() {
        fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"))
            .with_context(|| format!("{}: controller {controller}", folder.display()))?;
    }
    Ok(())
}

/// What a cgroup does not take over from its parent by itself, and cannot hold a process without.
fn inherit(parent: &Path, folder: &Path) -> Result<()> {
    for setting in ["cpuset.cpus", "cpuset.mems"] {
        // cgroup2's own cpuset needs none of it.
        if parent.join("cpuset.effective_cpus").exists() {
            fs::copy(parent.join(setting), folder.join(setting))
                .or_else(|_| {
                    let value = fs::read(parent.join(setting))?;
                    fs::write(folder.join(setting), &value).map(|()| value.len() as u64)
                })
                .with_context(|| folder.join(setting).display().to_string())?;
        }
    }
    Ok(())
}

/// Kills what runs in the cgroup of that name and below, and removes it from every hierarchy.
pub(crate) fn remove(relative: &Path) {
    let Ok(hierarchies) = mounted() else { return };
    let (unified, others): (Vec<_>, Vec<_>) =
        hierarchies.into_iter().partition(|hierarchy| hierarchy.kind == Kind::Unified);
    for hierarchy in unified.into_iter().chain(others) {
        cgroup::remove(&hierarchy.mount.join(relative));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_says_which_hierarchy_it_is() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(hierarchy(unified).map(|(_, found)| found.kind), Some(Kind::Unified));
        for (options, chosen) in
            [("rw,cpu,cpuacct", "cpu,cpuacct"), ("rw,xattr,name=systemd", "none,name=systemd")]
        {
            let line =
                format!("32 31 0:29 / /sys/fs/cgroup/x rw,relatime shared:9 - cgroup cgroup {options}");
            assert_eq!(
                hierarchy(&line).map(|(_, found)| found.kind),
                Some(Kind::Controllers(chosen.to_owned()))
            );
        }
    }

    #[test]
    fn other_mounts_are_no_hierarchies() {
        assert_eq!(hierarchy("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755"), None);
    }

    #[test]
    fn a_part_of_a_hierarchy_says_where_it_begins() {
        let part = hierarchy("41 31 0:38 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert_eq!(part.map(|(root, _)| root), Some("/pod".to_owned()));
    }
}
