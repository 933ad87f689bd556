//! What is counted of calls, for programs that compute rates of it: `/calls`.

use super::calls::histogram::duration_quantile;
use super::{CallCounts, CallGroup, CallKey, CallSums, Status, Telemetry};
use crate::mesh::{ObjectName, ServicePort, Workload};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

macro_rules! dimensions {
    ($($variant:ident = $name:literal,)*) => {
        /// What calls can be told apart by.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Dimension { $(#[doc = concat!("By `", $name, "`.")] $variant,)* }

        impl Dimension {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name, as [`By`] takes it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

dimensions! {
    Pod = "pod",
    Workload = "workload",
    Service = "service",
    Method = "method",
    Endpoint = "endpoint",
    Status = "status",
}

/// What rows are told apart by: what is not among it is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By(u8);

impl By {
    /// By everything.
    pub const ALL: Self = Self((1 << Dimension::ALL.len()) - 1);

    /// Whether rows are told apart by it.
    pub fn has(self, dimension: Dimension) -> bool {
        self.0 & 1 << dimension as u8 != 0
    }

    fn names(self) -> Vec<&'static str> {
        Dimension::ALL.iter().filter(|one| self.has(**one)).map(|one| one.name()).collect()
    }

    fn only<T>(self, dimension: Dimension, value: impl FnOnce() -> T) -> Option<T> {
        self.has(dimension).then(value)
    }
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut by = 0;
        for name in text.split(',') {
            let known = Dimension::ALL.iter().find(|dimension| dimension.name() == name);
            let known = known.ok_or_else(|| {
                format!("expected some of {}, with commas between them", Self::ALL.names().join(", "))
            })?;
            by |= 1 << *known as u8;
        }
        Ok(Self(by))
    }
}

/// Calls that are over, by what was asked for: all since the first, or since the agent started.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallsView {
    /// What the rows are told apart by: of `pod`, `workload`, `service`, `method`, `endpoint`, `status`. The rest is summed up.
    by: Vec<&'static str>,
    /// The rows, those with the most calls first.
    calls: Vec<CallsRow>,
    /// How many rows there are.
    total: usize,
    /// There are more than are shown: ask for fewer (`by`, `pod`, `service`, `method`), or say a higher `limit`.
    cut: bool,
    /// What is in the rows that are not shown, all together; absent where all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    others: Option<CountsView>,
}

/// Calls that are alike in all that rows are told apart by. Fields of what is summed up are absent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct CallsRow {
    /// The namespace of the pod or workload that calls; absent for clients of `evenkeel proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<Arc<str>>,
    /// The pod that calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Arc<str>>,
    /// The workload that calls; also where rows are told apart by pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<Arc<str>>,
    /// The Service port: `namespace/name:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// `package.Service/Method`; empty for what is not gRPC, `_OTHER` beyond the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<Arc<str>>,
    /// The endpoint; absent where none was ever chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    /// Its pod, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_pod: Option<Arc<str>>,
    /// `grpc` or `http`.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    /// `:status`; 0 where no answer had begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    http_status: Option<u16>,
    /// `grpc-status`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u8>,
    /// What went wrong; `-` where nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<&'static str>,
    #[serde(flatten)]
    counts: CountsView,
}

/// How many calls, how much was in them and how long they took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
struct CountsView {
    /// How many.
    calls: u64,
    /// How many of them a server failed (UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS; of other requests,
    /// 5xx), or got no server's answer. Those that their clients gave up are not among them.
    failures: u64,
    /// Endpoints that were chosen for them, one after the other: as many as calls where none was sent again, and every endpoint could be reached.
    attempts: u64,
    /// Body bytes from the client.
    request_bytes: u64,
    /// And from the server.
    response_bytes: u64,
    /// gRPC messages from the client.
    request_messages: u64,
    /// And from the server.
    response_messages: u64,
    /// Their times from the request to the end.
    latency: LatencyView,
}

/// How long calls took, in milliseconds. Quantiles are as exact as the buckets that calls are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
struct LatencyView {
    /// All together.
    sum_ms: f64,
    /// Half of the calls took no longer.
    p50_ms: f64,
    /// Nine of ten.
    p90_ms: f64,
    /// 99 of a hundred.
    p99_ms: f64,
}

