//! What of the agent's numbers is told, as the control loop knows them; [`super::registry`] gives them their names.

use crate::telemetry::PathCount;
use crate::telemetry::access_log::AccessLogCounts;
use crate::telemetry::otlp::TraceCounts;

/// What the metrics are made of.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Whether this agent serves, as `/readyz` says.
    pub ready: bool,
    /// The enrolled pods.
    pub pods: Vec<PodCounts>,
    /// Pods that are to be enrolled and are not, or not yet.
    pub pods_waiting: Vec<PodObstacle>,
    /// Pods that somebody asked for and that are never enrolled as they are.
    pub pods_refused: Vec<PodObstacle>,
    /// What others attached and is in the way of the agent's programs.
    pub legacy_attachments: Vec<LegacyAttachment>,
    /// The endpoints that this node has sent calls to.
    pub endpoints: Vec<EndpointCounts>,
    /// Destinations whose connections are taken.
    pub destinations: usize,
    /// Ids of former destinations that rest.
    pub resting_ids: usize,
    /// What of the source could not be used.
    pub problems: usize,
    /// How the source's kinds of objects stand.
    pub kinds: Vec<KindCounts>,
    /// What the worker threads count.
    pub path: Vec<PathCount>,
    /// What became of the access log's records.
    pub access_log: AccessLogCounts,
    /// What became of traced calls' spans.
    pub spans: TraceCounts,
}

/// How one kind of a source's objects stands.
#[derive(Debug)]
pub struct KindCounts {
    /// Its name.
    pub kind: &'static str,
    /// Seconds since something came of it.
    pub seconds_since_contact: f64,
    /// How many are known.
    pub objects: usize,
    /// Bytes that came.
    pub bytes: u64,
    /// Lists begun.
    pub lists: u64,
    /// Tries that failed.
    pub failures: u64,
}

/// An enrolled pod's connections.
#[derive(Debug)]
pub struct PodCounts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// How many connections met each outcome at `connect()`, by its name: taken, or straight because of what.
    pub connections: Vec<(&'static str, u64)>,
    /// What its connections and calls hold.
    pub memory: MemoryCounts,
    /// Those that it had when it was enrolled.
    pub opened_before: OpenedBefore,
}

/// What a pod's connections and calls hold in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryCounts {
    /// Bytes.
    pub held: u64,
    /// Bytes that they may hold.
    pub limit: u64,
    /// Calls that were refused or ended because that was used up. From 0 on again when the pod has had no connection for a time.
    pub refused: u64,
}

/// Connections to captured addresses that a pod had when it was enrolled: they go straight until they end.
#[derive(Debug)]
pub struct OpenedBefore {
    /// Why they had not been taken, by its name.
    pub cause: &'static str,
    /// How many they were.
    pub connections: usize,
}

/// A pod that is to be enrolled and is not.
#[derive(Debug)]
pub struct PodObstacle {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Why, by its name.
    pub reason: &'static str,
}

/// A cgroup attachment of the old kind that is in the way of the agent's programs.
#[derive(Debug)]
pub struct LegacyAttachment {
    /// Where it is.
    pub cgroup: String,
    /// What it is attached as.
    pub kind: &'static str,
    /// What follows, by its name.
    pub effect: &'static str,
}

/// An endpoint's calls.
#[derive(Debug)]
pub struct EndpointCounts {
    /// `namespace/name:port`.
    pub service: String,
    /// Its address.
    pub endpoint: String,
    /// Calls begun.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls under way.
    pub active: u32,
    /// How often a pod ejected it.
    pub ejections: u64,
    /// Pods that pass it over at the moment.
    pub ejected_by: usize,
}
