//! A cluster with nodes: a control plane and the nodes in network namespaces that a switch joins, cluster DNS, and a registry of images
//! made here. No packet leaves the machine.
//!
//! Read on in [`super::node`].

use super::control_plane::{self, ControlPlane};
use super::daemon::Daemon;
use super::footprint::Footprint;
use super::images::{Image, ImageStore};
use super::node::{Node, registry_command};
use super::programs;
use super::registry::REGISTRY_PORT;
use crate::netns::Netns;
use crate::wait::eventually;
use crate::{host, leftovers};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

/// The control plane's address in the network of the nodes.
pub(super) const API_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// The switch's own: else it has a port's, and when that node goes, the others send to an address that nobody has until they ask anew.
const SWITCH_MAC: &str = "02:00:0a:c8:00:01";
/// The Service of the cluster's DNS.
pub(super) const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// All pods' addresses.
pub(super) const POD_RANGE: &str = "10.244.0.0/16";
const API_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x200, 0, 0, 0, 0, 1);
/// All pods' IPv6 addresses.
pub(super) const POD_RANGE_V6: &str = "fd00:10:244::/56";
/// More have no address.
pub(super) const NODES_MAX: u8 = 9;
/// What holds a pod's namespaces.
pub(super) const PAUSE_IMAGE: &str = "registry.k8s.io/pause:local";
/// What the cluster was started with.
const OPTIONS_FILE: &str = "options.json";
const DNS_IMAGE: &str = "registry.k8s.io/coredns/coredns";
/// gRPC servers and clients: the program `peer` ([`crate::peer`]).
pub const PEER_IMAGE: &str = "evenkeel-peer";
const DNS: &str = include_str!("dns.yaml");

/// The address of the node of that number.
pub(super) fn address_of(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 0, 10 + node)
}

/// The addresses of its pods.
pub(super) fn pod_range_of(node: u8) -> String {
    format!("10.244.{node}.0/24")
}

/// The IPv6 address of the node of that number.
pub(super) fn address_v6_of(node: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x200, 0, 0, 0, 0, 0x10 + u16::from(node))
}

/// The IPv6 addresses of its pods.
pub(super) fn pod_range_v6_of(node: u8) -> String {
    format!("fd00:10:244:{node}::/64")
}

/// How one cluster differs from another.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Options {
    /// How many nodes.
    pub nodes: u8,
    /// Show the nodes nothing but cgroup2, at `/sys/fs/cgroup`, as present-day machines do. Each pod then has a cgroup namespace of its
    /// own. Where cgroup2 has no controllers, pods have no limits.
    pub cgroup2_only: bool,
    /// Give nodes and pods IPv6 addresses beside their IPv4 ones; Services get both if they ask for it (`ipFamilyPolicy`).
    pub dual_stack: bool,
}

impl Options {
    /// So many nodes, which see the machine's hierarchies as it has them, and have IPv4 addresses.
    #[must_use]
    pub const fn nodes(nodes: u8) -> Self {
        Self { nodes, cgroup2_only: false, dual_stack: false }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes: `node-1`, `node-2`, …
    pub nodes: Vec<Node>,
    /// etcd, the API server, the controllers and the scheduler.
    pub control_plane: ControlPlane,
    /// From where nodes pull, whatever registry an image's name says.
    pub registry: Daemon,
    /// What they can pull.
    pub images: ImageStore,
    options: Options,
    // Dropped last: ends and removes all of the above.
    footprint: Arc<Footprint>,
}

impl Cluster {
    /// A cluster of so many nodes that are Ready, with DNS; it goes when the value is dropped.
    ///
    /// # Errors
    /// When something of it does not come up.
    pub fn start(nodes: u8) -> Result<Self> {
        Self::start_with(Options::nodes(nodes))
    }

    /// A cluster with these options, whose nodes are Ready, with DNS; it goes when the value is dropped.
    ///
    /// # Errors
    /// When something of it does not come up.
    pub fn start_with(options: Options) -> Result<Self> {
        Self::start_at(Footprint::create()?, options)
    }

    /// The cluster that stays when this process ends.
    ///
    /// # Errors
    /// When something of it does not come up, or it is up already.
    pub fn start_lasting(options: Options) -> Result<Self> {
        ensure!(Self::find()?.is_none(), "it is up already");
        leftovers::sweep();
        // What a start that was killed, or a machine that was switched off, has left.
        Self::end_lasting()?;
        let mut cluster = Self::start_at(Footprint::lasting()?, options)?;
        // Last: a cluster without it did not come up.
        std::fs::write(cluster.footprint.path(OPTIONS_FILE), serde_json::to_vec(&options)?)?;
        cluster.leave();
        Ok(cluster)
    }

    /// Ends that cluster and removes all that was made for it, whatever of it is left.
    ///
    /// # Errors
    /// When its name is not known.
    pub fn end_lasting() -> Result<()> {
        drop(Footprint::lasting()?);
        Ok(())
    }

    /// The cluster that [`Self::start_lasting`] left running, if anything of it runs.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn find() -> Result<Option<Self>> {
        let footprint = Footprint::lasting()?;
        footprint.keep();
        let options = std::fs::read(footprint.path(OPTIONS_FILE)).unwrap_or_default();
        let Ok(options) = serde_json::from_slice(&options) else { return Ok(None) };
        // The machine may have been switched off since.
        if !footprint.is_populated()? {
            return Ok(None);
        }
        let mut cluster = Self::at(footprint, options)?;
        let numbers =
            (1..=NODES_MAX).filter(|number| cluster.footprint.path(format!("node-{number}")).exists());
        for number in numbers.collect::<Vec<u8>>() {
            cluster.add(number)?;
        }
        Ok(Some(cluster))
    }

