//! Sweeps what test processes left that were killed before they could clean up.

use crate::host::NAME_PREFIX;
use crate::netns::NETNS_FOLDER;
use crate::{cgroup, host, kubernetes};
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::sync::Once;

/// Removes cgroups, namespaces and folders of the harness whose creating process is dead. Done once a process.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Err(error) = try_sweep() {
            eprintln!("leftovers of earlier runs: {error:#}");
        }
    });
}

fn try_sweep() -> Result<()> {
    for name in orphans(&cgroup::mount()?) {
        kubernetes::remove_cgroups(Path::new(&name));
    }
    for name in orphans(Path::new(NETNS_FOLDER)) {
        // Another test process may sweep at the same time: gone is gone.
        let _ = host::run("ip", &["netns", "delete", &name], "");
    }
    let clusters = kubernetes::clusters_folder()?;
    for name in orphans(&clusters) {
        let _ = fs::remove_dir_all(clusters.join(name));
    }
    Ok(())
}

/// Names in `folder` of the form `PREFIX-PID-…` whose process is not alive.
fn orphans(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| creator(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists()))
        .collect()
}

fn creator(name: &str) -> Option<&str> {
    let rest = name.strip_prefix(NAME_PREFIX)?.strip_prefix('-')?;
    let pid = rest.split('-').next()?;
    pid.parse::<u32>().is_ok().then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_harness_have_a_creator() {
        assert_eq!(creator("evenkeel-test-123-0-client"), Some("123"));
        assert_eq!(creator("evenkeel-test-abc"), None);
        assert_eq!(creator("other-123"), None);
    }
}
