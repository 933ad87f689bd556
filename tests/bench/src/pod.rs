//! A pod for the redirect: a network namespace and a cgroup, in which the load and the backends run. All addresses are
//! on its `lo`, so that calls cross the same kernel paths as those through the other peers.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Core, pinned};

/// What the namespaces and cgroups of all runs begin with; the process's id follows, and what the
/// pod is for.
const PREFIX: &str = "evenkeel-bench-";
/// How long killed processes may take to leave their cgroup.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
const LEAVE_POLL: Duration = Duration::from_millis(20);

/// A pod; on drop its processes are killed and it is taken away.
pub(crate) struct Pod {
    name: String,
    cgroup: PathBuf,
}

impl Pod {
    /// Makes it, with these addresses on its `lo`; `purpose` is a word that tells it from the run's other pods.
    ///
    /// # Errors
    /// If we are not root, or the kernel has no cgroup2.
    pub(crate) fn create(purpose: &str, addresses: &[Ipv4Addr]) -> Result<Self> {
        let cgroups = cgroup2()?;
        remove_leftovers(&cgroups);
        let name = format!("{PREFIX}{}-{purpose}", process::id());
        let cgroup = cgroups.join(&name);
        fs::create_dir(&cgroup).with_context(|| format!("cannot make {}", cgroup.display()))?;
        // From here on its drop cleans up.
        let pod = Self { name, cgroup };
        ip(&["netns", "add", &pod.name])?;
        ip(&["-n", &pod.name, "link", "set", "lo", "up"])?;
        for address in addresses {
            ip(&["-n", &pod.name, "address", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        Ok(pod)
    }

    /// Makes all addresses of a subnet its own.
    ///
    /// # Errors
    /// If the kernel will not have it.
    pub(crate) fn owns(&self, subnet: &str) -> Result<()> {
        ip(&["-n", &self.name, "route", "add", "local", subnet, "dev", "lo"])
    }

    /// Its network namespace's file.
    pub(crate) fn netns(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Its cgroup's folder.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A command that will run in it, as one of [`pinned`].
    pub(crate) fn command(&self, core: Core, program: impl AsRef<OsStr>) -> Command {
        // The cgroup first: `ip netns exec` puts another /sys over ours.
        const ENTER: &str = r#"echo $$ > "$0" && exec ip netns exec "$@""#;
        let mut command = pinned(core, "sh");
        command.args(["-c", ENTER]).arg(self.cgroup.join("cgroup.procs")).arg(&self.name).arg(program);
        command
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        remove(&self.name, &self.cgroup);
    }
}

/// Takes away what runs left that were killed.
fn remove_leftovers(cgroups: &Path) {
    let entries = fs::read_dir(cgroups).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let is_left = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if is_left {
            remove(&name, &entry.path());
        }
    }
}

fn remove(name: &str, cgroup: &Path) {
    // What is gone already needs no removal.
    let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    let start = std::time::Instant::now();
    while cgroup.exists() && fs::remove_dir(cgroup).is_err() && start.elapsed() < LEAVE_LIMIT {
        sleep(LEAVE_POLL);
    }
    if let Err(error) = ip(&["netns", "delete", name]) {
        eprintln!("{error:#}");
    }
}

fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let folder = fields.next()?;
        (fields.next()? == "cgroup2").then_some(folder)
    });
    Ok(mount.context("cgroup2 is not mounted")?.into())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status().context("cannot start ip")?;
    ensure!(status.success(), "`ip {}` failed", arguments.join(" "));
    Ok(())
}
