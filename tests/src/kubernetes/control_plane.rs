//! etcd and the API server, with the controllers and the scheduler where pods are to run.
//!
//! Each control plane has an address of its own, on which all its programs listen at their usual ports: on loopback, or in a network
//! namespace.

use super::daemon::Daemon;
use super::footprint::Footprint;
use super::kubectl::Kubectl;
use super::pki::Pki;
use super::programs;
use crate::eventually;
use crate::netns::Netns;
use crate::wait::eventually_some_within;
use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Where the API server listens.
pub const API_PORT: u16 = 6443;
/// How long an API server may take to start: three seconds on an idle machine, and a minute on one that builds and tests.
pub const START_LIMIT: Duration = Duration::from_secs(180);
const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;
/// The first address of the Services' range, by which pods call the API server.
const API_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const SERVICE_RANGE: &str = "10.96.0.0/16";
const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/108";

/// How one control plane differs from another.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Run the controllers: they fill EndpointSlices, make the pods of Deployments, give each Namespace its ServiceAccount, and finish
    /// deletions of Namespaces.
    pub controllers: bool,
    /// Run the scheduler.
    pub scheduler: bool,
    /// Let Services have IPv6 addresses too.
    pub dual_stack: bool,
    /// Further arguments of the API server.
    pub api_server_arguments: Vec<String>,
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    kubectl: Kubectl,
    /// etcd; without it the API server answers errors.
    pub etcd: Daemon,
    /// The API server: kill it, freeze it, and start it again with [`Self::start_api_server`].
    pub api_server: Daemon,
    /// The controllers.
    pub controllers: Daemon,
    /// The scheduler.
    pub scheduler: Daemon,
    /// Certificates, keys and kubeconfigs.
    pub pki: Pki,
    address: Ipv4Addr,
    netns: Option<Arc<Netns>>,
    options: Options,
    // Dropped last: ends and removes all of the above.
    footprint: Arc<Footprint>,
}

impl ControlPlane {
    /// etcd and the API server on loopback, ready.
    ///
    /// # Errors
    /// With the last words of what ended instead.
    pub fn start() -> Result<Self> {
        Self::start_with(&Options::default())
    }

    /// A control plane with the controllers, on loopback, ready.
    ///
    /// # Errors
    /// With the last words of what ended instead.
    pub fn start_with_controllers() -> Result<Self> {
        Self::start_with(&Options { controllers: true, ..Options::default() })
    }

    /// A control plane with these options, on loopback, ready.
    ///
    /// # Errors
    /// With the last words of what ended instead.
    pub fn start_with(options: &Options) -> Result<Self> {
        let mut plane = Self::at(Arc::new(Footprint::create()?), free_loopback_address()?, None, options)?;
        plane.launch()?;
        Ok(plane)
    }

    /// A control plane with these options, on the loopback of that network namespace, ready unless it is to be started later
    /// ([`Self::start_etcd`], [`Self::start_api_server`]).
    ///
    /// # Errors
    /// With the last words of what ended instead.
    pub fn in_netns(netns: Arc<Netns>, options: &Options, started: bool) -> Result<Self> {
        let footprint = Arc::new(Footprint::create()?);
        let mut plane = Self::at(footprint, Ipv4Addr::LOCALHOST, Some(netns), options)?;
        if started {
            plane.launch()?;
        }
        Ok(plane)
    }

    /// The control plane of that footprint at that address, not started.
    pub(super) fn at(
        footprint: Arc<Footprint>,
        address: Ipv4Addr,
        netns: Option<Arc<Netns>>,
        options: &Options,
    ) -> Result<Self> {
        let server = format!("https://{address}:{API_PORT}");
        let pki = Pki::open(&footprint.path("pki"), &server);
        if !pki.path("ca.crt").exists() {
            Pki::create(&footprint.path("pki"), &server, &[address.into(), API_SERVICE_ADDRESS.into()])?;
        }
        std::fs::create_dir_all(footprint.path("log"))?;
        let daemon = |name: &str| {
            Daemon::at(
                name,
                footprint.cgroup(&format!("control-plane/{name}")),
                footprint.path(format!("log/{name}.log")),
            )
        };
        Ok(Self {
            kubectl: Kubectl::new(pki.kubeconfig("admin"), netns.clone(), footprint.path("kubectl-cache"))?,
            etcd: daemon("etcd")?,
            api_server: daemon("kube-apiserver")?,
            controllers: daemon("kube-controller-manager")?,
            scheduler: daemon("kube-scheduler")?,
            pki,
            address,
            netns,
            options: options.clone(),
            footprint,
        })
    }

