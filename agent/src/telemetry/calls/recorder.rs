//! A worker's own way to its series: one small table for each pod and Service port that it serves, in which a call finds what it counts
//! in with one look-up.

use super::admission::{Admission, Statuses, coarse};
use super::family::Series as _;
use super::series::{CallKey, CallSeries, EdgeKey, EdgeSeries, EndpointName, Link};
use super::{CallEnd, MethodId, Methods, OTHER_METHOD, Status, Telemetry};
use crate::mesh::{Endpoint, Load, Pod, ServicePort};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Series for each pod and Service port on a worker, a few hundred bytes each: 100 endpoints, 20 methods and a handful of statuses. Beyond, calls
/// are counted without their method, beyond twice as many also without their endpoint and with a coarse status.
const MOST_SERIES: usize = 8_192;
/// And for all Service ports and workers of a pod: some 15 MB.
const MOST_SERIES_OF_POD: usize = 4 * MOST_SERIES;
/// Kinds of calls that are known by what they are counted as, for each pod and Service port on a worker.
const MOST_ALIASES: usize = MOST_SERIES;

/// Entries that are found without a look-up: a pod's usual methods at a Service port's endpoints.
const RECENT: usize = 64;

/// The series of one pod's calls to one Service port, on one worker.
#[derive(Debug)]
pub struct Recorder {
    telemetry: Arc<Telemetry>,
    link: Arc<Link>,
    entries: Vec<Entry>,
    by_key: FxHashMap<Key, u32>,
    /// Which entries were found last, by some bits of their keys: nearly always it is that one.
    recent: [u32; RECENT],
    /// Of all methods, by the rest of the key.
    edges: FxHashMap<Key, Arc<EdgeSeries>>,
    admission: Arc<Admission>,
    statuses: Statuses,
    /// The series of all of the pod's recorders.
    of_pod: Arc<AtomicUsize>,
}

/// What a call is found by: the address of its endpoint's load, which stands for the endpoint as long as an entry holds it, and the others
/// in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    endpoint: usize,
    rest: u64,
}

impl Key {
    /// Where it is among those that were found last: endpoints lie apart by more than a cache line, methods count from 2.
    fn recent(self) -> usize {
        ((self.endpoint >> 6) ^ (self.rest >> 48) as usize ^ (self.rest >> 16) as usize) % RECENT
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    calls: Arc<CallSeries>,
    edge: Option<Arc<EdgeSeries>>,
    endpoint: Option<Arc<Load>>,
}

/// A call's kind, whatever its endpoint.
#[derive(Clone, Copy)]
struct Kind {
    method: MethodId,
    status: Status,
}

impl Kind {
    fn key(self, endpoint: usize) -> Key {
        let Status { is_grpc, http, grpc, flag } = self.status;
        let rest = u64::from(self.method.0) << 48
            | u64::from(http) << 32
            | u64::from(grpc.unwrap_or(u8::MAX)) << 16
            | u64::from(flag as u8) << 8
            | u64::from(is_grpc);
        Key { endpoint, rest }
    }
}

impl Recorder {
    /// A recorder that has counted nothing.
    pub fn new(telemetry: Arc<Telemetry>, source: Option<&Pod>, service_port: ServicePort) -> Self {
        let link = Arc::new(Link::new(source, service_port));
        let (admission, of_pod) = telemetry.bounds_of(&link);
        Self {
            telemetry,
            link,
            entries: Vec::new(),
            by_key: FxHashMap::default(),
            recent: [0; RECENT],
            edges: FxHashMap::default(),
            admission,
            statuses: Statuses::default(),
            of_pod,
        }
    }

    /// The methods of the calls that it is to count.
    pub fn methods(&self) -> Methods {
        Methods::new(Arc::clone(&self.admission))
    }

    /// From whom and to what its calls go.
    pub fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Counts a call. `method` is what [`CallEnd::method`] names.
    #[inline]
    pub fn record(&mut self, end: &CallEnd<'_>, method: MethodId) {
        let kind = Kind { method, status: end.stats.status };
        let endpoint = end.endpoint.map_or(0, |endpoint| Arc::as_ptr(&endpoint.load) as usize);
        let key = kind.key(endpoint);
        let recent = self.recent[key.recent()] as usize;
        let index = match self.entries.get(recent) {
            Some(entry) if entry.key == key => recent,
            _ => self.find(kind, end.endpoint, end.method),
        };
        let entry = &self.entries[index];
        entry.calls.count(&end.stats);
        if let Some(edge) = &entry.edge {
            edge.count(&end.stats);
        }
    }

