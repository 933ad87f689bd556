//! What is counted of calls, by whom they came from, where they went and how they ended.

use super::family::Series;
use super::histogram::{Cell, DURATION_BOUNDS_NS, SIZE_BOUNDS, add, of_duration, of_size, read};
use super::{CallStats, Status};
use crate::mesh::{ObjectName, Pod, ServicePort, Workload};
use std::net::SocketAddr;
use std::sync::Arc;

/// A pod that calls, or called.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Its UID.
    pub uid: Arc<str>,
    /// Its name.
    pub name: ObjectName,
    /// What it belongs to.
    pub workload: Arc<Workload>,
}

/// From whom and to what.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// The calling pod; `None`: clients of `evenkeel proxy`.
    pub caller: Option<Caller>,
    /// The Service port.
    pub service_port: ServicePort,
}

impl Link {
    /// From that pod, or from clients of `evenkeel proxy`, to that Service port.
    pub fn new(source: Option<&Pod>, service_port: ServicePort) -> Self {
        let caller = source.map(|pod| Caller {
            uid: Arc::clone(&pod.key.uid),
            name: pod.name.clone(),
            workload: Arc::clone(&pod.workload),
        });
        Self { caller, service_port }
    }
}

/// An endpoint, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointName {
    /// Its address.
    pub address: SocketAddr,
    /// Its pod, `namespace/name`, where that is known.
    pub pod: Option<Arc<str>>,
}

impl EndpointName {
    /// What its pod belongs to, as its name tells.
    fn workload(&self) -> Option<Workload> {
        let (namespace, name) = self.pod.as_deref()?.split_once('/')?;
        Some(
            Workload::of_pod_name(namespace, name).unwrap_or_else(|| Workload::named(namespace, name, "Pod")),
        )
    }
}

/// What one [`CallSeries`] is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// From whom and to what.
    pub link: Arc<Link>,
    /// Which endpoint; `None` where none was ever chosen.
    pub endpoint: Option<EndpointName>,
    /// `package.Service/Method`; empty for what is not gRPC.
    pub method: Arc<str>,
    /// How they ended.
    pub status: Status,
}

/// Calls, by workloads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallGroup {
    /// By which workloads.
    pub edge: EdgeGroup,
    /// `package.Service/Method`; empty for what is not gRPC.
    pub method: Arc<str>,
}

/// What one [`EdgeSeries`] is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EdgeKey {
    pub(super) link: Arc<Link>,
    pub(super) endpoint: Option<EndpointName>,
    pub(super) status: Status,
}

/// Calls from one workload over a Service port to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EdgeGroup {
    /// The workload that calls; `None`: clients of `evenkeel proxy`.
    pub source: Option<Arc<Workload>>,
    /// The Service port.
    pub service_port: ServicePort,
    /// The workload that serves, as far as the name of its pod tells.
    pub destination: Option<Workload>,
    /// How the calls ended.
    pub status: Status,
}

/// A workload, by its namespace and name.
pub(super) type WorkloadName = (Arc<str>, Arc<str>);

pub(super) fn name_of(workload: &Workload) -> WorkloadName {
    (Arc::clone(&workload.namespace), Arc::clone(&workload.name))
}

/// Who calls whom: all that Istio's metrics tell of a call's [group](EdgeGroup) has these in its labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    source: Option<WorkloadName>,
    service_port: ServicePort,
    destination: Option<WorkloadName>,
}

impl EdgeGroup {
    pub(super) fn source_name(&self) -> Option<WorkloadName> {
        self.source.as_deref().map(name_of)
    }

    fn pair(&self) -> Pair {
        Pair {
            source: self.source_name(),
            service_port: self.service_port.clone(),
            destination: self.destination.as_ref().map(name_of),
        }
    }

    fn of(link: &Link, endpoint: Option<&EndpointName>, status: Status) -> Self {
        Self {
            source: link.caller.as_ref().map(|caller| Arc::clone(&caller.workload)),
            service_port: link.service_port.clone(),
            destination: endpoint.and_then(EndpointName::workload),
            status,
        }
    }
}

/// Buckets of times, the last of those above all bounds.
pub type DurationBuckets = [u64; DURATION_BOUNDS_NS.len() + 1];
/// Buckets of sizes, the last of those above all bounds.
pub type SizeBuckets = [u64; SIZE_BOUNDS.len() + 1];

/// Calls of one kind, as their worker counts them.
#[derive(Debug)]
pub(super) struct CallSeries {
    key: CallKey,
    durations: [Cell; DURATION_BOUNDS_NS.len() + 1],
    duration_sum_ns: Cell,
    request_bytes: Cell,
    response_bytes: Cell,
    request_messages: Cell,
    response_messages: Cell,
    attempts: Cell,
}

/// And as readers see them.
#[derive(Debug, Clone, Default)]
pub struct CallCounts {
    /// By their time from the request to the end.
    pub durations: DurationBuckets,
    /// Of all calls.
    pub duration_sum_ns: u64,
    /// Of all calls.
    pub request_bytes: u64,
    /// Of all calls.
    pub response_bytes: u64,
    /// Of all gRPC calls.
    pub request_messages: u64,
    /// Of all gRPC calls.
    pub response_messages: u64,
    /// Endpoints that were chosen for them, one after the other.
    pub attempts: u64,
}

impl CallCounts {
    /// How many calls.
    pub fn calls(&self) -> u64 {
        self.durations.iter().sum()
    }

    /// Adds others.
    pub fn add(&mut self, more: &Self) {
        add(&mut self.durations, &more.durations);
        self.duration_sum_ns += more.duration_sum_ns;
        self.request_bytes += more.request_bytes;
        self.response_bytes += more.response_bytes;
        self.request_messages += more.request_messages;
        self.response_messages += more.response_messages;
        self.attempts += more.attempts;
    }
}

