//! Istio's metrics: <https://istio.io/latest/docs/reference/config/metrics/>, with the values that its proxy has for what it does not know.

use super::histogram::{self, durations};
use super::{head, host, push};
use crate::mesh::{ServicePort, Workload};
use crate::telemetry::{CallCounts, CallGroup, EdgeCounts, EdgeGroup, Status};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Istio's bounds, which are Envoy's.
pub(super) const ISTIO_BOUNDS_NS: [u64; 19] = [
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
    600_000_000_000,
    1_800_000_000_000,
    3_600_000_000_000,
];

/// The name of a cluster where nobody gave it another, as Istio has it.
const CLUSTER: &str = "Kubernetes";
const UNKNOWN: &str = "unknown";

/// Calls that read alike under Istio's labels.
#[derive(Default)]
struct Edge {
    is_grpc: bool,
    calls: CallCounts,
    sizes: Option<EdgeCounts>,
}

/// Istio's metrics. What they are summed up by are the labels' texts: several groups may have the same.
pub(super) fn write(
    groups: &[(CallGroup, CallCounts)],
    sizes: &[(EdgeGroup, EdgeCounts)],
    text: &mut String,
) -> fmt::Result {
    let mut of_all_methods: FxHashMap<&EdgeGroup, CallCounts> = FxHashMap::default();
    for (group, counts) in groups {
        of_all_methods.entry(&group.edge).or_default().add(counts);
    }
    let mut edges: BTreeMap<String, Edge> = BTreeMap::new();
    for (group, counts) in of_all_methods {
        let edge = edges.entry(istio_labels(group)).or_default();
        edge.is_grpc = group.status.is_grpc;
        edge.calls.add(&counts);
    }
    for (group, counts) in sizes {
        // What was counted since the calls were read waits for the next time.
        if let Some(edge) = edges.get_mut(&istio_labels(group)) {
            edge.sizes.get_or_insert_default().add(counts);
        }
    }
    head(text, "istio_requests", "counter", "Requests")?;
    for (labels, edge) in &edges {
        writeln!(text, "istio_requests_total{{{labels}}} {}", edge.calls.calls())?;
    }
    const DURATION: &str = "istio_request_duration_milliseconds";
    head(text, DURATION, "histogram", "Time from a request to its end")?;
    for (labels, Edge { calls, .. }) in &edges {
        durations(text, DURATION, labels, &calls.durations, &ISTIO_BOUNDS_NS, calls.duration_sum_ns, 1e6)?;
    }
    let sizes = || edges.iter().filter_map(|(labels, edge)| Some((labels, edge.sizes.as_ref()?)));
    head(text, "istio_request_bytes", "histogram", "Request bodies' sizes")?;
    for (labels, counts) in sizes() {
        histogram::sizes(text, "istio_request_bytes", labels, &counts.request_sizes, counts.request_bytes)?;
    }
    head(text, "istio_response_bytes", "histogram", "Response bodies' sizes")?;
    for (labels, counts) in sizes() {
        histogram::sizes(
            text,
            "istio_response_bytes",
            labels,
            &counts.response_sizes,
            counts.response_bytes,
        )?;
    }
    let of_grpc = || edges.iter().filter(|(_, edge)| edge.is_grpc);
    head(text, "istio_request_messages", "counter", "gRPC messages that clients sent")?;
    for (labels, edge) in of_grpc() {
        writeln!(text, "istio_request_messages_total{{{labels}}} {}", edge.calls.request_messages)?;
    }
    head(text, "istio_response_messages", "counter", "gRPC messages that servers sent")?;
    for (labels, edge) in of_grpc() {
        writeln!(text, "istio_response_messages_total{{{labels}}} {}", edge.calls.response_messages)?;
    }
    Ok(())
}

/// What of a call's group is in the labels of Istio's metrics.
fn istio_labels(edge: &EdgeGroup) -> String {
    let mut labels = String::from("reporter=\"source\"");
    side(&mut labels, "source", edge.source.as_deref());
    side(&mut labels, "destination", edge.destination.as_ref());
    let ServicePort { service, .. } = &edge.service_port;
    let Status { is_grpc, http, grpc, flag } = edge.status;
    for (label, value) in [
        ("destination_service", &*host(&edge.service_port)),
        ("destination_service_name", &service.name),
        ("destination_service_namespace", &service.namespace),
        ("request_protocol", if is_grpc { "grpc" } else { "http" }),
        ("response_code", &http.to_string()),
        ("grpc_response_status", &grpc.map_or_else(String::new, |code| code.to_string())),
        ("response_flags", flag.envoy()),
        // Nothing is known of it where the source reports.
        ("connection_security_policy", UNKNOWN),
    ] {
        push(&mut labels, "", label, value);
    }
    labels
}

/// The labels of a call's one end.
fn side(labels: &mut String, side: &str, workload: Option<&Workload>) {
    let known = |value: Option<&Arc<str>>| value.map_or(UNKNOWN, |value| &**value).to_owned();
    let name = known(workload.map(|workload| &workload.name));
    let app = workload.and_then(|workload| workload.app.as_ref());
    let version = workload.and_then(|workload| workload.version.as_ref());
    // Istio's own order (`pkg/model/proxy.go`, "canonical"): the label made for it, the application's name, the workload.
    let canonical = workload.and_then(|workload| workload.canonical_name.as_ref()).or(app);
    let revision = workload.and_then(|workload| workload.canonical_revision.as_ref()).or(version);
    for (label, value) in [
        ("_workload", &*name),
        ("_workload_namespace", &*known(workload.map(|workload| &workload.namespace))),
        ("_principal", UNKNOWN),
        ("_app", &*known(app)),
        ("_version", &*known(version)),
        ("_canonical_service", canonical.map_or(&*name, |canonical| canonical)),
        ("_canonical_revision", revision.map_or("latest", |revision| revision)),
        ("_cluster", if workload.is_some() { CLUSTER } else { UNKNOWN }),
    ] {
        push(labels, side, label, value);
    }
}
