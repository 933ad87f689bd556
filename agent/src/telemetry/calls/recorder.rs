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
mod tests {
    use super::super::{CallStats, Flag, MOST_METHODS};
    use super::*;
    use crate::http2::FieldList;
    use crate::mesh::ObjectName;
    use std::time::Instant;

    fn in_groups(telemetry: &Telemetry) -> u64 {
        telemetry.call_sums(Instant::now()).groups.iter().map(|(_, counts)| counts.calls()).sum()
    }

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
            stats: CallStats {
                status: Status { is_grpc: true, http, grpc: Some(0), flag: Flag::None },
                began_ns: 1_000,
                ended_ns: 3_000_000,
                request_bytes: 10,
                response_bytes: 2_000,
                request_messages: 1,
                response_messages: 2,
                attempts: 1,
                ..CallStats::default()
            },
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
        let sizes: u64 = telemetry
            .sizes(Instant::now())
            .iter()
            .map(|(_, sizes)| sizes.request_sizes.iter().sum::<u64>())
            .sum();
        assert_eq!(sizes, 18);
        // Its endpoint goes: the sums stay.
        recorder.keep(std::iter::once(&endpoints[1]));
        assert_eq!(recorder.entries.len(), 3);
        assert_eq!(in_groups(&telemetry), 18);
    }

    #[test]
    fn scrapes_of_a_thousand_endpoints_lose_nothing_of_what_is_counted_meanwhile() {
        const CALLS: usize = 100_000;
        let telemetry = Arc::new(Telemetry::new(true));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let (mut methods, endpoints) = (Methods::default(), endpoints(1_000));
        let sum = || in_groups(&telemetry);
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
        let other = telemetry.calls().into_iter().find(|(key, _)| &*key.method == OTHER_METHOD);
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

    #[test]
    fn whatever_is_invented_is_bounded_over_all_recorders_that_there_ever_are() {
        let telemetry = Arc::new(Telemetry::new(false));
        let endpoints = endpoints(1);
        let mut calls = 0;
        for round in 0..5 {
            // A target ends when its pod has had no connection for a while, and comes back.
            let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
            let mut methods = recorder.methods();
            for method in 0..MOST_METHODS {
                for status in 100..180 {
                    let path = format!("/a.B/{round}-{method}");
                    record(&mut recorder, &mut methods, &path, &endpoints[0], status);
                    calls += 1;
                }
            }
            drop(recorder);
            telemetry.tidy();
            assert!(telemetry.series() <= (MOST_METHODS + 1) * 80, "round {round}: {}", telemetry.series());
        }
        assert_eq!(telemetry.calls().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), calls);
    }

    #[test]
    fn a_pods_series_are_bounded_over_all_services_that_it_calls() {
        let telemetry = Arc::new(Telemetry::new(false));
        let endpoints = endpoints(90);
        let mut calls = 0;
        let recorders: Vec<_> = (0..8)
            .map(|port| {
                let service_port = ServicePort { port, ..service_port() };
                let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port);
                let mut methods = recorder.methods();
                for endpoint in &endpoints {
                    for method in 0..MOST_METHODS {
                        record(&mut recorder, &mut methods, &format!("/a.B/{method}"), endpoint, 200);
                        calls += 1;
                    }
                }
                recorder
            })
            .collect();
        let of_pod = Arc::clone(&recorders[0].of_pod);
        assert!(of_pod.load(Relaxed) <= MOST_SERIES_OF_POD + 8 * endpoints.len(), "{of_pod:?}");
        assert_eq!(telemetry.calls().iter().map(|(_, counts)| counts.calls()).sum::<u64>(), calls);
        drop(recorders);
        assert_eq!(of_pod.load(Relaxed), 0);
    }

    #[test]
    fn a_kind_that_counts_as_another_is_found_like_any_other() {
        let telemetry = Arc::new(Telemetry::new(false));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let (mut methods, endpoints) = (recorder.methods(), endpoints(1));
        for status in 100..400 {
            record(&mut recorder, &mut methods, "/a.B/C", &endpoints[0], status);
        }
        let entries = recorder.entries.len();
        assert!(entries < 100, "{entries}");
        assert_eq!(recorder.by_key.len(), 300, "each is found by its own key");
    }

    #[test]
    fn an_address_that_is_another_pods_now_counts_for_that_pod() {
        let telemetry = Arc::new(Telemetry::new(true));
        let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port());
        let mut methods = recorder.methods();
        let before = Endpoint { pod: Some("shop/cart-0".into()), ..endpoints(1).remove(0) };
        record(&mut recorder, &mut methods, "/a.B/C", &before, 200);
        // Its load goes on, as it does when a slice changes in one batch.
        let now = Endpoint {
            pod: Some("shop/other-0".into()),
            load: Arc::clone(&before.load),
            ..endpoints(1).remove(0)
        };
        recorder.keep(std::iter::once(&now));
        record(&mut recorder, &mut methods, "/a.B/C", &now, 200);
        record(&mut recorder, &mut methods, "/a.B/C", &now, 200);
        let of = |pod: &str| -> u64 {
            let calls = telemetry.calls();
            let its = calls
                .iter()
                .filter(|(key, _)| key.endpoint.as_ref().and_then(|at| at.pod.as_deref()) == Some(pod));
            its.map(|(_, counts)| counts.calls()).sum()
        };
        assert_eq!((of("shop/cart-0"), of("shop/other-0")), (1, 2));
        let destinations = telemetry.sizes(Instant::now()).into_iter().map(|(group, _)| group.destination);
        let destinations: std::collections::BTreeSet<_> =
            destinations.flatten().map(|workload| workload.name.to_string()).collect();
        assert_eq!(destinations, ["cart", "other"].map(String::from).into());
    }
}
