//! The first process of a node, in the node's own namespaces: mounts what a machine of its own has, then starts containerd, the kubelet
//! and kube-proxy, and starts each again when it ends, as an init system does.
//!
//! The node's cgroups: this process is in a cgroup namespace whose root is the node's own cgroup, and the hierarchies are mounted afresh
//! from inside it. So `/sys/fs/cgroup` of the node, and what a pod gets of it by hostPath, begins at the node: its `kubepods` is the only one
//! to be seen, and stands where it stands on a machine of its own.

use super::hierarchies::{self, Hierarchy, Kind};
use super::node_files::NodeFolder;
use super::programs;
use crate::host::run;
use crate::wait::eventually;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const CGROUPS: &str = "/sys/fs/cgroup";
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Parameters of the whole machine's kernel that a kubelet sets as it starts (`setupKernelTunables`), below `/proc/sys`. Here it is a
/// guest of the machine, and has a copy of each.
pub const MACHINES_PARAMETERS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
/// Lays the copies over the parameters that follow up to `--`, and becomes the program after that. Of all mounts those of `/proc` alone do not
/// come back to the node: the volumes of pods must, and a covered `/proc` would keep pods with a user namespace from mounting theirs.
const WITH_COPIES: &str = r#"set -e
mount --make-rprivate /proc
while [ "$1" != -- ]; do
  copy=/run/parameters/$1
  mkdir -p "${copy%/*}"
  cat "/proc/sys/$1" >"$copy"
  mount --bind "$copy" "/proc/sys/$1"
  shift
done
shift
exec "$@""#;
/// Between the end of a program and its next start.
const START_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Arguments of `cluster node`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The node's folder.
    #[arg(long)]
    folder: PathBuf,
    /// The node's name.
    #[arg(long)]
    name: String,
    /// Its addresses: IPv4, and IPv6 if it has one.
    #[arg(long)]
    addresses: String,
    /// Its zone, as a label says it.
    #[arg(long)]
    zone: String,
    /// The kubelet's kubeconfig.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// Mount nothing but cgroup2 at `/sys/fs/cgroup`.
    #[arg(long)]
    cgroup2_only: bool,
}

impl Arguments {
    /// Is the node's init. Ends only by a signal that cannot be caught.
    ///
    /// # Errors
    /// When a mount or a program cannot be had.
    pub fn run(&self) -> Result<()> {
        let folder = NodeFolder { path: self.folder.clone() };
        mount(&folder, self.cgroup2_only)?;
        fs::write("/proc/sys/kernel/hostname", &self.name)?;
        for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(Path::new("/proc/sys/net").join(family), "1")?;
        }
        let mut running = BTreeMap::new();
        for program in self.programs(&folder) {
            running.insert(program.start()?, program.clone());
            if program.name == "containerd" {
                eventually("containerd listens", || UnixStream::connect(CONTAINERD_SOCKET).is_ok())?;
            }
        }
        loop {
            // Of the orphans that come to process 1, too.
            let ended = wait_for_any();
            if let Some(program) = ended.and_then(|pid| running.remove(&pid)) {
                std::thread::sleep(START_AGAIN_AFTER);
                running.insert(program.start()?, program);
            }
        }
    }

    fn programs(&self, folder: &NodeFolder) -> Vec<Program> {
        let path = |file: &str| folder.file(file).to_string_lossy().into_owned();
        let program = |name: &'static str, arguments: Vec<String>| Program {
            name,
            arguments,
            log: folder.file(&format!("log/{name}.log")),
            sets_machines_parameters: name == "kubelet",
        };
        vec![
            program("containerd", vec!["--config".to_owned(), path("containerd.toml")]),
            program(
                "kubelet",
                vec![
                    format!("--config={}", path("kubelet.yaml")),
                    format!("--kubeconfig={}", self.kubeconfig.display()),
                    format!("--hostname-override={}", self.name),
                    format!("--node-ip={}", self.addresses),
                    format!("--node-labels=topology.kubernetes.io/zone={}", self.zone),
                    "--cert-dir=/var/lib/kubelet/pki".to_owned(),
                ],
            ),
            program("kube-proxy", vec![format!("--config={}", path("kube-proxy.yaml"))]),
        ]
    }
}

