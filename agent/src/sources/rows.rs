//! What of the objects of a cluster decides where a call goes: one compact row an object, and nothing else of it.
//!
//! Rows say what was written, not what follows from it: the rules are in [`control`](crate::control).

use crate::mesh::{Balancing, ObjectName, Workload};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A change of one row. A source hands changes over in batches, and a batch is applied as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The row is there, or is another now.
    Set(Row),
    /// The row is gone. That it was never there is no error.
    Remove(RowKey),
}

/// What is known of one object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// A Namespace.
    Namespace(Arc<NamespaceRow>),
    /// A Service.
    Service(Arc<ServiceRow>),
    /// An EndpointSlice.
    Slice(Arc<SliceRow>),
    /// A Pod.
    Pod(Arc<PodRow>),
    /// A Node.
    Node(Arc<NodeRow>),
}

/// What makes a row that row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RowKey {
    /// A Namespace's name.
    Namespace(Arc<str>),
    /// A Service's name.
    Service(ObjectName),
    /// An EndpointSlice's name.
    Slice(ObjectName),
    /// A Pod's UID: a pod that is made anew under its old name is another pod.
    Pod(Arc<str>),
    /// A Node's name.
    Node(Arc<str>),
}

/// A Node. Only this node's matters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its name.
    pub name: Arc<str>,
    /// Its topology zone.
    pub zone: Option<Arc<str>>,
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRow {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its pods are to be enrolled.
    pub enabled: Enabled,
    /// What to do with the connections that a pod had before it was enrolled; `None` where nothing is said.
    pub on_enrol: Option<OnEnrol>,
    /// Whether pods and Services that a service mesh has are taken all the same; `None` where nothing is said.
    pub with_mesh: Option<bool>,
    /// The waypoint of its Services.
    pub waypoint: Waypoint,
    /// Its pods are to be redirected by Istio's ztunnel.
    pub ambient: bool,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Its name.
    pub name: ObjectName,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Its cluster addresses, the primary family's first; empty for a headless one, and where none is given yet.
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// The addresses of its load balancer.
    pub load_balancer: Vec<LoadBalancerAddress>,
    /// Pods reach its endpoints on their own node only (`internalTrafficPolicy: Local`).
    pub internal_traffic_local: bool,
    /// Each source has an endpoint of its own (`sessionAffinity: ClientIP`).
    pub source_affinity: bool,
    /// `trafficDistribution`, as written, for people to see; what counts is the hints that follow from it.
    pub traffic_distribution: Option<Arc<str>>,
    /// Its waypoint.
    pub waypoint: Waypoint,
    /// Whether it is taken though it has a waypoint; `None` where nothing is said.
    pub with_mesh: Option<bool>,
    /// Its ports.
    pub ports: Vec<ServicePortRow>,
    /// How an endpoint is chosen for a call.
    pub balancing: Balancing,
    /// A headless Service whose owner asks for its calls to be balanced all the same.
    pub balance_headless: bool,
    /// Another proxy than the node's serves it (`service.kubernetes.io/service-proxy-name`).
    pub other_proxy: bool,
}

/// An address of a Service's load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancerAddress {
    /// The address.
    pub ip: IpAddr,
    /// How a pod that dials it reaches the Service.
    pub access: Access,
}

/// How a pod reaches a Service at an address of its load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// As at its cluster address: the node does not send it to the load balancer.
    Direct,
    /// Through the load balancer (`ipMode: Proxy`).
    ThroughLoadBalancer,
    /// If it is among the sources that are let in (`loadBalancerSourceRanges`).
    BySourceRange,
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// By cluster addresses (types ClusterIP, NodePort and LoadBalancer).
    ClusterIp,
    /// By its endpoints' own addresses (`clusterIP: None`).
    Headless,
    /// By another DNS name.
    ExternalName,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePortRow {
    /// Its name, by which EndpointSlices refer to it; empty where it has none.
    pub name: Arc<str>,
    /// The port that clients dial.
    pub port: u16,
    /// Its transport.
    pub transport: Transport,
    /// What is spoken on it, in the owner's words (`appProtocol`).
    pub app_protocol: Option<Arc<str>>,
    /// Where it leads, as written, for people to see; what counts is the EndpointSlices' port of its name.
    pub target: Option<Arc<str>>,
    /// The port of every node that leads to it.
    pub node_port: Option<u16>,
}

/// The transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// TCP, which is also meant where nothing is said.
    Tcp,
    /// UDP, SCTP or what else there may be: never captured.
    Other,
}

/// An EndpointSlice: some endpoints of one Service, all of one address family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceRow {
    /// Its name.
    pub name: ObjectName,
    /// The Service that it belongs to, in the same namespace.
    pub service: Arc<str>,
    /// Its TCP ports.
    pub ports: Vec<SlicePortRow>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointRow>,
    /// The weight of each.
    pub weight: u32,
}