/// What a row is told apart by. Of equal numbers of calls the order is by this, so that what is cut off is the same the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct RowKey<'a> {
    pod: Option<&'a ObjectName>,
    /// Its namespace and name.
    workload: Option<(&'a Arc<str>, &'a Arc<str>)>,
    service_port: Option<&'a ServicePort>,
    method: Option<&'a Arc<str>>,
    endpoint: Option<(SocketAddr, Option<&'a Arc<str>>)>,
    status: Option<Status>,
}

impl<'a> RowKey<'a> {
    fn new(key: &'a CallKey, by: By) -> Self {
        let caller = key.link.caller.as_ref();
        let workload = caller.map(|caller| (&caller.workload.namespace, &caller.workload.name));
        let endpoint = key.endpoint.as_ref().map(|endpoint| (endpoint.address, endpoint.pod.as_ref()));
        Self {
            pod: by.only(Dimension::Pod, || caller.map(|caller| &caller.name)).flatten(),
            // A pod has one.
            workload: workload.filter(|_| by.has(Dimension::Pod) || by.has(Dimension::Workload)),
            service_port: by.only(Dimension::Service, || &key.link.service_port),
            method: by.only(Dimension::Method, || &key.method),
            endpoint: endpoint.filter(|_| by.has(Dimension::Endpoint)),
            status: by.only(Dimension::Status, || key.status),
        }
    }

    fn of_workload(
        source: Option<&'a Workload>,
        service_port: &'a ServicePort,
        method: &'a Arc<str>,
        status: Status,
        by: By,
    ) -> Self {
        Self {
            pod: None,
            workload: source
                .filter(|_| by.has(Dimension::Workload))
                .map(|workload| (&workload.namespace, &workload.name)),
            service_port: by.only(Dimension::Service, || service_port),
            method: by.only(Dimension::Method, || method),
            endpoint: None,
            status: by.only(Dimension::Status, || status),
        }
    }
}

/// What a row sums up.
#[derive(Debug, Default)]
struct Sum {
    counts: CallCounts,
    failures: u64,
}

impl Sum {
    fn add(&mut self, counts: &CallCounts, failures: u64) {
        self.counts.add(counts);
        self.failures += failures;
    }

    fn view(&self) -> CountsView {
        let Self { counts, failures } = self;
        let quantile = |part| duration_quantile(&counts.durations, part).unwrap_or(0) as f64 / 1e6;
        CountsView {
            calls: counts.calls(),
            failures: *failures,
            attempts: counts.attempts,
            request_bytes: counts.request_bytes,
            response_bytes: counts.response_bytes,
            request_messages: counts.request_messages,
            response_messages: counts.response_messages,
            latency: LatencyView {
                sum_ms: counts.duration_sum_ns as f64 / 1e6,
                p50_ms: quantile(0.5),
                p90_ms: quantile(0.9),
                p99_ms: quantile(0.99),
            },
        }
    }
}

impl CallsRow {
    fn new(key: &RowKey<'_>, sum: &Sum) -> Self {
        let namespace =
            key.pod.map(|pod| &pod.namespace).or_else(|| key.workload.map(|(namespace, _)| namespace));
        Self {
            namespace: namespace.cloned(),
            pod: key.pod.map(|pod| Arc::clone(&pod.name)),
            workload: key.workload.map(|(_, name)| Arc::clone(name)),
            service: key.service_port.map(ToString::to_string),
            method: key.method.cloned(),
            endpoint: key.endpoint.map(|(address, _)| address),
            endpoint_pod: key.endpoint.and_then(|(_, pod)| pod.cloned()),
            protocol: key.status.map(|status| if status.is_grpc { "grpc" } else { "http" }),
            http_status: key.status.map(|status| status.http),
            grpc_status: key.status.and_then(|status| status.grpc),
            flag: key.status.map(|status| status.flag.name()),
            counts: sum.view(),
        }
    }
}

/// The calls that are over, of those that are asked for (of a pod, to a Service port, of a method), summed up to what rows are told apart by;
/// of the rows, `most` with the most calls.
///
/// What ends with a pod or an endpoint is still in the sums that do not tell those apart.
pub fn calls_view(
    telemetry: &Telemetry,
    by: By,
    most: usize,
    pod: Option<&ObjectName>,
    takes: impl Fn(&ServicePort, &str) -> bool,
) -> CallsView {
    view_at(telemetry, by, most, pod, takes, Instant::now())
}