#[derive(Clone)]
struct Program {
    name: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    sets_machines_parameters: bool,
}

impl Program {
    /// Its pid.
    fn start(&self) -> Result<i32> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let folder = programs::folder()?;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let program = folder.join(self.name);
        let mut command = if self.sets_machines_parameters {
            let mut command = Command::new("unshare");
            command.args(["--mount", "--propagation", "unchanged", "sh", "-c", WITH_COPIES, "sh"]);
            command.args(MACHINES_PARAMETERS).arg("--").arg(program);
            command
        } else {
            Command::new(program)
        };
        let child = command
            .args(&self.arguments)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| self.name)?;
        Ok(child.id().cast_signed())
    }
}

/// The next child that ends.
fn wait_for_any() -> Option<i32> {
    // SAFETY: no status is asked for.
    let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
    if pid < 0 {
        // There is no child, which cannot last: a program is about to be started again.
        std::thread::sleep(START_AGAIN_AFTER);
    }
    (pid > 0).then_some(pid)
}

fn mount(folder: &NodeFolder, cgroup2_only: bool) -> Result<()> {
    // Before the old mounts go: they say which hierarchies there are, and where.
    let mut hierarchies = hierarchies::visible()?;
    let mut names = other_names(Path::new(CGROUPS));
    if cgroup2_only {
        hierarchies = vec![Hierarchy { mount: CGROUPS.into(), kind: Kind::Unified }];
        names.clear();
    }
    // Else the machine's cgroups would still be in the list of mounts, below the node's own.
    run("umount", &["--recursive", "--lazy", "/sys"], "")?;
    // Mounts of containers must come back to the node, and none may leave it.
    run("mount", &["--make-rshared", "/"], "")?;
    // Of the node's own network devices.
    run("mount", &["-t", "sysfs", "sysfs", "/sys"], "")?;
    mount_cgroups(&hierarchies, &names)?;
    run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"], "")?;
    run("mount", &["-t", "tracefs", "tracefs", "/sys/kernel/tracing"], "")?;
    run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], "")?;
    for folder in ["/run/netns", "/run/lock"] {
        fs::create_dir_all(folder)?;
    }
    for (name, place) in NodeFolder::STATE {
        fs::create_dir_all(place)?;
        run("mount", &["--bind", &folder.file(name).to_string_lossy(), place], "")?;
    }
    Ok(())
}

/// Mounts each hierarchy where the machine has it; from here, its root is the node's own cgroup.
fn mount_cgroups(hierarchies: &[Hierarchy], names: &[(PathBuf, PathBuf)]) -> Result<()> {
    if hierarchies.iter().any(|hierarchy| hierarchy.mount != Path::new(CGROUPS)) {
        run("mount", &["-t", "tmpfs", "-o", "mode=755", "tmpfs", CGROUPS], "")?;
    }
    for hierarchy in hierarchies {
        fs::create_dir_all(&hierarchy.mount)?;
        let place = hierarchy.mount.to_string_lossy();
        match &hierarchy.kind {
            Kind::Unified => run("mount", &["-t", "cgroup2", "cgroup2", &place], "")?,
            Kind::Controllers(options) => {
                run("mount", &["-t", "cgroup", "-o", options, "cgroup", &place], "")?
            }
        };
        if hierarchy.kind == Kind::Unified {
            hierarchies::delegate(&hierarchy.mount)?;
        }
    }
    for (name, target) in names {
        symlink(target, name)?;
    }
    Ok(())
}

/// Links such as `cpu` to `cpu,cpuacct`.
fn other_names(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect()
}