    fn start_at(footprint: Footprint, options: Options) -> Result<Self> {
        ensure!((1..=NODES_MAX).contains(&options.nodes), "a cluster has 1 to {NODES_MAX} nodes");
        std::fs::create_dir_all(&footprint.folder)?;
        let underlay = footprint.create_netns("switch")?;
        let mut wiring = format!(
            "link add underlay address {SWITCH_MAC} type bridge\naddr add {API_ADDRESS}/24 dev underlay\nlink set underlay up\n"
        );
        for node in 1..=options.nodes {
            wiring += &format!("route add {} via {}\n", pod_range_of(node), address_of(node));
        }
        if options.dual_stack {
            wiring += &format!("addr add {API_ADDRESS_V6}/64 dev underlay nodad\n");
            for node in 1..=options.nodes {
                wiring += &format!("route add {} via {}\n", pod_range_v6_of(node), address_v6_of(node));
            }
        }
        underlay.ip(&wiring)?;
        let mut cluster = Self::at(footprint, options)?;
        cluster.start_registry()?;
        cluster.control_plane.launch()?;
        for number in 1..=options.nodes {
            cluster.add(number)?;
            cluster.power_on(usize::from(number) - 1)?;
        }
        for node in 0..cluster.nodes.len() {
            cluster.wait_until_ready(node)?;
        }
        cluster.apply(DNS)?;
        cluster.rolled_out("deployment/coredns", "kube-system")?;
        Ok(cluster)
    }

    /// The cluster of that footprint, not started, without nodes.
    fn at(footprint: Footprint, options: Options) -> Result<Self> {
        let footprint = Arc::new(footprint);
        let underlay = Arc::new(Netns::of_others(footprint.netns_name("switch")));
        let plane = control_plane::Options {
            controllers: true,
            scheduler: true,
            dual_stack: options.dual_stack,
            ..Default::default()
        };
        Ok(Self {
            options,
            nodes: Vec::new(),
            control_plane: ControlPlane::at(
                Arc::clone(&footprint),
                API_ADDRESS,
                Some(Arc::clone(&underlay)),
                &plane,
            )?,
            registry: Daemon::at(
                "registry",
                footprint.cgroup("registry"),
                footprint.path("log/registry.log"),
            )?,
            images: ImageStore::at(&footprint.path("images")),
            footprint,
        })
    }

    fn add(&mut self, number: u8) -> Result<()> {
        let underlay = Arc::new(Netns::of_others(self.footprint.netns_name("switch")));
        self.nodes.push(Node::at(&self.footprint, &underlay, number, self.options)?);
        Ok(())
    }

    fn start_registry(&mut self) -> Result<()> {
        self.images.add(PAUSE_IMAGE, &Image::of_program(&programs::path("pause")?)?)?;
        self.images.add(DNS_IMAGE, &Image::of_program(&programs::path("coredns")?)?)?;
        let peer = host::existing(
            &host::binaries()?.join("peer"),
            "build it with `cargo build -p evenkeel-tests --bins`",
        )?;
        self.images.add(PEER_IMAGE, &Image::of_program(&peer)?)?;
        let command = registry_command(&self.footprint.path("images"), (API_ADDRESS, REGISTRY_PORT).into())?;
        let netns = Netns::of_others(self.footprint.netns_name("switch")).open()?;
        self.registry.start(command, Some(netns))
    }

    /// Starts a node, on the disk that it left, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn power_on(&mut self, node: usize) -> Result<()> {
        self.nodes[node].power_on(&self.control_plane.pki)
    }

    /// Waits until the API server calls the node Ready.
    ///
    /// # Errors
    /// With the node's last words when it does not come.
    pub fn wait_until_ready(&self, node: usize) -> Result<()> {
        let node = &self.nodes[node];
        let ready = self.wait_until(&format!("node/{}", node.name), "default", |object| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            conditions
                .into_iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        ready.map(drop).with_context(|| {
            let tail = |program: &str| {
                let log = std::fs::read_to_string(node.log(program)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                lines[lines.len().saturating_sub(5)..].join("\n")
            };
            format!("{}\n{}\n{}", tail("node"), tail("containerd"), tail("kubelet"))
        })
    }

    /// Waits until a pod of a Service answers on its ClusterIP from each node: a rollout ends before kube-proxy knows of it.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_reached(&self, address: std::net::SocketAddr) -> Result<()> {
        use std::net::TcpStream;
        const LIMIT: std::time::Duration = std::time::Duration::from_secs(1);
        for node in &self.nodes {
            let connects = || TcpStream::connect_timeout(&address, LIMIT).is_ok();
            eventually(&format!("{address} answers on {}", node.name), || {
                node.netns.enter(connects).unwrap_or(false)
            })?;
        }
        Ok(())
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.footprint.folder
    }

    fn leave(&mut self) {
        self.footprint.keep();
        self.registry.leave();
        self.control_plane.leave();
        for node in &mut self.nodes {
            node.processes.leave();
        }
    }
}

impl Deref for Cluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.control_plane
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }
}
