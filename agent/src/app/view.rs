//! What the admin endpoint shows, put together from what control, the workers and the pods' enrolments know.

use super::enrolments::{EnrolledView, Live};
use super::neighbours::Neighbours;
use crate::admin::Filter;
use crate::control::view::{EndpointView, IdsView, PodView};
use crate::kernel::show::KernelFacts;
use crate::mesh::Snapshot;
use crate::proxy::{Counters, WorkerView};
use crate::sources::kubernetes::KindView;
use crate::telemetry::{EndpointCounts, KindCounts};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// A pod, with what became of the wish to enrol it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PodStandingView {
    #[serde(flatten)]
    pod: PodView,
    /// Whether it is enrolled; absent where it is not to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrolled: Option<bool>,
    /// One word for the reason why it is not enrolled though that was asked for, the same as in the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_name: Option<&'static str>,
    /// For how long it has waited to be enrolled, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_seconds: Option<u64>,
    #[serde(flatten)]
    enrolment: Option<Box<EnrolledView>>,
}

/// Each pod, with what became of the wish to enrol it.
pub(super) fn pods(
    pods: Vec<PodView>,
    mut live: HashMap<Arc<str>, Live>,
    refused: &HashMap<&str, &'static str>,
    filter: &Filter,
) -> Vec<PodStandingView> {
    let rows = pods.into_iter().map(|mut pod| {
        let (enrolled, reason_name, waiting_seconds, enrolment) = match live.remove(pod.uid.as_str()) {
            None => (None, refused.get(pod.uid.as_str()).copied(), None, None),
            Some(Live::Waiting { reason, reason_name, seconds }) => {
                pod.reason = Some(reason);
                (Some(false), Some(reason_name), Some(seconds), None)
            }
            Some(Live::Enrolled(enrolled)) => (Some(true), None, None, Some(enrolled)),
        };
        PodStandingView { pod, enrolled, reason_name, waiting_seconds, enrolment }
    });
    let takes = |row: &PodStandingView| {
        filter.enrolled.is_none_or(|enrolled| enrolled == row.enrolled.unwrap_or(false))
    };
    rows.filter(takes).collect()
}

/// What the worker threads have counted together, and how each stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WorkersView {
    #[serde(flatten)]
    pub(super) counters: Counters,
    /// Each worker thread.
    pub(super) workers: Vec<WorkerView>,
}

/// The state that calls go by.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SnapshotView {
    /// Counts up with each change, from the start of the worker process.
    version: u64,
    /// The lowest version that a worker thread goes by.
    applied: u64,
    /// The version that each worker thread goes by.
    workers: Vec<AppliedView>,
    /// What of a cluster each kind is known of, and how old that is; empty for a folder.
    source: Vec<KindView>,
    /// The captured addresses, by their Service ports.
    destinations: Vec<DestinationView>,
}

/// What a worker thread goes by.
#[derive(Debug, Serialize, JsonSchema)]
struct AppliedView {
    /// The worker thread, counted from 0.
    worker: usize,
    /// The version.
    version: u64,
}

/// A captured address.
#[derive(Debug, Serialize, JsonSchema)]
struct DestinationView {
    /// What apps dial.
    address: SocketAddr,
    /// The loopback address that stands for it between the kernel and the agent.
    loopback: Ipv4Addr,
    /// Where its calls go: `namespace/name:port`.
    service_port: String,
    /// How many endpoints they may go to.
    endpoints: usize,
}

/// The snapshot as the workers have it.
pub(super) fn snapshot(
    snapshot: &Snapshot,
    workers: Vec<u64>,
    source: Vec<KindView>,
    filter: &Filter,
) -> SnapshotView {
    let wanted = snapshot.destinations.iter().filter(|(_, to)| filter.takes_port(&to.backend.service_port));
    let mut destinations: Vec<_> = wanted
        .map(|(id, to)| DestinationView {
            address: to.original,
            loopback: id.to_loopback(),
            service_port: to.backend.service_port.to_string(),
            endpoints: to.backend.endpoints.len(),
        })
        .collect();
    destinations
        .sort_by(|one, other| (&one.service_port, one.address).cmp(&(&other.service_port, other.address)));
    SnapshotView {
        version: snapshot.version,
        applied: workers.iter().copied().min().unwrap_or(0),
        workers: (workers.into_iter().enumerate())
            .map(|(worker, version)| AppliedView { worker, version })
            .collect(),
        source,
        destinations,
    }
}

/// The kernel's side.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct KernelView {
    /// The cgroup that the programs are attached to.
    pub(super) cgroup: PathBuf,
    /// The pods' common cgroup; null where there is none.
    pub(super) kubepods: Option<PathBuf>,
    /// How the ids of destinations are used.
    pub(super) ids: IdsView,
    /// What others have attached.
    pub(super) neighbours: Neighbours,
    /// What became of the connections of the pods that are enrolled now, together.
    pub(super) connections: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    pub(super) facts: Option<KernelFacts>,
    /// Why there is nothing of programs and maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// An endpoint's part of the metrics.
pub(super) fn endpoint_counts(endpoint: EndpointView) -> EndpointCounts {
    EndpointCounts {
        service: endpoint.service_port,
        endpoint: endpoint.address.to_string(),
        calls: endpoint.calls,
        failures: endpoint.failures,
        active: endpoint.active,
        ejections: endpoint.ejections,
        ejected_by: endpoint.ejected_by,
    }
}

/// A kind's part of the metrics.
pub(super) fn kind_counts(kind: &KindView) -> KindCounts {
    KindCounts {
        kind: kind.kind,
        seconds_since_contact: kind.seconds_since_contact,
        objects: kind.objects,
        bytes: kind.bytes,
        lists: kind.lists,
        failures: kind.failures,
    }
}
