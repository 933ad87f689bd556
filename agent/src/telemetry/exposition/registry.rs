//! The metrics that have the project's own names: what the control loop knows ([`Numbers`]), and how much is counted of calls. Next: [`super::calls`].

use super::escaped;
use super::numbers::{KindCounts, LegacyAttachment, Numbers, PodCounts, PodObstacle};
use crate::telemetry::otlp::TraceCounts;
use crate::telemetry::{PathCount, Telemetry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PodLabels {
    namespace: String,
    pod: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    namespace: String,
    pod: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OpenedBeforeLabels {
    namespace: String,
    pod: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObstacleLabels {
    namespace: String,
    pod: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LegacyLabels {
    cgroup: String,
    kind: &'static str,
    effect: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    service: String,
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "label values are written as they are named")]
enum State {
    enrolled,
    waiting,
    refused,
    live,
    resting,
}

/// All of them, filled.
pub(super) fn filled(numbers: &Numbers, telemetry: &Telemetry) -> Registry {
    let mut registry = Registry::with_prefix("evenkeel");
    let connections = Family::<ConnectionLabels, Counter>::default();
    let opened_before = Family::<OpenedBeforeLabels, Gauge>::default();
    let [memory, memory_limit] = [(); 2].map(|()| Family::<PodLabels, Gauge>::default());
    let refused_calls = Family::<PodLabels, Counter>::default();
    for PodCounts { namespace, pod, connections: outcomes, memory: held, opened_before: before } in
        &numbers.pods
    {
        let labels = PodLabels { namespace: escaped(namespace), pod: escaped(pod) };
        memory.get_or_create(&labels).set(held.held as i64);
        memory_limit.get_or_create(&labels).set(held.limit as i64);
        refused_calls.get_or_create(&labels).inc_by(held.refused);
        let cause = before.cause;
        let labels = OpenedBeforeLabels { namespace: escaped(namespace), pod: escaped(pod), cause };
        opened_before.get_or_create(&labels).set(before.connections as i64);
        for (outcome, count) in outcomes {
            let labels = ConnectionLabels { namespace: escaped(namespace), pod: escaped(pod), outcome };
            connections.get_or_create(&labels).inc_by(*count);
        }
    }
    let (calls, failures) =
        (Family::<EndpointLabels, Counter>::default(), Family::<EndpointLabels, Counter>::default());
    let (active, ejected) =
        (Family::<EndpointLabels, Gauge>::default(), Family::<EndpointLabels, Gauge>::default());
    let ejections = Family::<EndpointLabels, Counter>::default();
    for counts in &numbers.endpoints {
        let labels =
            EndpointLabels { service: escaped(&counts.service), endpoint: escaped(&counts.endpoint) };
        calls.get_or_create(&labels).inc_by(counts.calls);
        failures.get_or_create(&labels).inc_by(counts.failures);
        active.get_or_create(&labels).set(counts.active.into());
        ejections.get_or_create(&labels).inc_by(counts.ejections);
        ejected.get_or_create(&labels).set(counts.ejected_by as i64);
    }
    let not_enrolled = Family::<ObstacleLabels, Gauge>::default();
    for PodObstacle { namespace, pod, reason } in numbers.pods_waiting.iter().chain(&numbers.pods_refused) {
        let labels = ObstacleLabels { namespace: escaped(namespace), pod: escaped(pod), reason };
        not_enrolled.get_or_create(&labels).set(1);
    }
    let legacy = Family::<LegacyLabels, Gauge>::default();
    for LegacyAttachment { cgroup, kind, effect } in &numbers.legacy_attachments {
        legacy.get_or_create(&LegacyLabels { cgroup: escaped(cgroup), kind, effect }).set(1);
    }
    let pods = states(&[
        (State::enrolled, numbers.pods.len()),
        (State::waiting, numbers.pods_waiting.len()),
        (State::refused, numbers.pods_refused.len()),
    ]);
    let destinations = states(&[(State::live, numbers.destinations), (State::resting, numbers.resting_ids)]);
    let [problems, ready] = [numbers.problems as i64, numbers.ready.into()].map(|value| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    });

    registry.register(
        "build",
        "The agent's version",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register(
        "ready",
        "1 where all pods of the node that should be are enrolled, as far as they can be; 0 at the start and the stop",
        ready,
    );
    registry.register(
        "connections",
        "Connections of enrolled pods, by what became of them at connect()",
        connections,
    );
    registry.register(
        "opened_before",
        "Connections to captured addresses that a pod had when it was enrolled, by why they had not been taken",
        opened_before,
    );
    registry.register(
        "pod_memory_bytes",
        "What a pod's connections and calls hold in the agent and in the kernel's buffers",
        memory,
    );
    registry.register("pod_memory_limit_bytes", "What a pod's connections and calls may hold", memory_limit);
    registry.register(
        "pod_memory_refused_calls",
        "Calls of a pod that were refused or ended because its memory was used up",
        refused_calls,
    );
    registry.register(
        "pod_not_enrolled",
        "A pod that is to be enrolled and is not, or not yet, and why",
        not_enrolled,
    );
    registry.register(
        "legacy_attachment",
        "A cgroup program of another's, attached in the old way, that is in the way of the agent's",
        legacy,
    );
    registry.register("endpoint_calls", "Calls begun to an endpoint", calls);
    registry.register("endpoint_failures", "Calls to an endpoint that failed", failures);
    registry.register("endpoint_active_calls", "Calls to an endpoint that are under way", active);
    registry.register(
        "endpoint_ejections",
        "Times that a pod's calls left an endpoint out, as it failed them",
        ejections,
    );
    registry.register(
        "endpoint_ejected",
        "Pods of this node whose calls leave an endpoint out at the moment; from two on, all do",
        ejected,
    );
    registry.register(
        "pods",
        "Pods of this node that are to be enrolled: those that are, that wait, and that can't be as they are",
        pods,
    );
    registry.register(
        "destinations",
        "Ids of destinations: live, or resting before they are used again",
        destinations,
    );
    let [log_lines, log_dropped] = [(); 2].map(|()| Counter::<u64>::default());
    log_lines.inc_by(numbers.access_log.written());
    log_dropped.inc_by(numbers.access_log.dropped());
    registry.register("access_log_lines", "Lines of the access log that were written", log_lines);
    registry.register(
        "access_log_dropped",
        "Records of the access log that had no room, or could not be written",
        log_dropped,
    );
    register_spans(&numbers.spans, &mut registry);
    registry.register("source_problems", "What of the source could not be used", problems);
    register_kinds(&numbers.kinds, &mut registry);
    register_path(&numbers.path, &mut registry);
    register_series(telemetry, &mut registry);
    registry
}

fn register_spans(counts: &TraceCounts, registry: &mut Registry) {
    let spans = Family::<OutcomeLabel, Counter>::default();
    for (outcome, count) in [
        ("sent", counts.sent()),
        ("dropped", counts.dropped()),
        ("failed", counts.failed()),
        ("rejected", counts.rejected()),
    ] {
        spans.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
    }
    let failures = Counter::<u64>::default();
    failures.inc_by(counts.failed_exports());
    registry.register(
        "trace_spans",
        "Spans of traced calls: sent to the collector, without room, of a batch that failed, and rejected by the collector",
        spans,
    );
    registry.register("trace_export_failures", "Tries to send a batch of spans that failed", failures);
}

fn register_kinds(kinds: &[KindCounts], registry: &mut Registry) {
    let staleness = Family::<KindLabel, Gauge<f64, AtomicU64>>::default();
    let objects = Family::<KindLabel, Gauge>::default();
    let [bytes, lists, failures] = [(); 3].map(|()| Family::<KindLabel, Counter>::default());
    for counts in kinds {
        let label = KindLabel { kind: counts.kind };
        staleness.get_or_create(&label).set(counts.seconds_since_contact);
        objects.get_or_create(&label).set(counts.objects as i64);
        bytes.get_or_create(&label).inc_by(counts.bytes);
        lists.get_or_create(&label).inc_by(counts.lists);
        failures.get_or_create(&label).inc_by(counts.failures);
    }
    registry.register(
        "source_seconds_since_contact",
        "Seconds since the API server was last heard of, at most a minute where all is well",
        staleness,
    );
    registry.register("source_objects", "Objects that are known", objects);
    registry.register("source_bytes", "Bytes that came from the API server, after any decompression", bytes);
    registry.register("source_lists", "Lists that were asked of the API server", lists);
    registry.register("source_failures", "Lists and watches that failed", failures);
}

fn register_path(counts: &[PathCount], registry: &mut Registry) {
    for PathCount { name, help, is_gauge, value } in counts {
        let (name, help) = (format!("proxy_{name}"), help.trim().trim_end_matches('.'));
        if *is_gauge {
            let gauge = Gauge::<i64>::default();
            gauge.set(*value as i64);
            registry.register(name, help, gauge);
        } else {
            let counter = Counter::<u64>::default();
            counter.inc_by(*value);
            registry.register(name, help, counter);
        }
    }
}

fn register_series(telemetry: &Telemetry, registry: &mut Registry) {
    let series = Gauge::<i64>::default();
    series.set(telemetry.series() as i64);
    registry.register(
        "call_series",
        "Series that calls are counted in, with what is kept of former ones",
        series,
    );
    let evicted = Counter::<u64>::default();
    evicted.inc_by(telemetry.evicted_series());
    registry.register(
        "call_series_evicted",
        "Former series of calls that were let go of before their time, as there were too many",
        evicted,
    );
}

fn states(counts: &[(State, usize)]) -> Family<StateLabel, Gauge> {
    let family = Family::<StateLabel, Gauge>::default();
    for (state, count) in counts {
        family.get_or_create(&StateLabel { state: state.clone() }).set(*count as i64);
    }
    family
}
