//! The metrics as OpenMetrics text. A registry is made for each scrape and filled from the counts: nothing is kept twice,
//! and what is gone from the node is gone from the metrics.

use super::Telemetry;
use super::access_log::AccessLogCounts;
use super::calls_text::calls_text;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;

/// What the metrics are made of.
#[derive(Debug, Default)]
pub struct Numbers {
    /// The enrolled pods.
    pub pods: Vec<PodCounts>,
    /// Pods that are to be enrolled and are not, or not yet.
    pub pods_waiting: Vec<PodObstacle>,
    /// Pods that somebody asked for and that are never enrolled as they are.
    pub pods_refused: Vec<PodObstacle>,
    /// What others attached and is in the way of the agent's programs.
    pub legacy_attachments: Vec<LegacyAttachment>,
    /// The endpoints that this node has sent calls to.
    pub endpoints: Vec<EndpointCounts>,
    /// Destinations whose connections are taken.
    pub destinations: usize,
    /// Ids of former destinations that rest.
    pub resting_ids: usize,
    /// What of the source could not be used.
    pub problems: usize,
    /// How the source's kinds of objects stand.
    pub kinds: Vec<KindCounts>,
    /// What the worker threads count.
    pub path: Vec<PathCount>,
    /// What became of the access log's records.
    pub access_log: AccessLogCounts,
}

/// One of the worker threads' counters, of all of them together.
#[derive(Debug, Clone, Copy)]
pub struct PathCount {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// It says how many there are now, and not how many there have been.
    pub is_gauge: bool,
    /// How many.
    pub value: u64,
}

/// How one kind of a source's objects stands.
#[derive(Debug)]
pub struct KindCounts {
    /// Its name.
    pub kind: &'static str,
    /// Seconds since something came of it.
    pub seconds_since_contact: f64,
    /// How many are known.
    pub objects: usize,
    /// Bytes that came.
    pub bytes: u64,
    /// Lists begun.
    pub lists: u64,
    /// Tries that failed.
    pub failures: u64,
}

/// An enrolled pod's connections.
#[derive(Debug)]
pub struct PodCounts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// How many connections met each outcome at `connect()`, by its name: taken, or straight because of what.
    pub connections: Vec<(&'static str, u64)>,
    /// What its connections and calls hold.
    pub memory: MemoryCounts,
    /// Those that it had when it was enrolled.
    pub opened_before: OpenedBefore,
}

/// What a pod's connections and calls hold in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryCounts {
    /// Bytes.
    pub held: u64,
    /// Bytes that they may hold.
    pub limit: u64,
    /// Calls that were refused or ended because that was used up. From 0 on again when the pod has had no connection for a time.
    pub refused: u64,
}

/// Connections to captured addresses that a pod had when it was enrolled: they go straight until they end.
#[derive(Debug)]
pub struct OpenedBefore {
    /// Why they had not been taken, by its name.
    pub cause: &'static str,
    /// How many they were.
    pub connections: usize,
}

/// A pod that is to be enrolled and is not.
#[derive(Debug)]
pub struct PodObstacle {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Why, by its name.
    pub reason: &'static str,
}

/// A cgroup attachment of the old kind that is in the way of the agent's programs.
#[derive(Debug)]
pub struct LegacyAttachment {
    /// Where it is.
    pub cgroup: String,
    /// What it is attached as.
    pub kind: &'static str,
    /// What follows, by its name.
    pub effect: &'static str,
}

/// An endpoint's calls.
#[derive(Debug)]
pub struct EndpointCounts {
    /// `namespace/name:port`.
    pub service: String,
    /// Its address.
    pub endpoint: String,
    /// Calls begun.
    pub calls: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls under way.
    pub active: u32,
    /// How often a pod ejected it.
    pub ejections: u64,
    /// Pods that pass it over at the moment.
    pub ejected_by: usize,
}

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

/// The text of a scrape: what the control loop knows, and what is counted of calls.
pub fn scrape(numbers: &Numbers, telemetry: &Telemetry) -> String {
    const END: &str = "# EOF\n";
    let mut text = exposition(numbers);
    let end = text.strip_suffix(END).map_or(text.len(), str::len);
    text.truncate(end);
    text.push_str(&calls_text(telemetry, telemetry.has_sizes()));
    text.push_str(END);
    text
}