/// A port that all endpoints of a slice listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicePortRow {
    /// The name of the Service port; empty where it has none.
    pub name: Arc<str>,
    /// The number on the endpoints.
    pub number: u16,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    /// Its address: the first, as no meaning is defined for more than one.
    pub address: IpAddr,
    /// Whether it can serve.
    pub conditions: Conditions,
    /// Its topology zone.
    pub zone: Option<Arc<str>>,
    /// The node that it runs on.
    pub node: Option<Arc<str>>,
    /// The pod behind it: `namespace/name`.
    pub pod: Option<Arc<str>>,
    /// Whom it is meant for; `None` where nothing is said.
    pub hints: Option<Arc<Hints>>,
}

/// Whom an endpoint is meant for. Each list may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hints {
    /// Clients in these zones (`hints.forZones`).
    pub zones: Box<[Arc<str>]>,
    /// Clients on these nodes (`hints.forNodes`).
    pub nodes: Box<[Arc<str>]>,
}

/// An endpoint's conditions, as written: what `None` means is [`control`](crate::control)'s to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// Ready for traffic.
    pub ready: Option<bool>,
    /// Able to serve, be it terminating or not.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRow {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// The UID in the path of its cgroup. A static pod's is another than the API's
    /// (`kubernetes.io/config.mirror`).
    pub cgroup_uid: Arc<str>,
    /// Its name.
    pub name: ObjectName,
    /// The node that it is bound to.
    pub node: Option<Arc<str>>,
    /// All of its containers have ended, for good (phase Succeeded or Failed).
    pub finished: bool,
    /// It shares the node's network namespace.
    pub host_network: bool,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// Whether it is to be enrolled, whatever its namespace says.
    pub enabled: Enabled,
    /// What to do with the connections that it had before it was enrolled; `None` where nothing is said.
    pub on_enrol: Option<OnEnrol>,
    /// Where its network namespace is, on hosts without a kubelet.
    pub netns: Option<PathBuf>,
    /// The TCP ports that its containers declare: never taken for a listener of the agent's.
    pub declared_ports: Vec<u16>,
    /// The service mesh that redirects its connections, by what stands on the pod.
    pub mesh: Option<Mesh>,
    /// Whether it is enrolled though a mesh has it; `None` where nothing is said.
    pub with_mesh: Option<bool>,
    /// Whether it is to be redirected by Istio's ztunnel, whatever its namespace says.
    pub ambient: Option<bool>,
    /// `spec.runtimeClassName`.
    pub runtime_class: Option<Arc<str>>,
    /// What it belongs to.
    pub workload: Arc<Workload>,
    /// What the agent wrote on it ([`STATUS`](crate::sources::kubernetes::labels::STATUS)).
    pub status_label: Option<Arc<str>>,
}

/// A service mesh that redirects a pod's connections to a proxy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mesh {
    /// Istio, by a sidecar.
    IstioSidecar,
    /// Istio, by the node's ztunnel.
    IstioAmbient,
    /// Linkerd.
    Linkerd,
    /// Consul.
    Consul,
    /// Kuma, and what is built on it.
    Kuma,
}

/// The label `istio.io/use-waypoint`: the proxy of Istio's that stands before a Service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Waypoint {
    /// No such label.
    #[default]
    Unset,
    /// `none`: none, whatever the namespace says.
    None,
    /// The waypoint of this name.
    Named(Arc<str>),
}

/// The value of the label `evenkeel.dev/enabled`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Enabled {
    /// No such label.
    #[default]
    Unset,
    /// `"true"`.
    Yes,
    /// `"false"`.
    No,
    /// Anything else.
    Invalid(Arc<str>),
}

/// What to do with the connections that a pod opened before it was enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnEnrol {
    /// Let them be.
    Keep,
    /// End each when it is idle, so that its client dials again.
    Reconnect,
    /// End so those alone that went straight because no agent was there; connections from before the pod was first enrolled
    /// are let be.
    ReconnectMissed,
}

impl Row {
    /// The row's key.
    pub fn key(&self) -> RowKey {
        match self {
            Row::Namespace(row) => RowKey::Namespace(row.name.clone()),
            Row::Service(row) => RowKey::Service(row.name.clone()),
            Row::Slice(row) => RowKey::Slice(row.name.clone()),
            Row::Pod(row) => RowKey::Pod(row.uid.clone()),
            Row::Node(row) => RowKey::Node(row.name.clone()),
        }
    }
}

impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowKey::Namespace(name) => write!(f, "Namespace {name}"),
            RowKey::Service(name) => write!(f, "Service {name}"),
            RowKey::Slice(name) => write!(f, "EndpointSlice {name}"),
            RowKey::Pod(uid) => write!(f, "Pod with UID {uid}"),
            RowKey::Node(name) => write!(f, "Node {name}"),
        }
    }
}
