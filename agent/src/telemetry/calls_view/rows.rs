//! The rows of `/calls`, as they are written.

use super::row_key::RowKey;
use crate::telemetry::CallCounts;
use crate::telemetry::calls::histogram::duration_quantile;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;

/// Calls that are over, by what was asked for: all since the first, or since the agent started.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallsView {
    /// What the rows are told apart by: of `pod`, `workload`, `service`, `method`, `endpoint`, `status`. The rest is summed up.
    pub(super) by: Vec<&'static str>,
    /// The rows, those with the most calls first.
    pub(super) calls: Vec<CallsRow>,
    /// How many rows there are.
    pub(super) total: usize,
    /// There are more than are shown: ask for fewer (`by`, `pod`, `service`, `method`), or say a higher `limit`.
    pub(super) cut: bool,
    /// What is in the rows that are not shown, all together; absent where all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) others: Option<CountsView>,
}

/// Calls that are alike in all that rows are told apart by. Fields of what is summed up are absent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(super) struct CallsRow {
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
    pub(super) counts: CountsView,
}

/// How many calls, how much was in them and how long they took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(super) struct CountsView {
    /// How many.
    pub(super) calls: u64,
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

/// What a row sums up.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) counts: CallCounts,
    pub(super) failures: u64,
}

impl Sum {
    pub(super) fn add(&mut self, counts: &CallCounts, failures: u64) {
        self.counts.add(counts);
        self.failures += failures;
    }

    pub(super) fn view(&self) -> CountsView {
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
    pub(super) fn new(key: &RowKey<'_>, sum: &Sum) -> Self {
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
