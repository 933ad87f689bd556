//! The metrics as OpenMetrics text. A registry is made for each scrape and filled from the counts: nothing is kept twice,
//! and what is gone from the node is gone from the metrics.

use super::Telemetry;
use super::access_log::AccessLogCounts;
use super::calls_text::calls_text;
use super::otlp::TraceCounts;
use super::process::process_text;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// What the metrics are made of.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Whether this agent serves, as `/readyz` says.
    pub ready: bool,
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
    /// What became of traced calls' spans.
    pub spans: TraceCounts,
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

/// In which of Prometheus' two text formats a scrape is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The older one, for who does not say that it reads OpenMetrics.
    Classic,
}

impl ScrapeFormat {
    /// The one that a scraper with such an `Accept` header reads.
    pub fn accepted(accept: Option<&str>) -> Self {
        let is_asked_for = accept.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        if is_asked_for { Self::OpenMetrics } else { Self::Classic }
    }

    /// What it is called in `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The text of a scrape: what the control loop knows, what is counted of calls, and what the process uses.
pub fn scrape(numbers: &Numbers, telemetry: &Telemetry, format: ScrapeFormat) -> String {
    let mut registry = registry(numbers);
    register_series(telemetry, &mut registry);
    let mut text = String::new();
    encode_registry(&mut text, &registry).expect(INFALLIBLE);
    text.push_str(&calls_text(telemetry, telemetry.has_sizes(), Instant::now()));
    text.push_str(&process_text());
    match format {
        ScrapeFormat::OpenMetrics => {
            encode_eof(&mut text).expect(INFALLIBLE);
            text
        }
        ScrapeFormat::Classic => classic(&text),
    }
}

/// OpenMetrics text in the classic format: there a counter's and an information's suffix is a part of their names, also where they are
/// described, and there is no information but a gauge that is 1.
fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        // The encoder describes first, and then says of what type it was.
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
            continue;
        }
        let described = line.strip_prefix("# TYPE ").and_then(|described| described.split_once(' '));
        let Some((name, kind)) = described else {
            classic.extend([line, "\n"]);
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            _ => ("", kind),
        };
        if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
            classic.extend(["# HELP ", name, suffix, " ", help, "\n"]);
        }
        classic.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
    }
    classic
}

const INFALLIBLE: &str = "a String takes whatever is written to it";

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

fn registry(numbers: &Numbers) -> Registry {
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
            ready: true,
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
        let text = scrape(&numbers, &Telemetry::new(true), ScrapeFormat::OpenMetrics);
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "one end: {text}");
        for line in [
            "evenkeel_proxy_circuit_refusals_total 8",
            "evenkeel_proxy_calls_open 6",
            "evenkeel_access_log_lines_total 0",
            "evenkeel_access_log_dropped_total 0",
            r#"evenkeel_trace_spans_total{outcome="sent"} 0"#,
            "evenkeel_trace_export_failures_total 0",
            "# TYPE rpc_client_call_duration_seconds histogram",
            "# TYPE istio_requests counter",
            "# TYPE evenkeel_build info",
            concat!("evenkeel_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "evenkeel_ready 1",
            "# TYPE process_cpu_seconds counter",
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

    #[test]
    fn the_classic_format_has_suffixes_in_the_names_that_are_described_and_no_end() {
        let path = vec![PathCount { name: "retries", help: " Calls.", is_gauge: false, value: 8 }];
        let numbers = Numbers { path, ..Numbers::default() };
        let text = scrape(&numbers, &Telemetry::new(true), ScrapeFormat::Classic);
        for lines in [
            "# HELP evenkeel_proxy_retries_total Calls.\n# TYPE evenkeel_proxy_retries_total counter\nevenkeel_proxy_retries_total 8\n",
            "# HELP evenkeel_build_info The agent's version.\n# TYPE evenkeel_build_info gauge\nevenkeel_build_info{",
            "# TYPE evenkeel_ready gauge\nevenkeel_ready 0\n",
            "# TYPE istio_requests_total counter\n",
            "# TYPE rpc_client_call_duration_seconds histogram\n",
        ] {
            assert!(text.contains(lines), "{lines}\nis not in\n{text}");
        }
        assert!(!text.contains("# EOF"));
    }

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_classic_format() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(ScrapeFormat::accepted(Some(prometheus)), ScrapeFormat::OpenMetrics);
        assert_eq!(ScrapeFormat::accepted(Some("text/plain")), ScrapeFormat::Classic);
        assert_eq!(ScrapeFormat::accepted(None), ScrapeFormat::Classic);
    }
}