fn view_at(
    telemetry: &Telemetry,
    by: By,
    most: usize,
    pod: Option<&ObjectName>,
    takes: impl Fn(&ServicePort, &str) -> bool,
    now: Instant,
) -> CallsView {
    let is_of_workloads = pod.is_none() && !by.has(Dimension::Pod) && !by.has(Dimension::Endpoint);
    if !is_of_workloads {
        let calls = telemetry.calls_at(now);
        let of_pod = |key: &&(CallKey, CallCounts)| {
            let caller = key.0.link.caller.as_ref().map(|caller| &caller.name);
            pod.is_none() || caller == pod
        };
        let asked = calls.iter().filter(of_pod);
        let asked = asked.filter(|(key, _)| takes(&key.link.service_port, &key.method));
        return CallsView::new(
            asked.map(|(key, counts)| (RowKey::new(key, by), key.status, counts)),
            by,
            most,
        );
    }
    let CallSums { groups, rest } = telemetry.call_sums(now);
    let groups = groups.iter().map(|(CallGroup { edge, method }, counts)| {
        (edge.source.as_deref(), &edge.service_port, method, edge.status, counts)
    });
    // Which workloads these were between is not known any more.
    let rest = rest.iter().filter(|_| !by.has(Dimension::Workload));
    let rest =
        rest.map(|(service_port, method, status, counts)| (None, service_port, method, *status, counts));
    let asked = groups.chain(rest).filter(|(_, service_port, method, ..)| takes(service_port, method));
    let rows = asked.map(|(source, service_port, method, status, counts)| {
        (RowKey::of_workload(source, service_port, method, status, by), status, counts)
    });
    CallsView::new(rows, by, most)
}

