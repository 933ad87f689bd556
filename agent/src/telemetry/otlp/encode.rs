//! Spans as OTLP's messages, with the attributes that OpenTelemetry's conventions for gRPC name
//! (<https://opentelemetry.io/docs/specs/semconv/rpc/grpc/>), which the metrics go by too.
//!
//! The kind is CLIENT, as that of Envoy's and Linkerd's outbound side: the span is told from the calling pod's side, and backends that pair
//! a CLIENT span with its SERVER child see the call, and with it the edge between two workloads, as without the agent. However often the
//! call is sent there is one span: the server's span is then a child of what the client's own library would have made; each attempt that was
//! not the last is an event. Source and destination are named as OpenTelemetry's eBPF instrumentation names a flow's two sides (`k8s.src.…`,
//! `k8s.dst.…`), since `k8s.pod.name` and its like are the sender's own; what is this project's alone begins with `evenkeel.`.

use super::messages::{
    Event, ExportRequest, FLAG_IS_REMOTE, FLAG_KNOWS_REMOTE, FLAG_SAMPLED, KIND_CLIENT, KeyValue,
    ResourceMessage, ResourceSpans, STATUS_ERROR, Scope, ScopeSpans, SpanMessage, SpanStatus, Value,
};
use super::resource::Resource;
use crate::clock::monotonic_ns;
use crate::mesh::Workload;
use crate::telemetry::traces::{Retry, RetryCause, Span};
use crate::telemetry::{Flag, OTHER_METHOD, Status, grpc_code_name};
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// What made the spans.
const SCOPE: &str = "evenkeel";

/// The wall clock, for times of the monotonic one.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    /// The Unix time at which the monotonic clock was 0, in nanoseconds.
    epoch_ns: u64,
}

impl WallClock {
    /// As both stand now.
    pub(super) fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        Self { epoch_ns: unix.saturating_sub(monotonic_ns()) }
    }

    fn unix_ns(self, monotonic_ns: u64) -> u64 {
        self.epoch_ns.saturating_add(monotonic_ns)
    }
}

/// A batch's message.
pub(super) fn request(resource: &Resource, spans: &[Span], clock: WallClock) -> ExportRequest {
    let scope = Scope { name: SCOPE.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = spans.iter().map(|span| message(span, clock)).collect();
    let attributes = resource.iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(ResourceMessage { attributes }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}

fn message(span: &Span, clock: WallClock) -> SpanMessage {
    let trace = &span.trace;
    let remote = if trace.parent_id.is_some() { FLAG_IS_REMOTE } else { 0 };
    SpanMessage {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: trace.span_id.get().to_be_bytes().to_vec(),
        trace_state: span.trace_state.to_string(),
        parent_span_id: trace.parent_id.map_or_else(Vec::new, |id| id.get().to_be_bytes().to_vec()),
        name: name(span),
        kind: KIND_CLIENT,
        start_time_unix_nano: clock.unix_ns(span.stats.began_ns),
        end_time_unix_nano: clock.unix_ns(span.stats.ended_ns),
        attributes: attributes(span),
        events: trace.retries().iter().map(|retry| event(retry, clock)).collect(),
        status: failure(span).map(|message| SpanStatus { message, code: STATUS_ERROR }),
        flags: FLAG_SAMPLED | FLAG_KNOWS_REMOTE | remote,
    }
}

/// Of few different values, as a span's name is to be.
fn name(span: &Span) -> String {
    let is_grpc = span.stats.status.is_grpc;
    match (&*span.method, &*span.http_method) {
        ("" | OTHER_METHOD, _) if is_grpc => "grpc".to_owned(),
        (method, _) if is_grpc => method.to_owned(),
        (_, "") => "HTTP".to_owned(),
        (_, http_method) => http_method.to_owned(),
    }
}

/// What the client sees as an error: any status but OK, as the conventions for gRPC clients have it; of other requests any from 400 on.
fn failure(span: &Span) -> Option<String> {
    let Status { is_grpc, grpc, flag, .. } = span.stats.status;
    let failed = match is_grpc {
        true => grpc != Some(0),
        false => span.stats.status.http_code().is_none_or(|code| code >= 400),
    };
    let said = if flag == Flag::None { String::new() } else { flag.name().replace('_', " ") };
    (failed || flag != Flag::None).then_some(said)
}

/// Attributes, as they are put together.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn put_peer(&mut self, address: SocketAddr) {
        self.put("network.peer.address", address.ip().to_string());
        self.put("network.peer.port", u64::from(address.port()));
    }

    fn put_owner(&mut self, side: &str, workload: &Workload) {
        self.put(&format!("k8s.{side}.owner.name"), &*workload.name);
        self.put(&format!("k8s.{side}.owner.type"), &*workload.kind);
    }
}

