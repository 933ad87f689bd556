//! What is counted of calls, by whom they came from, where they went and how they ended.

use super::Status;
use super::family::Series;
use super::histogram::{Cell, DURATION_BOUNDS_NS, SIZE_BOUNDS, add, of_duration, of_size, read};
use crate::mesh::{ObjectName, ServicePort, Workload};
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

impl EdgeGroup {
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

/// What a call adds to its series.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amounts {
    pub(super) duration_ns: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) request_messages: u32,
    pub(super) response_messages: u32,
    pub(super) attempts: u8,
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
    pub(super) fn count(&self, amounts: Amounts) {
        self.durations[of_duration(amounts.duration_ns)].add(1);
        self.duration_sum_ns.add(amounts.duration_ns);
        self.request_bytes.add(amounts.request_bytes);
        self.response_bytes.add(amounts.response_bytes);
        self.request_messages.add(amounts.request_messages.into());
        self.response_messages.add(amounts.response_messages.into());
        self.attempts.add(amounts.attempts.into());
    }
}

impl Series for CallSeries {
    type Key = CallKey;
    type Group = CallGroup;
    type Counts = CallCounts;

    fn key(&self) -> &CallKey {
        &self.key
    }

    fn group(key: &CallKey) -> CallGroup {
        let edge = EdgeGroup::of(&key.link, key.endpoint.as_ref(), key.status);
        CallGroup { edge, method: Arc::clone(&key.method) }
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
}

/// And as readers see them.
#[derive(Debug, Clone, Default)]
pub struct EdgeCounts {
    /// Calls by their request bodies' bytes.
    pub request_sizes: SizeBuckets,
    /// By their response bodies' bytes.
    pub response_sizes: SizeBuckets,
}

impl EdgeSeries {
    pub(super) fn new(key: EdgeKey) -> Self {
        Self { key, request_sizes: Default::default(), response_sizes: Default::default() }
    }

    /// For its worker alone.
    #[inline]
    pub(super) fn count(&self, amounts: Amounts) {
        self.request_sizes[of_size(amounts.request_bytes)].add(1);
        self.response_sizes[of_size(amounts.response_bytes)].add(1);
    }
}

impl Series for EdgeSeries {
    type Key = EdgeKey;
    type Group = EdgeGroup;
    type Counts = EdgeCounts;

    fn key(&self) -> &EdgeKey {
        &self.key
    }

    fn group(key: &EdgeKey) -> EdgeGroup {
        EdgeGroup::of(&key.link, key.endpoint.as_ref(), key.status)
    }

    fn read(&self) -> EdgeCounts {
        EdgeCounts { request_sizes: read(&self.request_sizes), response_sizes: read(&self.response_sizes) }
    }

    fn add(sum: &mut EdgeCounts, more: &EdgeCounts) {
        add(&mut sum.request_sizes, &more.request_sizes);
        add(&mut sum.response_sizes, &more.response_sizes);
    }
}