fn exposition(numbers: &Numbers) -> String {
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
    let problems = Gauge::<i64>::default();
    problems.set(numbers.problems as i64);

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
    registry.register("source_problems", "What of the source could not be used", problems);
    register_kinds(&numbers.kinds, &mut registry);
    register_path(&numbers.path, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes whatever is written to it");
    text
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

/// A label's value as the format wants it; the encoder writes values as they are.
pub(super) fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}

fn states(counts: &[(State, usize)]) -> Family<StateLabel, Gauge> {
    let family = Family::<StateLabel, Gauge>::default();
    for (state, count) in counts {
        family.get_or_create(&StateLabel { state: state.clone() }).set(*count as i64);
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_out_under_their_names_and_labels_are_escaped() {
        let numbers = Numbers {
            pods: vec![PodCounts {
                namespace: "a".into(),
                pod: "b\"c".into(),
                connections: vec![("taken", 3)],
                memory: MemoryCounts { held: 5, limit: 9, refused: 1 },
                opened_before: OpenedBefore { cause: "agent_absent", connections: 2 },
            }],
            pods_waiting: vec![PodObstacle { namespace: "a".into(), pod: "d".into(), reason: "no_process" }],
            legacy_attachments: vec![LegacyAttachment {
                cgroup: "/sys".into(),
                kind: "connect4",
                effect: "refuses",
            }],
            endpoints: vec![EndpointCounts {
                service: "a/s:1".into(),
                endpoint: "10.0.0.1:2".into(),
                calls: 7,
                failures: 1,
                active: 2,
                ejections: 3,
                ejected_by: 1,
            }],
            destinations: 4,
            kinds: vec![KindCounts {
                kind: "services",
                seconds_since_contact: 1.5,
                objects: 3,
                bytes: 9,
                lists: 1,
                failures: 0,
            }],
            path: vec![
                PathCount { name: "circuit_refusals", help: " Calls.", is_gauge: false, value: 8 },
                PathCount { name: "calls_open", help: " Calls.", is_gauge: true, value: 6 },
            ],
            ..Numbers::default()
        };
        let text = scrape(&numbers, &Telemetry::new(true));
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "one end: {text}");
        for line in [
            "evenkeel_proxy_circuit_refusals_total 8",
            "evenkeel_proxy_calls_open 6",
            "evenkeel_access_log_lines_total 0",
            "evenkeel_access_log_dropped_total 0",
            "# TYPE rpc_client_call_duration_seconds histogram",
            "# TYPE istio_requests counter",
            r#"evenkeel_connections_total{namespace="a",pod="b\"c",outcome="taken"} 3"#,
            r#"evenkeel_pod_memory_bytes{namespace="a",pod="b\"c"} 5"#,
            r#"evenkeel_pod_memory_refused_calls_total{namespace="a",pod="b\"c"} 1"#,
            r#"evenkeel_opened_before{namespace="a",pod="b\"c",cause="agent_absent"} 2"#,
            r#"evenkeel_pod_not_enrolled{namespace="a",pod="d",reason="no_process"} 1"#,
            r#"evenkeel_legacy_attachment{cgroup="/sys",kind="connect4",effect="refuses"} 1"#,
            r#"evenkeel_endpoint_calls_total{service="a/s:1",endpoint="10.0.0.1:2"} 7"#,
            r#"evenkeel_endpoint_active_calls{service="a/s:1",endpoint="10.0.0.1:2"} 2"#,
            r#"evenkeel_endpoint_ejections_total{service="a/s:1",endpoint="10.0.0.1:2"} 3"#,
            r#"evenkeel_endpoint_ejected{service="a/s:1",endpoint="10.0.0.1:2"} 1"#,
            r#"evenkeel_pods{state="enrolled"} 1"#,
            r#"evenkeel_destinations{state="live"} 4"#,
            r#"evenkeel_source_seconds_since_contact{kind="services"} 1.5"#,
            r#"evenkeel_source_bytes_total{kind="services"} 9"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
    }
}
