//! A worker's own way to its series: one small table for each pod and Service port that it serves, in which a call finds what it counts
//! in with one look-up.

use super::series::{Amounts, CallKey, CallSeries, Caller, EdgeKey, EdgeSeries, EndpointName, Link};
use super::{CallEnd, MethodId, Status, Telemetry};
use crate::mesh::{Endpoint, Load, Pod, ServicePort};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Series for each pod and Service port on a worker, a few hundred bytes each: 100 endpoints, 20 methods and a handful of statuses. Beyond, calls
/// are counted without their method, beyond twice as many also without their endpoint and with no more than their HTTP status' class.
const MOST_SERIES: usize = 8_192;

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
        let caller = source.map(|pod| Caller {
            uid: Arc::clone(&pod.key.uid),
            name: pod.name.clone(),
            workload: Arc::clone(&pod.workload),
        });
        let link = Arc::new(Link { caller, service_port });
        let (by_key, edges) = (FxHashMap::default(), FxHashMap::default());
        Self { telemetry, link, entries: Vec::new(), by_key, recent: [0; RECENT], edges }
    }

    /// Counts a call. `method` is what [`CallEnd::method`] names.
    #[inline]
    pub fn record(&mut self, end: &CallEnd<'_>, method: MethodId) {
        let kind = Kind { method, status: end.status() };
        let amounts = Amounts {
            duration_ns: end.ended_ns.saturating_sub(end.began_ns),
            request_bytes: end.request_bytes,
            response_bytes: end.response_bytes,
            request_messages: end.request_messages,
            response_messages: end.response_messages,
            attempts: end.attempts,
        };
        let endpoint = end.endpoint.map_or(0, |endpoint| Arc::as_ptr(&endpoint.load) as usize);
        let key = kind.key(endpoint);
        let recent = self.recent[key.recent()] as usize;
        let index = match self.entries.get(recent) {
            Some(entry) if entry.key == key => recent,
            _ => self.find(kind, end.endpoint, end.method),
        };
        let entry = &self.entries[index];
        entry.calls.count(amounts);
        if let Some(edge) = &entry.edge {
            edge.count(amounts);
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
        if self.entries.len() >= MOST_SERIES && kind.method != MethodId::NONE {
            kind.method = MethodId::OTHER;
        }
        if self.entries.len() >= 2 * MOST_SERIES {
            server = None;
            kind.status.http -= kind.status.http % 100;
        }
        let endpoint = server.map_or(0, |endpoint| Arc::as_ptr(&endpoint.load) as usize);
        let key = kind.key(endpoint);
        let name =
            server.map(|endpoint| EndpointName { address: endpoint.address, pod: endpoint.pod.clone() });
        let Self { telemetry, link, entries, by_key, edges, .. } = self;
        *by_key.entry(key).or_insert_with(|| {
            let edge = telemetry.has_sizes().then(|| {
                let of_all_methods = Kind { method: MethodId::NONE, ..kind }.key(endpoint);
                let edge = edges.entry(of_all_methods).or_insert_with(|| {
                    let (link, endpoint) = (Arc::clone(link), name.clone());
                    let key = EdgeKey { link, endpoint, status: kind.status };
                    telemetry.edges.register(EdgeSeries::new(key))
                });
                Arc::clone(edge)
            });
            let method = if kind.method == MethodId::OTHER { "other" } else { method };
            let (link, method) = (Arc::clone(link), Arc::from(method));
            let calls = CallKey { link, endpoint: name, method, status: kind.status };
            let calls = telemetry.calls.register(CallSeries::new(calls));
            entries.push(Entry { key, calls, edge, endpoint: server.map(|server| Arc::clone(&server.load)) });
            (entries.len() - 1) as u32
        })
    }

    /// Lets go of the series of endpoints that are not among these any more.
    pub fn keep<'a>(&mut self, endpoints: impl Iterator<Item = &'a Arc<Load>>) {
        if self.entries.is_empty() {
            return;
        }
        let stays: FxHashSet<usize> = endpoints.map(|load| Arc::as_ptr(load) as usize).chain([0]).collect();
        // The addresses are good for as long as the entries are there: both go together.
        self.edges.retain(|key, _| stays.contains(&key.endpoint));
        self.entries.retain(|entry| {
            debug_assert_eq!(entry.endpoint.is_none(), entry.key.endpoint == 0);
            stays.contains(&entry.key.endpoint)
        });
        self.by_key.clear();
        let numbered = self.entries.iter().zip(0..);
        self.by_key.extend(numbered.map(|(entry, index)| (entry.key, index)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Flag, MOST_METHODS, Methods};
    use super::*;
    use crate::http2::FieldList;
    use crate::mesh::ObjectName;

    fn service_port() -> ServicePort {
        ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 }
    }

    fn endpoints(count: usize) -> Vec<Endpoint> {
        let at = |host: usize| Endpoint::at(([10, 0, (host / 250) as u8, (host % 250) as u8], 50051).into());
        (0..count).map(at).collect()
    }

    fn record(recorder: &mut Recorder, methods: &mut Methods, path: &str, endpoint: &Endpoint, http: u16) {
        let id = methods.intern(path.as_bytes(), path.len() as u32);
        let request = FieldList::new();
        let end = CallEnd {
            source: None,
            service_port: &service_port(),
            original: None,
            endpoint: Some(endpoint),
            method: methods.name(id),
            request: &request,
            is_grpc: true,
            http_status: Some(http),
            grpc_status: Some(0),
            flag: Flag::None,
            began_ns: 1_000,
            first_sent_ns: Some(1_000),
            headers_ns: Some(2_000),
            ended_ns: 3_000_000,
            request_bytes: 10,
            response_bytes: 2_000,
            request_messages: 1,
            response_messages: 2,
            attempts: 1,
            on_existing_connection: false,
        };
        recorder.record(&end, id);
    }

    #[test]
    fn a_call_is_counted_once_under_each_of_its_names() {
        let telemetry = Arc::new(Telemetry::new(true));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let (mut methods, endpoints) = (Methods::default(), endpoints(2));
        for (path, endpoint, http, times) in
            [("/a.B/C", 0, 200, 3), ("/a.B/C", 1, 200, 4), ("/a.B/D", 1, 200, 5), ("/a.B/D", 1, 503, 6)]
        {
            for _ in 0..times {
                record(&mut recorder, &mut methods, path, &endpoints[endpoint], http);
            }
        }
        let mut calls: Vec<_> = telemetry
            .calls()
            .into_iter()
            .map(|(key, counts)| (key.method.to_string(), counts.calls(), counts.response_bytes))
            .collect();
        calls.sort();
        let expected = [("a.B/C", 3), ("a.B/C", 4), ("a.B/D", 5), ("a.B/D", 6)];
        assert_eq!(calls, expected.map(|(method, calls)| (method.to_owned(), calls, 2_000 * calls)));
        let sizes: u64 =
            telemetry.sizes().iter().map(|(_, sizes)| sizes.request_sizes.iter().sum::<u64>()).sum();
        assert_eq!(sizes, 18);
        // Its endpoint goes: the sums stay.
        recorder.keep(std::iter::once(&endpoints[1].load));
        assert_eq!(recorder.entries.len(), 3);
        assert_eq!(telemetry.call_groups().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), 18);
    }

    #[test]
    fn scrapes_of_a_thousand_endpoints_lose_nothing_of_what_is_counted_meanwhile() {
        const CALLS: usize = 100_000;
        let telemetry = Arc::new(Telemetry::new(true));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let (mut methods, endpoints) = (Methods::default(), endpoints(1_000));
        let sum = || telemetry.call_groups().iter().map(|(_, counts)| counts.calls()).sum::<u64>();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                for call in 0..CALLS {
                    record(&mut recorder, &mut methods, "/a.B/C", &endpoints[call * 7 % 1_000], 200);
                }
                (recorder, endpoints)
            });
            let mut before = 0;
            while !writer.is_finished() {
                let now = sum();
                assert!(now >= before, "{now} after {before}");
                before = now;
            }
            writer.join().expect("the writer ends")
        });
        // Its writer is gone, and what it counted is not.
        assert_eq!(sum(), CALLS as u64);
    }

    #[test]
    fn methods_beyond_the_limit_are_counted_together() {
        let telemetry = Arc::new(Telemetry::new(false));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let (mut methods, endpoints) = (Methods::default(), endpoints(1));
        for round in 0..2 {
            for method in 0..300 {
                record(&mut recorder, &mut methods, &format!("/a.B/{method}"), &endpoints[0], 200);
            }
            for strange in ["", "/", "no-slash", &format!("/{}", "x".repeat(300))] {
                record(&mut recorder, &mut methods, strange, &endpoints[0], 200);
            }
            assert_eq!(telemetry.series(), MOST_METHODS + 1, "round {round}");
        }
        let other = telemetry.calls().into_iter().find(|(key, _)| &*key.method == "other");
        assert_eq!(other.expect("there are others").1.calls(), 2 * 204);
    }

    #[test]
    fn whatever_a_server_invents_its_series_are_bounded_and_no_call_is_missing() {
        let telemetry = Arc::new(Telemetry::new(true));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let (mut methods, endpoints) = (Methods::default(), endpoints(300));
        let mut calls = 0;
        for method in 0..100 {
            for status in 100..600 {
                let endpoint = &endpoints[(method * 7 + usize::from(status)) % 300];
                record(&mut recorder, &mut methods, &format!("/a.B/{method}"), endpoint, status);
                calls += 1;
            }
        }
        assert!(recorder.entries.len() < 2 * MOST_SERIES + 100, "{}", recorder.entries.len());
        assert_eq!(telemetry.calls().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), calls);
    }
}
