//! Names by which what a test process has made is known to be its own, and the sweeping of what processes left that were killed before they could clean up.

use crate::host::NAME_PREFIX;
use crate::netns::NETNS_FOLDER;
use crate::{host, interrupt, kubernetes};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::{Once, OnceLock};

/// The name, on this machine, of something of this process's own: `PREFIX-PID-sSTART-what`. It is swept when the process has ended.
pub fn own_name(what: impl Display) -> String {
    format!("{}-{what}", own_prefix())
}

fn own_prefix() -> &'static str {
    static PREFIX: OnceLock<String> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let own = std::process::id();
        // A PID is used again; a PID and a time of start are not.
        format!("{NAME_PREFIX}-{own}-s{}", started_at(own).unwrap_or_default())
    })
}

/// Removes cgroups, namespaces and folders of the harness whose creating process is dead, and sees to it that this process's go if it is
/// interrupted. Done once a process.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = sweep_now().and_then(|()| interrupt::then(raze_own)) {
            host::complain(&format!("leftovers of earlier runs: {error:#}"));
        }
    });
}

/// Removes cgroups, namespaces and folders of the harness whose creating process is dead.
///
/// # Errors
/// When they cannot be looked for.
pub fn sweep_now() -> Result<()> {
    remove(|name| creator(name).is_some_and(|creator| !creator.is_alive()))
}

fn raze_own() {
    if let Err(error) =
        remove(|name| name.strip_prefix(own_prefix()).is_some_and(|rest| rest.starts_with('-')))
    {
        host::complain(&format!("{error:#}"));
    }
}

/// Removes what has such a name.
fn remove(is_left: impl Fn(&str) -> bool) -> Result<()> {
    let left_in = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_left(name))
            .collect()
    };
    // One that was being removed may be left in some hierarchies only.
    let cgroups: BTreeSet<String> =
        kubernetes::cgroup_mounts()?.iter().flat_map(|mount| left_in(mount)).collect();
    for name in cgroups {
        kubernetes::remove_cgroups(Path::new(&name));
    }
    for name in left_in(Path::new(NETNS_FOLDER)) {
        // Another test process may sweep at the same time: gone is gone.
        let _ = host::run("ip", &["netns", "delete", &name], "");
    }
    let clusters = kubernetes::clusters_folder()?;
    for name in left_in(&clusters) {
        let _ = fs::remove_dir_all(clusters.join(name));
    }
    Ok(())
}

/// The process that has made something.
#[derive(Debug, PartialEq, Eq)]
struct Creator {
    pid: u32,
    /// In clock ticks since the machine's start; what other suites make does not say it.
    start: Option<u64>,
}

impl Creator {
    fn is_alive(&self) -> bool {
        started_at(self.pid).is_some_and(|start| self.start.is_none_or(|own| own == start))
    }
}

/// Whose something of that name is.
fn creator(name: &str) -> Option<Creator> {
    let mut parts = name.strip_prefix(NAME_PREFIX)?.strip_prefix('-')?.split('-');
    let pid = parts.next()?.parse().ok()?;
    let start = parts.next().and_then(|part| part.strip_prefix('s')?.parse().ok());
    Some(Creator { pid, start })
}

/// When a process was started, in clock ticks since the machine's start: proc_pid_stat(5), the 22nd field.
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second is the program's name in brackets, which may have any character in it.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let of = |pid, start| Some(Creator { pid, start });
        assert_eq!(creator("evenkeel-test-123-s456-0-client"), of(123, Some(456)));
        assert_eq!(creator("evenkeel-test-123-0-client"), of(123, None));
        assert_eq!(creator("evenkeel-test-abc"), None);
        assert_eq!(creator("other-123"), None);
        assert_eq!(creator(&own_name(7)), of(std::process::id(), started_at(std::process::id())));
    }

    #[test]
    fn a_process_that_has_the_pid_of_a_dead_one_is_another() {
        let own = std::process::id();
        let start = started_at(own).expect("it runs");
        assert!(Creator { pid: own, start: Some(start) }.is_alive());
        assert!(Creator { pid: own, start: None }.is_alive());
        assert!(!Creator { pid: own, start: Some(start + 1) }.is_alive());
        // Beyond the kernel's highest (PID_MAX_LIMIT).
        assert!(!Creator { pid: 1 << 23, start: None }.is_alive());
    }

    #[test]
    fn what_is_left_in_one_hierarchy_alone_is_swept() {
        if !host::privileged() {
            return;
        }
        let mounts = kubernetes::cgroup_mounts().expect("/proc can be read");
        for mount in mounts {
            let left = mount.join(format!("{NAME_PREFIX}-{}-s0-left", std::process::id()));
            fs::create_dir(&left).expect("a cgroup can be made");
            sweep_now().expect("it can be swept");
            assert!(!left.exists(), "{}", left.display());
        }
    }
}