    /// The entry of a call that is not among the last.
    #[inline(never)]
    fn find(&mut self, kind: Kind, endpoint: Option<&Endpoint>, method: &str) -> usize {
        let key = kind.key(endpoint.map_or(0, |endpoint| Arc::as_ptr(&endpoint.load) as usize));
        let index = match self.by_key.get(&key) {
            Some(index) => *index,
            None => self.find_rare(kind, endpoint, method),
        };
        self.recent[key.recent()] = index;
        index as usize
    }

    /// The entry of a call that is the first of its kind, or one of too many kinds.
    #[cold]
    fn find_rare(&mut self, mut kind: Kind, mut server: Option<&Endpoint>, method: &str) -> u32 {
        let address =
            |server: Option<&Endpoint>| server.map_or(0, |server| Arc::as_ptr(&server.load) as usize);
        let asked = kind.key(address(server));
        kind.status = self.statuses.told(kind.status, &self.admission);
        let surplus = (self.entries.len() / MOST_SERIES).max(self.of_pod.load(Relaxed) / MOST_SERIES_OF_POD);
        if surplus >= 1 && kind.method != MethodId::NONE {
            kind.method = MethodId::OTHER;
        }
        if surplus >= 2 {
            server = None;
            kind.status = coarse(kind.status);
        }
        let key = kind.key(address(server));
        let index = match self.by_key.get(&key) {
            Some(index) => *index,
            None => self.add(key, kind, server, method),
        };
        // Where the entry holds the endpoint, whose address can then be nobody else's.
        if key != asked
            && key.endpoint == asked.endpoint
            && self.by_key.len() < self.entries.len() + MOST_ALIASES
        {
            self.by_key.insert(asked, index);
        }
        index
    }

    fn add(&mut self, key: Key, kind: Kind, server: Option<&Endpoint>, method: &str) -> u32 {
        let name =
            server.map(|endpoint| EndpointName { address: endpoint.address, pod: endpoint.pod.clone() });
        let Self { telemetry, link, entries, by_key, edges, of_pod, .. } = self;
        let edge = telemetry.has_sizes().then(|| {
            let of_all_methods = Kind { method: MethodId::NONE, ..kind }.key(key.endpoint);
            let edge = edges.entry(of_all_methods).or_insert_with(|| {
                of_pod.fetch_add(1, Relaxed);
                let (link, endpoint) = (Arc::clone(link), name.clone());
                let key = EdgeKey { link, endpoint, status: kind.status };
                telemetry.edges.register(EdgeSeries::new(key))
            });
            Arc::clone(edge)
        });
        let method = if kind.method == MethodId::OTHER { OTHER_METHOD } else { method };
        let (link, method) = (Arc::clone(link), Arc::from(method));
        let calls = CallKey { link, endpoint: name, method, status: kind.status };
        let calls = telemetry.calls.register(CallSeries::new(calls));
        of_pod.fetch_add(1, Relaxed);
        let index = entries.len() as u32;
        entries.push(Entry { key, calls, edge, endpoint: server.map(|server| Arc::clone(&server.load)) });
        by_key.insert(key, index);
        index
    }

    /// Lets go of the series of endpoints that are not among these any more. One that is another pod's now is another.
    pub fn keep<'a>(&mut self, endpoints: impl Iterator<Item = &'a Endpoint>) {
        if self.entries.is_empty() {
            return;
        }
        let before = self.held();
        let stays: FxHashMap<usize, Option<&str>> = endpoints
            .map(|endpoint| (Arc::as_ptr(&endpoint.load) as usize, endpoint.pod.as_deref()))
            .collect();
        let is_there = |key: &Key, name: &Option<EndpointName>| {
            debug_assert_eq!(name.is_none(), key.endpoint == 0);
            let pod = name.as_ref().and_then(|name| name.pod.as_deref());
            name.is_none() || stays.get(&key.endpoint).is_some_and(|now| *now == pod)
        };
        // The addresses are good for as long as the entries are there: both go together.
        self.edges.retain(|key, series| is_there(key, &series.key().endpoint));
        self.entries.retain(|entry| {
            debug_assert_eq!(entry.endpoint.is_none(), entry.key.endpoint == 0);
            is_there(&entry.key, &entry.calls.key().endpoint)
        });
        self.by_key.clear();
        let numbered = self.entries.iter().zip(0..);
        self.by_key.extend(numbered.map(|(entry, index)| (entry.key, index)));
        self.of_pod.fetch_sub(before - self.held(), Relaxed);
    }

    fn held(&self) -> usize {
        self.entries.len() + self.edges.len()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.of_pod.fetch_sub(self.held(), Relaxed);
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
