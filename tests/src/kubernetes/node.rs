//! A node: its own network, mount, UTS, IPC, PID and cgroup namespaces, one process tree. Killing its cgroup is a power cut.
//!
//! Read on in [`super::node_init`].

use super::cluster::{
    API_ADDRESS, NODES_MAX, Options, address_of, address_v6_of, pod_range_of, pod_range_v6_of,
};
use super::daemon::Daemon;
use super::footprint::Footprint;
use super::node_files::{NodeFolder, Particulars};
use super::pki::Pki;
use super::{hierarchies, programs, runtime};
use crate::host::{self, run};
use crate::netns::Netns;
use crate::process::children;
use anyhow::{Context, Result};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// The program of the tests' crate that is a node's first process.
const CLUSTER_PROGRAM: &str = "cluster";

/// A node of a [`super::Cluster`].
#[derive(Debug)]
pub struct Node {
    /// As the API server knows it.
    pub name: String,
    /// Its address, in the network of the nodes.
    pub address: Ipv4Addr,
    /// The value of its label `topology.kubernetes.io/zone`; every node has a zone of its own.
    pub zone: String,
    /// Its network namespace, and the one of pods with hostNetwork.
    pub netns: Netns,
    /// All that runs on it: frozen, the node hangs.
    pub processes: Daemon,
    number: u8,
    options: Options,
    folder: NodeFolder,
    underlay: Arc<Netns>,
    footprint: Arc<Footprint>,
}

impl Node {
    /// The node of that number, not started.
    ///
    /// # Errors
    /// Without a cgroup2 mount.
    pub(super) fn at(
        footprint: &Arc<Footprint>,
        underlay: &Arc<Netns>,
        number: u8,
        options: Options,
    ) -> Result<Self> {
        let name = format!("node-{number}");
        let folder = NodeFolder { path: footprint.path(&name) };
        fs::create_dir_all(folder.file("log"))?;
        Ok(Self {
            address: address_of(number),
            zone: format!("zone-{number}"),
            netns: Netns::of_others(footprint.netns_name(&name)),
            processes: Daemon::at(&name, footprint.cgroup(&name), folder.file("log/node.log"))?,
            number,
            options,
            folder,
            underlay: Arc::clone(underlay),
            footprint: Arc::clone(footprint),
            name,
        })
    }