fn attributes(span: &Span) -> Vec<KeyValue> {
    let mut all = Attributes::default();
    let stats = &span.stats;
    let status = stats.status;
    let Status { is_grpc, flag, .. } = status;
    if is_grpc {
        all.put("rpc.system.name", "grpc");
        all.put("rpc.method", &*span.method);
        all.put("rpc.response.status_code", status.code_name());
    } else {
        all.put("http.request.method", &*span.http_method);
        if let Some(code) = stats.status.http_code() {
            all.put("http.response.status_code", u64::from(code));
        }
    }
    if let Some(error) = status.error_type() {
        all.put("error.type", &*error);
    }
    put_sides(&mut all, span);
    if let Some(sent_ns) = stats.first_sent_ns {
        all.put("evenkeel.queue_ms", stats.since_began_ms(sent_ns));
    }
    if let Some(headers_ns) = stats.headers_ns {
        all.put("evenkeel.first_byte_ms", stats.since_began_ms(headers_ns));
    }
    all.put("evenkeel.request_bytes", stats.request_bytes);
    all.put("evenkeel.response_bytes", stats.response_bytes);
    if is_grpc {
        all.put("evenkeel.request_messages", u64::from(stats.request_messages));
        all.put("evenkeel.response_messages", u64::from(stats.response_messages));
    }
    all.put("evenkeel.attempts", u64::from(stats.attempts));
    all.put("evenkeel.new_connection", !stats.on_existing_connection);
    if flag != Flag::None {
        all.put("evenkeel.flag", flag.name());
    }
    all.0
}

/// Who called whom.
fn put_sides(all: &mut Attributes, span: &Span) {
    let port = &span.link.service_port;
    // `evenkeel proxy --to` has no Service.
    let is_service = port.port != 0;
    if is_service {
        all.put("server.address", format!("{}.{}.svc", port.service.name, port.service.namespace));
        all.put("server.port", u64::from(port.port));
        all.put("evenkeel.service", port.to_string());
    } else if let Some(endpoint) = &span.endpoint {
        all.put("server.address", endpoint.address.ip().to_string());
        all.put("server.port", u64::from(endpoint.address.port()));
    }
    if let Some(caller) = &span.link.caller {
        all.put("k8s.src.namespace", &*caller.name.namespace);
        all.put("k8s.src.name", &*caller.name.name);
        all.put("k8s.src.type", "Pod");
        all.put_owner("src", &caller.workload);
    }
    let Some(endpoint) = &span.endpoint else { return };
    all.put_peer(endpoint.address);
    if let Some((namespace, pod)) = endpoint.pod.as_ref().and_then(|pod| pod.split_once('/')) {
        all.put("k8s.dst.namespace", namespace);
        all.put("k8s.dst.name", pod);
        all.put("k8s.dst.type", "Pod");
        if let Some(workload) = Workload::of_pod_name(namespace, pod) {
            all.put_owner("dst", &workload);
        }
    }
    if let Some(zone) = &endpoint.zone {
        all.put("dst.zone", &**zone);
    }
}

fn event(retry: &Retry, clock: WallClock) -> Event {
    let mut all = Attributes::default();
    all.put_peer(retry.endpoint);
    let cause = match retry.cause {
        RetryCause::ConnectionRefused => "connection_refused",
        RetryCause::StreamRefused => "stream_refused",
        RetryCause::ConnectionLost => "connection_lost",
        RetryCause::EndpointGone => "endpoint_gone",
        RetryCause::Status(code) => {
            all.put("rpc.response.status_code", grpc_code_name(code));
            "status"
        }
    };
    all.put("evenkeel.retry.cause", cause);
    Event { time_unix_nano: clock.unix_ns(retry.at_ns), name: "retry".to_owned(), attributes: all.0 }
}