impl CallSeries {
    pub(super) fn new(key: CallKey) -> Self {
        Self {
            key,
            durations: Default::default(),
            duration_sum_ns: Cell::default(),
            request_bytes: Cell::default(),
            response_bytes: Cell::default(),
            request_messages: Cell::default(),
            response_messages: Cell::default(),
            attempts: Cell::default(),
        }
    }

    /// For its worker alone.
    #[inline]
    pub(super) fn count(&self, call: &CallStats) {
        let duration_ns = call.duration_ns();
        self.durations[of_duration(duration_ns)].add(1);
        self.duration_sum_ns.add(duration_ns);
        self.request_bytes.add(call.request_bytes);
        self.response_bytes.add(call.response_bytes);
        self.request_messages.add(call.request_messages.into());
        self.response_messages.add(call.response_messages.into());
        self.attempts.add(call.attempts.into());
    }
}

impl Series for CallSeries {
    type Key = CallKey;
    type Row = (Arc<Link>, Option<EndpointName>);
    type Group = CallGroup;
    type Pair = Pair;
    /// OTel's metric knows no workloads, nor do some forms of `/calls`.
    type Rest = (Arc<str>, Status);
    type Place = ServicePort;
    type Counts = CallCounts;

    fn key(&self) -> &CallKey {
        &self.key
    }

    fn row(key: &CallKey) -> Self::Row {
        (Arc::clone(&key.link), key.endpoint.clone())
    }

    fn group(key: &CallKey) -> CallGroup {
        let edge = EdgeGroup::of(&key.link, key.endpoint.as_ref(), key.status);
        CallGroup { edge, method: Arc::clone(&key.method) }
    }

    fn pair(group: &CallGroup) -> Pair {
        group.edge.pair()
    }

    fn place(pair: &Pair) -> ServicePort {
        pair.service_port.clone()
    }

    fn rest(group: &CallGroup) -> Option<Self::Rest> {
        Some((Arc::clone(&group.method), group.edge.status))
    }

    fn read(&self) -> CallCounts {
        CallCounts {
            durations: read(&self.durations),
            duration_sum_ns: self.duration_sum_ns.read(),
            request_bytes: self.request_bytes.read(),
            response_bytes: self.response_bytes.read(),
            request_messages: self.request_messages.read(),
            response_messages: self.response_messages.read(),
            attempts: self.attempts.read(),
        }
    }

    fn add(sum: &mut CallCounts, more: &CallCounts) {
        sum.add(more);
    }
}

/// The sizes of calls of one kind, whatever their method: what Istio's metrics have beyond [`CallSeries`].
#[derive(Debug)]
pub(super) struct EdgeSeries {
    key: EdgeKey,
    request_sizes: [Cell; SIZE_BOUNDS.len() + 1],
    response_sizes: [Cell; SIZE_BOUNDS.len() + 1],
    // Of their own, for a distribution and its sum to be of one moment.
    request_bytes: Cell,
    response_bytes: Cell,
}

/// And as readers see them.
#[derive(Debug, Clone, Default)]
pub struct EdgeCounts {
    /// Calls by their request bodies' bytes.
    pub request_sizes: SizeBuckets,
    /// By their response bodies' bytes.
    pub response_sizes: SizeBuckets,
    /// Of all calls.
    pub request_bytes: u64,
    /// Of all calls.
    pub response_bytes: u64,
}

impl EdgeCounts {
    /// Adds others.
    pub fn add(&mut self, more: &Self) {
        add(&mut self.request_sizes, &more.request_sizes);
        add(&mut self.response_sizes, &more.response_sizes);
        self.request_bytes += more.request_bytes;
        self.response_bytes += more.response_bytes;
    }
}

impl EdgeSeries {
    pub(super) fn new(key: EdgeKey) -> Self {
        Self {
            key,
            request_sizes: Default::default(),
            response_sizes: Default::default(),
            request_bytes: Cell::default(),
            response_bytes: Cell::default(),
        }
    }

    /// For its worker alone.
    #[inline]
    pub(super) fn count(&self, call: &CallStats) {
        self.request_sizes[of_size(call.request_bytes)].add(1);
        self.response_sizes[of_size(call.response_bytes)].add(1);
        self.request_bytes.add(call.request_bytes);
        self.response_bytes.add(call.response_bytes);
    }
}

impl Series for EdgeSeries {
    type Key = EdgeKey;
    type Row = (Arc<Link>, Option<EndpointName>);
    type Group = EdgeGroup;
    type Pair = Pair;
    type Rest = ();
    type Place = ServicePort;
    type Counts = EdgeCounts;

    fn key(&self) -> &EdgeKey {
        &self.key
    }

    fn row(key: &EdgeKey) -> Self::Row {
        (Arc::clone(&key.link), key.endpoint.clone())
    }

    fn group(key: &EdgeKey) -> EdgeGroup {
        EdgeGroup::of(&key.link, key.endpoint.as_ref(), key.status)
    }

    fn pair(group: &EdgeGroup) -> Pair {
        group.pair()
    }

    fn place(pair: &Pair) -> ServicePort {
        pair.service_port.clone()
    }

    fn rest(_: &EdgeGroup) -> Option<()> {
        None
    }

    fn read(&self) -> EdgeCounts {
        EdgeCounts {
            request_sizes: read(&self.request_sizes),
            response_sizes: read(&self.response_sizes),
            request_bytes: self.request_bytes.read(),
            response_bytes: self.response_bytes.read(),
        }
    }

    fn add(sum: &mut EdgeCounts, more: &EdgeCounts) {
        sum.add(more);
    }
}
