//! What the world looks like, for people and programs that ask the admin endpoint.

use crate::mesh::{CheckAnswer, EjectionReason};
use schemars::JsonSchema;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServiceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster addresses, external addresses and addresses of its load balancer.
    pub addresses: Vec<IpAddr>,
    /// How an endpoint is chosen for a call.
    pub picker: &'static str,
    /// What a picker that hashes goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_on: Option<String>,
    /// `internalTrafficPolicy`, where it is not `Cluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<&'static str>,
    /// `trafficDistribution`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    /// Its ports.
    pub ports: Vec<PortView>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PortView {
    /// The port that clients dial.
    pub port: u16,
    /// Its name; empty where it has none.
    pub name: String,
    /// `appProtocol`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// The addresses whose connections are captured.
    pub captured: Vec<SocketAddr>,
    /// Why connections to the port go straight, where they do; addresses that go straight while others of the port are
    /// captured have their own line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub straight: Vec<String>,
    /// How many endpoints may serve a call.
    pub endpoints: usize,
    /// The endpoints that get no calls from this node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<UnusedView>,
}

/// An endpoint that gets no calls from this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UnusedView {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Why.
    pub reason: String,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// An endpoint of a captured Service port.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EndpointView {
    /// The Service port: `namespace/name:port`.
    pub service_port: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its topology zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Calls under way.
    pub active: u32,
    /// Calls begun since the endpoint was first seen.
    pub calls: u64,
    /// Calls of those that failed.
    pub failures: u64,
    /// Pods of the node that pass it over at the moment, as it failed their calls.
    #[serde(skip_serializing_if = "is_zero")]
    pub ejected_by: usize,
    /// So many do that all do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ejected: bool,
    /// Its health check says that it does not serve.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
    /// How often it was ejected by a pod.
    #[serde(skip_serializing_if = "is_zero")]
    pub ejections: u64,
    /// Why it was ejected: by the pod that takes it back last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection_reason: Option<EjectionReason>,
    /// Until the last pod takes it back, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_for_seconds: Option<u64>,
    /// What its last health check came to; absent where it was never asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<CheckAnswer>,
    /// When that was, in seconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_checked_seconds: Option<u64>,
    /// Its weight; 100 where nothing is said.
    pub weight: u32,
    /// Its part of the calls to the Service port that this node has begun, in percent; absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_percent: Option<f64>,
    /// The moving average of the time to response headers, in microseconds; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PodView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is to be enrolled.
    pub enrol: bool,
    /// Why not, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is done with connections from before its enrolment: `keep`, `reconnect` or `reconnect-missed`.
    pub on_enrol: &'static str,
}

/// How the ids of destinations are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IdsView {
    /// How many there can be.
    pub capacity: u32,
    /// In the kernel's map of destinations.
    pub live: usize,
    /// On the way out of it, or out of it and not used again yet, as a connection may still carry them.
    pub resting: usize,
}