impl CallsView {
    fn new<'a>(
        asked: impl Iterator<Item = (RowKey<'a>, Status, &'a CallCounts)>,
        by: By,
        most: usize,
    ) -> Self {
        let mut sums: FxHashMap<RowKey<'_>, Sum> = FxHashMap::default();
        for (key, status, counts) in asked {
            let failures = if status.is_failure() { counts.calls() } else { 0 };
            sums.entry(key).or_default().add(counts, failures);
        }
        let mut rows: Vec<_> = sums.into_iter().collect();
        rows.sort_by_cached_key(|(key, sum)| (Reverse(sum.counts.calls()), *key));
        let (shown, others) = rows.split_at(most.min(rows.len()));
        let mut rest = Sum::default();
        others.iter().for_each(|(_, sum)| rest.add(&sum.counts, sum.failures));
        Self {
            by: by.names(),
            calls: shown.iter().map(|(key, sum)| CallsRow::new(key, sum)).collect(),
            total: rows.len(),
            cut: !others.is_empty(),
            others: (!others.is_empty()).then(|| rest.view()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{CallEnd, CallStats, Flag, MethodId, Recorder};
    use super::*;
    use crate::http2::FieldList;
    use crate::mesh::Endpoint;
    use serde_json::{Value, json};

    /// Calls of one client to two endpoints of a Service port, three of five at the first; each endpoint's last fails.
    fn counted(ports: u16) -> Telemetry {
        let telemetry = Arc::new(Telemetry::new(false));
        let request = FieldList::new();
        let endpoints = [1, 2].map(|host| Endpoint::at(([10, 0, 0, host], 50051).into()));
        for port in 1..=ports {
            let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port };
            let mut recorder = Recorder::new(Arc::clone(&telemetry), None, service_port.clone());
            for (endpoint, status) in [(0, 0), (0, 5), (0, 14), (1, 0), (1, 14)] {
                let end = CallEnd {
                    source: None,
                    service_port: &service_port,
                    original: None,
                    endpoint: Some(&endpoints[endpoint]),
                    method: "a.B/C",
                    request: &request,
                    stats: CallStats {
                        status: Status { is_grpc: true, http: 200, grpc: Some(status), flag: Flag::None },
                        began_ns: 1_000,
                        ended_ns: 2_000_000,
                        request_bytes: 10,
                        response_bytes: 20,
                        request_messages: 1,
                        response_messages: 1,
                        attempts: 1,
                        ..CallStats::default()
                    },
                };
                recorder.record(&end, MethodId::NONE);
            }
        }
        Arc::into_inner(telemetry).expect("the recorders are gone")
    }

    fn view(telemetry: &Telemetry, by: &str, most: usize) -> Value {
        serde_json::to_value(calls_view(telemetry, by.parse().unwrap(), most, None, |_, _| true)).unwrap()
    }

    #[test]
    fn what_rows_are_not_told_apart_by_is_summed_up() {
        let telemetry = counted(1);
        for (by, rows) in
            [("service", 1), ("method", 1), ("endpoint", 2), ("status", 3), ("endpoint,status", 5)]
        {
            let view = view(&telemetry, by, 100);
            let calls = view["calls"].as_array().unwrap();
            assert_eq!(
                (calls.len(), &view["total"], &view["cut"]),
                (rows, &json!(rows), &json!(false)),
                "{by}"
            );
            let sum = |field: &str| calls.iter().filter_map(|row| row[field].as_u64()).sum::<u64>();
            assert_eq!((sum("calls"), sum("failures"), sum("response_bytes")), (5, 2, 100), "{by}");
            assert!(view["others"].is_null());
        }
        let row = &view(&telemetry, "service", 1)["calls"][0];
        assert_eq!(row["service"], "shop/cart:1");
        assert!(["pod", "method", "endpoint", "flag", "protocol"].iter().all(|field| row[*field].is_null()));
        let busiest = &view(&telemetry, "endpoint", 1)["calls"][0];
        assert_eq!((&busiest["endpoint"], &busiest["calls"]), (&json!("10.0.0.1:50051"), &json!(3)));
    }

    #[test]
    fn an_answer_is_bounded_and_what_is_cut_off_is_summed_up() {
        let telemetry = counted(50);
        let cut = view(&telemetry, "service,endpoint", 10);
        assert_eq!(cut["calls"].as_array().unwrap().len(), 10);
        assert_eq!((&cut["total"], &cut["cut"]), (&json!(100), &json!(true)));
        assert_eq!((&cut["others"]["calls"], &cut["others"]["failures"]), (&json!(50 * 5 - 30), &json!(90)));
        assert_eq!(cut, view(&telemetry, "service,endpoint", 10), "the same rows each time");
    }

    #[test]
    fn no_row_falls_while_it_goes_on() {
        let telemetry = Arc::new(Telemetry::new(false));
        let endpoint = Endpoint::at("10.0.0.1:50051".parse().unwrap());
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 80 };
        let new = || Recorder::new(Arc::clone(&telemetry), None, service_port.clone());
        let call = |recorder: &mut Recorder, method: u8, is_grpc: bool| {
            let (mut methods, path) = (recorder.methods(), format!("/a.B/{method}"));
            let id = methods.intern(path.as_bytes(), method.into());
            let end = CallEnd {
                source: None,
                service_port: &service_port,
                original: None,
                endpoint: Some(&endpoint),
                method: methods.name(id),
                request: &FieldList::new(),
                stats: CallStats {
                    status: Status { is_grpc, http: 200, grpc: is_grpc.then_some(0), flag: Flag::None },
                    ended_ns: 1,
                    attempts: 1,
                    ..CallStats::default()
                },
            };
            recorder.record(&end, id);
        };
        // What was called once, and what goes on, by others.
        let mut once = new();
        (0..100).for_each(|_| call(&mut once, 1, true));
        (0..100).for_each(|_| call(&mut once, 2, false));
        drop(once);
        let mut goes_on = new();
        let start = Instant::now();
        let mut before = FxHashMap::default();
        for minute in (0..900).step_by(5) {
            call(&mut goes_on, 3, true);
            call(&mut goes_on, 4, false);
            for by in ["service", "status", "service,status", "service,endpoint", "pod"] {
                let now = start + std::time::Duration::from_secs(60 * minute);
                let view = view_at(&telemetry, by.parse().unwrap(), 100, None, |_, _| true, now);
                let rows: Vec<u64> = view.calls.iter().map(|row| row.counts.calls).collect();
                let last = before.insert(by, rows.clone()).unwrap_or_default();
                assert!(
                    rows.iter().zip(&last).all(|(now, last)| now > last),
                    "{by}: {rows:?} after {last:?}"
                );
                assert!(last.is_empty() || rows.len() == last.len(), "{by}: {rows:?} after {last:?}");
            }
        }
    }
}
