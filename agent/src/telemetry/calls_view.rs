//! What is counted of calls, for programs that compute rates of it: `/calls`.

use super::calls::histogram::duration_quantile;
use super::{CallCounts, CallKey, Link, Telemetry};
use schemars::JsonSchema;
use serde::Serialize;
use std::cmp::Reverse;
use std::net::SocketAddr;
use std::sync::Arc;

/// Calls from one pod to one Service port, of one method, at one endpoint, with one status: all since the first, or since the agent started.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallsView {
    /// The namespace of the pod that calls; absent for clients of `evenkeel proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Arc<str>>,
    /// Its workload's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Arc<str>>,
    /// The Service port: `namespace/name:port`.
    pub service: String,
    /// `package.Service/Method`; empty for what is not gRPC, `_OTHER` beyond the limit.
    pub method: Arc<str>,
    /// The endpoint; absent where none was ever chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Its pod, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_pod: Option<Arc<str>>,
    /// `grpc` or `http`.
    pub protocol: &'static str,
    /// `:status`; 0 where no answer had begun.
    pub http_status: u16,
    /// `grpc-status`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// What went wrong; `-` where nothing did.
    pub flag: &'static str,
    /// How many.
    pub calls: u64,
    /// Endpoints that were chosen for them, one after the other: as many as calls where none was sent again, and every endpoint could be reached.
    pub attempts: u64,
    /// Body bytes from the client.
    pub request_bytes: u64,
    /// And from the server.
    pub response_bytes: u64,
    /// gRPC messages from the client.
    pub request_messages: u64,
    /// And from the server.
    pub response_messages: u64,
    /// Their times from the request to the end.
    pub latency: LatencyView,
}

/// How long calls took, in milliseconds. Quantiles are as exact as the buckets that calls are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct LatencyView {
    /// All together.
    pub sum_ms: f64,
    /// Half of the calls took no longer.
    pub p50_ms: f64,
    /// Nine of ten.
    pub p90_ms: f64,
    /// 99 of a hundred.
    pub p99_ms: f64,
}

impl CallsView {
    fn new(key: &CallKey, counts: &CallCounts) -> Self {
        let caller = key.link.caller.as_ref();
        let quantile = |part| duration_quantile(&counts.durations, part).unwrap_or(0) as f64 / 1e6;
        Self {
            namespace: caller.map(|caller| Arc::clone(&caller.name.namespace)),
            pod: caller.map(|caller| Arc::clone(&caller.name.name)),
            workload: caller.map(|caller| Arc::clone(&caller.workload.name)),
            service: key.link.service_port.to_string(),
            method: Arc::clone(&key.method),
            endpoint: key.endpoint.as_ref().map(|endpoint| endpoint.address),
            endpoint_pod: key.endpoint.as_ref().and_then(|endpoint| endpoint.pod.clone()),
            protocol: if key.status.is_grpc { "grpc" } else { "http" },
            http_status: key.status.http,
            grpc_status: key.status.grpc,
            flag: key.status.flag.name(),
            calls: counts.calls(),
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

/// The calls that are over, of those from one pod to one Service port that are asked for; those that are most first.
pub fn calls_view(telemetry: &Telemetry, takes: impl Fn(&Link) -> bool) -> Vec<CallsView> {
    let calls = telemetry.calls();
    let asked = calls.iter().filter(|(key, _)| takes(&key.link));
    let mut rows: Vec<_> = asked.map(|(key, counts)| CallsView::new(key, counts)).collect();
    rows.sort_by_key(|row| Reverse(row.calls));
    rows
}