    /// Starts it, on the disk that it left.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn power_on(&mut self, pki: &Pki) -> Result<()> {
        self.plug_in()?;
        let kubeconfig = pki.kubeconfig(&format!("node-{}", self.name));
        if !kubeconfig.exists() {
            pki.issue_node(&self.name)?;
        }
        let runc = if self.without_limits()? {
            let link = self.folder.file(runtime::PROGRAM);
            if !link.exists() {
                symlink(cluster_program()?, &link)?;
            }
            link
        } else {
            programs::path("runc")?
        };
        self.folder.write(&Particulars {
            name: &self.name,
            number: self.number,
            dual_stack: self.options.dual_stack,
            programs: &programs::folder()?,
            runc: &runc,
            client_ca: &pki.path("ca.crt"),
            kube_proxy_kubeconfig: &pki.kubeconfig("kube-proxy"),
        })?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--"])
            .arg(cluster_program()?)
            .arg("node")
            .arg("--folder")
            .arg(&self.folder.path)
            .args(["--name", &self.name, "--addresses", &self.addresses(), "--zone", &self.zone])
            .arg("--kubeconfig")
            .arg(kubeconfig);
        if self.options.cgroup2_only {
            command.arg("--cgroup2-only");
        }
        self.processes.start_as_node(command, self.netns.open()?)
    }

    /// Its addresses, as the kubelet takes them.
    fn addresses(&self) -> String {
        match self.options.dual_stack {
            true => format!("{},{}", self.address, address_v6_of(self.number)),
            false => self.address.to_string(),
        }
    }

    /// Whether cgroup2 is all that the node sees, and holds no limits as cgroup v1 has the controllers.
    fn without_limits(&self) -> Result<bool> {
        Ok(self.options.cgroup2_only && hierarchies::mounted()?.len() > 1)
    }

    /// Cuts its power: everything on it ends at once. Its disk stays; its network device goes.
    ///
    /// # Errors
    /// When something does not end.
    pub fn cut_power(&mut self) -> Result<()> {
        self.processes.kill()?;
        hierarchies::remove(&self.footprint.cgroup(&self.name));
        run("ip", &["netns", "delete", self.netns.name()], "").map(drop)
    }

    /// Runs a command on the node, as root would at its console; gives what it prints.
    ///
    /// # Errors
    /// With what the command says when it fails.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let init = self.init_pid()?.to_string();
        let namespaces = ["--target", &init, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"];
        run("nsenter", &[&namespaces[..], command].concat(), "")
    }

    /// The pid of its first process, as this process's PID namespace has it.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn init_pid(&self) -> Result<i32> {
        let first = |&pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
                let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
                pids.split_whitespace().count() == 2 && pids.split_whitespace().last() == Some("1")
            })
        };
        let pids = self.processes.system_pids();
        pids.into_iter().find(first).with_context(|| format!("{} does not run", self.name))
    }

    /// The pid of a program that its init has started, such as `kubelet` or `containerd`, as this process's PID namespace has it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid_of(&self, program: &str) -> Result<i32> {
        let is_called_so = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                let called = line.split(|&byte| byte == 0).next().unwrap_or_default();
                called.ends_with(format!("/{program}").as_bytes())
            })
        };
        let pid = children(self.init_pid()?).into_iter().find(is_called_so);
        pid.with_context(|| format!("{program} does not run on {}", self.name))
    }

    /// The node's cgroup2 folder as this process sees it; `kubepods` is below.
    ///
    /// # Errors
    /// Without a cgroup2 mount.
    pub fn cgroup(&self) -> Result<PathBuf> {
        Ok(crate::cgroup::mount()?.join(self.footprint.cgroup(&self.name)))
    }

    /// The folder from which the kubelet takes pods of its own: YAML put there runs, also without an API server.
    pub fn static_pods(&self) -> PathBuf {
        self.folder.static_pods()
    }

    /// The folder of the pods' logs, one folder a pod: `NAMESPACE_NAME_UID`.
    pub fn pod_logs(&self) -> PathBuf {
        self.folder.file("var-log/pods")
    }

    /// A log of the node's: `containerd`, `kubelet`, `kube-proxy`, or `node` for its init.
    pub fn log(&self, program: &str) -> PathBuf {
        self.folder.file(&format!("log/{program}.log"))
    }

    /// Its network namespace, with a cable to the switch that joins all nodes and the control plane.
    fn plug_in(&self) -> Result<()> {
        let name = self.netns.name();
        if self.netns.path().exists() {
            return Ok(());
        }
        self.footprint.create_netns(&self.name)?;
        let cable = self.cable();
        let underlay = self.underlay.name();
        // The cable of a node that has just ended goes a moment later than it.
        crate::eventually("the cable's end is free", || {
            let add = ["link", "add", &cable, "netns", underlay, "type", "veth", "peer", "name", "eth0"];
            run("ip", &[&add[..], &["netns", name]].concat(), "").is_ok()
        })?;
        self.underlay.ip(&format!("link set {cable} master underlay up\n"))?;
        let mut set_up = format!(
            "addr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {API_ADDRESS}\n",
            self.address
        );
        for other in (1..=NODES_MAX).filter(|&other| other != self.number) {
            set_up += &format!("route add {} via {}\n", pod_range_of(other), address_of(other));
        }
        if self.options.dual_stack {
            let own = address_v6_of(self.number);
            set_up += &format!("addr add {own}/64 dev eth0 nodad\n");
            for other in (1..=NODES_MAX).filter(|&other| other != self.number) {
                set_up += &format!("route add {} via {}\n", pod_range_v6_of(other), address_v6_of(other));
            }
        }
        self.netns.ip(&set_up)
    }

    /// The switch's end of its cable.
    fn cable(&self) -> String {
        format!("cable-{}", self.number)
    }
}

/// The program of this build.
fn cluster_program() -> Result<PathBuf> {
    let program = host::binaries()?.join(CLUSTER_PROGRAM);
    host::existing(&program, "build it with `cargo build -p evenkeel-tests --bins`")
}

/// The registry, which the same program is.
pub(super) fn registry_command(store: &std::path::Path, listen: std::net::SocketAddr) -> Result<Command> {
    let mut command = Command::new(cluster_program()?);
    command.args(["registry", "--store"]).arg(store).args(["--listen", &listen.to_string()]);
    Ok(command)
}