    /// Starts everything that the options ask for, and waits until the API server is ready.
    pub(super) fn launch(&mut self) -> Result<()> {
        self.start_etcd()?;
        self.start_api_server()?;
        if self.options.controllers {
            self.start_controllers()?;
        }
        if self.options.scheduler {
            self.start_scheduler()?;
        }
        Ok(())
    }

    /// Lets everything run on when this process ends.
    pub(super) fn leave(&mut self) {
        for daemon in [&mut self.etcd, &mut self.api_server, &mut self.controllers, &mut self.scheduler] {
            daemon.leave();
        }
    }

    /// Starts etcd, on the state that it left.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_etcd(&mut self) -> Result<()> {
        let (client, peer) = (self.url("http", ETCD_PORT), self.url("http", ETCD_PEER_PORT));
        let mut command = Command::new(programs::path("etcd")?);
        command
            .args(["--name", "default", "--unsafe-no-fsync", "--log-level", "warn", "--data-dir"])
            .arg(self.footprint.path("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")]);
        self.etcd.start(command, self.open_netns()?)
    }

    /// Starts the API server, also after it was killed, and waits until it is ready.
    ///
    /// # Errors
    /// With its last words when it ends instead.
    pub fn start_api_server(&mut self) -> Result<()> {
        let address = self.address.to_string();
        let mut command = Command::new(programs::path("kube-apiserver")?);
        command
            .args(["--etcd-servers", &self.url("http", ETCD_PORT), "--bind-address", &address])
            .args(["--advertise-address", &address, "--secure-port", &API_PORT.to_string()])
            .args(["--authorization-mode", "Node,RBAC", "--allow-privileged=true", "--profiling=false"])
            .arg("--service-cluster-ip-range")
            .arg(if self.options.dual_stack { SERVICE_RANGES } else { SERVICE_RANGE })
            // Else exec and logs ask DNS for the node's name.
            .args(["--kubelet-preferred-address-types", "InternalIP"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc.cluster.local"]);
        for (flag, file) in [
            ("--client-ca-file", "ca.crt"),
            ("--tls-cert-file", "apiserver.crt"),
            ("--tls-private-key-file", "apiserver.key"),
            ("--kubelet-client-certificate", "apiserver-kubelet-client.crt"),
            ("--kubelet-client-key", "apiserver-kubelet-client.key"),
            ("--service-account-key-file", "service-accounts.pub"),
            ("--service-account-signing-key-file", "service-accounts.key"),
        ] {
            command.arg(flag).arg(self.pki.path(file));
        }
        command.arg("--cert-dir").arg(self.footprint.path("certificates"));
        command.args(&self.options.api_server_arguments);
        self.api_server.start(command, self.open_netns()?)?;
        self.wait_until_ready()
    }

    /// Waits until the API server says that it is ready.
    ///
    /// # Errors
    /// With its last words when it ends instead.
    pub fn wait_until_ready(&self) -> Result<()> {
        let ready = |api_server: &Daemon| -> Result<bool> {
            if !api_server.is_running() {
                bail!("kube-apiserver ended: {}\netcd: {}", api_server.last_words(), self.etcd.last_words());
            }
            // Cheap, as long as nobody listens.
            Ok(self.connects()? && self.kubectl.run(&["get", "--raw", "/readyz"]).is_ok())
        };
        let is_ready = || Ok(ready(&self.api_server)?.then_some(()));
        eventually_some_within(START_LIMIT, "the API server is ready", is_ready)
            .with_context(|| self.api_server.last_words())
    }

    /// Starts the controllers.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn start_controllers(&mut self) -> Result<()> {
        let mut command = Command::new(programs::path("kube-controller-manager")?);
        command
            .arg("--kubeconfig")
            .arg(self.pki.kubeconfig("kube-controller-manager"))
            .args(["--leader-elect=false", "--use-service-account-credentials=true"])
            .arg("--service-account-private-key-file")
            .arg(self.pki.path("service-accounts.key"))
            .arg("--root-ca-file")
            .arg(self.pki.path("ca.crt"))
            // Else pods' ranges are handed out in the order in which nodes come, and the nodes' CNI has its own.
            .arg("--allocate-node-cidrs=false")
            // A node that is cut off is noticed while a test waits.
            .args(["--node-monitor-grace-period", "20s"])
            .args(["--authentication-skip-lookup=true", "--bind-address", &self.address.to_string()])
            .arg("--cert-dir")
            .arg(self.footprint.path("certificates"));
        self.controllers.start(command, self.open_netns()?)?;
        // Pods are refused before.
        self.kubectl.wait_for("serviceaccount/default", "default")
    }

    /// Starts the scheduler.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_scheduler(&mut self) -> Result<()> {
        let mut command = Command::new(programs::path("kube-scheduler")?);
        command
            .arg("--kubeconfig")
            .arg(self.pki.kubeconfig("kube-scheduler"))
            .args(["--leader-elect=false", "--authentication-skip-lookup=true"])
            .args(["--bind-address", &self.address.to_string(), "--cert-dir"])
            .arg(self.footprint.path("certificates"));
        self.scheduler.start(command, self.open_netns()?)
    }

    /// Gives the API server another certificate, which it takes up while it runs.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn rotate_serving_certificate(&self) -> Result<()> {
        self.pki.issue_server(&[self.address.into(), API_SERVICE_ADDRESS.into()])
    }

    /// Its name on this machine: cgroups and network namespaces bear it.
    pub fn name(&self) -> &str {
        &self.footprint.name
    }

    /// etcd's URL.
    pub fn url_of_etcd(&self) -> String {
        self.url("http", ETCD_PORT)
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki.kubeconfig("admin")
    }

    /// The kubeconfig of a ServiceAccount: its token stands in a file, from which clients read it again, as in a pod.
    ///
    /// # Errors
    /// When there is no such ServiceAccount.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.rotate_token(namespace, name)?;
        let user = serde_json::json!({"tokenFile": token});
        self.pki.write_kubeconfig(&format!("{namespace}-{name}"), &user)
    }

    /// Writes a fresh token into the file that the ServiceAccount's kubeconfig names, and gives the file. Tokens of before stay valid,
    /// unless the ServiceAccount was deleted and made anew.
    ///
    /// # Errors
    /// When there is no such ServiceAccount.
    pub fn rotate_token(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl.run(&["create", "token", name, "-n", namespace])?;
        let file = self.pki.path(&format!("{namespace}-{name}.token"));
        std::fs::write(&file, token.trim())?;
        Ok(file)
    }

    /// The network namespace in which it is to be called; none is this process's own.
    pub fn netns(&self) -> Option<&Netns> {
        self.netns.as_deref()
    }

    fn url(&self, scheme: &str, port: u16) -> String {
        format!("{scheme}://{}:{port}", self.address)
    }

    fn open_netns(&self) -> Result<Option<std::os::fd::OwnedFd>> {
        self.netns.as_ref().map(|netns| netns.open()).transpose()
    }

    fn connects(&self) -> Result<bool> {
        const LIMIT: Duration = Duration::from_secs(1);
        let address = SocketAddr::from((self.address, API_PORT));
        let connect = || TcpStream::connect_timeout(&address, LIMIT).is_ok();
        match &self.netns {
            Some(netns) => netns.enter(connect),
            None => Ok(connect()),
        }
    }
}

/// What can be asked of the cluster by kubectl.
impl Deref for ControlPlane {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

/// A loopback address at which nobody has the control plane's ports, so that every control plane has the usual ones.
fn free_loopback_address() -> Result<Ipv4Addr> {
    use std::hash::{BuildHasher, RandomState};
    let mut address = Ipv4Addr::LOCALHOST;
    eventually("a loopback address is free", || {
        let [second, third, fourth, ..] = RandomState::new().hash_one(()).to_ne_bytes();
        address = Ipv4Addr::new(127, second, third, fourth.clamp(1, 254));
        [API_PORT, ETCD_PORT].iter().all(|&port| TcpListener::bind((address, port)).is_ok())
    })?;
    Ok(address)
}
