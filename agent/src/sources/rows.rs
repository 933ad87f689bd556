//! What of the objects of a cluster decides where a call goes: one compact row an object, and nothing else of it.
//!
//! Rows say what was written, not what follows from it: the rules are in [`control`](crate::control).

use crate::mesh::{ObjectName, Picker};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A change of one row. A source hands changes over in batches, and a batch is applied as a whole.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The row is there, or is another now.
    Set(Row),
    /// The row is gone. That it was never there is no error.
    Remove(RowKey),
}

/// What is known of one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Row {
    /// A Namespace.
    Namespace(Arc<NamespaceRow>),
    /// A Service.
    Service(Arc<ServiceRow>),
    /// An EndpointSlice.
    Slice(Arc<SliceRow>),
    /// A Pod.
    Pod(Arc<PodRow>),
}

/// What makes a row that row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RowKey {
    /// A Namespace's name.
    Namespace(Arc<str>),
    /// A Service's name.
    Service(ObjectName),
    /// An EndpointSlice's name.
    Slice(ObjectName),
    /// A Pod's UID: a pod that is made anew under its old name is another pod.
    Pod(Arc<str>),
}

/// A Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRow {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its pods are to be enrolled.
    pub enabled: Enabled,
    /// What to do with the connections that a pod had before it was enrolled; `None` where nothing is said.
    pub on_enrol: Option<OnEnrol>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRow {
    /// Its name.
    pub name: ObjectName,
    /// How it is reached.
    pub kind: ServiceKind,
    /// Its cluster addresses, the primary family's first; empty for a headless one, and where none is given yet.
    pub cluster_ips: Vec<IpAddr>,
    /// `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePortRow>,
    /// How an endpoint is chosen for a call.
    pub picker: Picker,
    /// A headless Service whose owner asks for its calls to be balanced all the same.
    pub balance_headless: bool,
    /// Another proxy than the node's serves it (`service.kubernetes.io/service-proxy-name`).
    pub other_proxy: bool,
}

/// How a Service is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// By cluster addresses (types ClusterIP, NodePort and LoadBalancer).
    ClusterIp,
    /// By its endpoints' own addresses (`clusterIP: None`).
    Headless,
    /// By another DNS name.
    ExternalName,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// The transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, which is also meant where nothing is said.
    Tcp,
    /// UDP, SCTP or what else there may be: never captured.
    Other,
}

/// An EndpointSlice: some endpoints of one Service, all of one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceRow {
    /// Its name.
    pub name: ObjectName,
    /// The Service that it belongs to, in the same namespace.
    pub service: Arc<str>,
    /// Its TCP ports.
    pub ports: Vec<SlicePortRow>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointRow>,
}

/// A port that all endpoints of a slice listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePortRow {
    /// The name of the Service port; empty where it has none.
    pub name: Arc<str>,
    /// The number on the endpoints.
    pub number: u16,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// An endpoint's conditions, as written: what `None` means is [`control`](crate::control)'s to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Ready for traffic.
    pub ready: Option<bool>,
    /// Able to serve, be it terminating or not.
    pub serving: Option<bool>,
    /// On its way out.
    pub terminating: Option<bool>,
}

/// A Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRow {
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// The UID in the path of its cgroup. A static pod's is another than the API's
    /// (`kubernetes.io/config.hash`).
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
}

/// The value of the label `evenkeel.dev/enabled`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnrol {
    /// Let them be.
    Keep,
    /// End each when it is idle, so that its client dials again.
    Reconnect,
}

impl Row {
    /// The row's key.
    pub fn key(&self) -> RowKey {
        match self {
            Row::Namespace(row) => RowKey::Namespace(row.name.clone()),
            Row::Service(row) => RowKey::Service(row.name.clone()),
            Row::Slice(row) => RowKey::Slice(row.name.clone()),
            Row::Pod(row) => RowKey::Pod(row.uid.clone()),
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
        }
    }
}
