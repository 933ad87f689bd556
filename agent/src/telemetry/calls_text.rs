//! What is counted of calls as OpenMetrics text: under OTel's names, and under Istio's.
//!
//! OTel's: <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>. Istio's: <https://istio.io/latest/docs/reference/config/metrics/>,
//! with the values that its proxy has for what it does not know.

use super::calls::histogram::{DURATION_BOUNDS_NS, SIZE_BOUNDS, add};
use super::exposition::escaped;
use super::{
    CallCounts, CallGroup, DurationBuckets, EdgeGroup, SizeBuckets, Status, Telemetry, grpc_code_name,
};
use crate::mesh::{ServicePort, Workload};
use rustc_hash::FxHashMap;
use std::fmt::{self, Write as _};

/// OTel's bounds for the durations of calls, in nanoseconds.
const OTEL_BOUNDS_NS: [u64; 14] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];
/// Below the first of them most calls of a cluster lie: these tell them apart.
const FINER_BOUNDS_NS: [u64; 5] = [100_000, 250_000, 500_000, 1_000_000, 2_500_000];
/// Istio's bounds, which are Envoy's.
const ISTIO_BOUNDS_NS: [u64; 19] = [
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

/// The domain of a cluster's Services, as nearly all have it.
const CLUSTER_DOMAIN: &str = "svc.cluster.local";
/// The name of a cluster where nobody gave it another, as Istio has it.
const CLUSTER: &str = "Kubernetes";
const UNKNOWN: &str = "unknown";

/// The name of a gRPC call's status. A client that did not wait for one has cancelled.
fn code_name(status: Status) -> &'static str {
    status.grpc.map_or("CANCELLED", grpc_code_name)
}

/// The part of a scrape that is about calls. Without an end mark.
pub(super) fn calls_text(telemetry: &Telemetry, istio: bool) -> String {
    let mut text = String::new();
    let groups = telemetry.call_groups();
    otel(&groups, &mut text)
        .and_then(|()| if istio { self::istio(telemetry, &groups, &mut text) } else { Ok(()) })
        .expect("a String takes whatever is written to it");
    text
}

fn otel(groups: &[(CallGroup, CallCounts)], text: &mut String) -> fmt::Result {
    let mut sums: FxHashMap<(&ServicePort, &str, &str), (DurationBuckets, u64)> = FxHashMap::default();
    for (group, counts) in groups.iter().filter(|(group, _)| group.edge.status.is_grpc) {
        let key = (&group.edge.service_port, &*group.method, code_name(group.edge.status));
        let (buckets, sum) = sums.entry(key).or_default();
        add(buckets, &counts.durations);
        *sum += counts.duration_sum_ns;
    }
    const NAME: &str = "rpc_client_call_duration_seconds";
    head(text, NAME, "histogram", "Time from a gRPC call's request to its end, as its client sees it")?;
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by_key(|(this, _)| *this);
    let bounds: Vec<u64> = FINER_BOUNDS_NS.into_iter().chain(OTEL_BOUNDS_NS).collect();
    for ((service_port, method, code), (buckets, sum_ns)) in sums {
        let mut labels = String::new();
        write!(
            labels,
            "rpc_system_name=\"grpc\",service=\"{service_port}\",rpc_method=\"{}\",rpc_response_status_code=\"{code}\"",
            escaped(method),
        )?;
        durations(text, NAME, &labels, &buckets, &bounds, sum_ns, 1e9)?;
    }
    Ok(())
}

/// What of a call's group is in the labels of Istio's counters.
fn istio(telemetry: &Telemetry, groups: &[(CallGroup, CallCounts)], text: &mut String) -> fmt::Result {
    let mut sums: FxHashMap<&EdgeGroup, CallCounts> = FxHashMap::default();
    for (group, counts) in groups {
        sums.entry(&group.edge).or_default().add(counts);
    }
    let sums: Vec<(String, &EdgeGroup, CallCounts)> =
        sums.into_iter().map(|(edge, counts)| (istio_labels(edge), edge, counts)).collect();
    head(text, "istio_requests", "counter", "Requests")?;
    for (labels, _, counts) in &sums {
        writeln!(text, "istio_requests_total{{{labels}}} {}", counts.calls())?;
    }
    const DURATION: &str = "istio_request_duration_milliseconds";
    head(text, DURATION, "histogram", "Time from a request to its end")?;
    for (labels, _, counts) in &sums {
        durations(text, DURATION, labels, &counts.durations, &ISTIO_BOUNDS_NS, counts.duration_sum_ns, 1e6)?;
    }
    let sizes: FxHashMap<_, _> = telemetry.sizes().into_iter().collect();
    head(text, "istio_request_bytes", "histogram", "Request bodies' sizes")?;
    for (labels, edge, counts) in &sums {
        if let Some(sizes) = sizes.get(edge) {
            self::sizes(text, "istio_request_bytes", labels, &sizes.request_sizes, counts.request_bytes)?;
        }
    }
    head(text, "istio_response_bytes", "histogram", "Response bodies' sizes")?;
    for (labels, edge, counts) in &sums {
        if let Some(sizes) = sizes.get(edge) {
            self::sizes(text, "istio_response_bytes", labels, &sizes.response_sizes, counts.response_bytes)?;
        }
    }
    let of_grpc = || sums.iter().filter(|(_, edge, _)| edge.status.is_grpc);
    head(text, "istio_request_messages", "counter", "gRPC messages that clients sent")?;
    for (labels, _, counts) in of_grpc() {
        writeln!(text, "istio_request_messages_total{{{labels}}} {}", counts.request_messages)?;
    }
    head(text, "istio_response_messages", "counter", "gRPC messages that servers sent")?;
    for (labels, _, counts) in of_grpc() {
        writeln!(text, "istio_response_messages_total{{{labels}}} {}", counts.response_messages)?;
    }
    Ok(())
}

fn istio_labels(edge: &EdgeGroup) -> String {
    let mut labels = String::from("reporter=\"source\"");
    side(&mut labels, "source", edge.source.as_deref());
    side(&mut labels, "destination", edge.destination.as_ref());
    let ServicePort { service, .. } = &edge.service_port;
    let host = format!("{}.{}.{CLUSTER_DOMAIN}", service.name, service.namespace);
    let Status { is_grpc, http, grpc, flag } = edge.status;
    for (label, value) in [
        ("destination_service", &*host),
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
    let known = |value: Option<&std::sync::Arc<str>>| value.map_or(UNKNOWN, |value| &**value).to_owned();
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

fn push(labels: &mut String, prefix: &str, label: &str, value: &str) {
    labels.push(',');
    labels.push_str(prefix);
    labels.push_str(label);
    labels.push_str("=\"");
    labels.push_str(&escaped(value));
    labels.push('"');
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}")
}

/// A histogram of times, at some of the bounds that they are counted by; `unit_ns` is the unit that the metric has.
fn durations(
    text: &mut String,
    name: &str,
    labels: &str,
    buckets: &DurationBuckets,
    bounds_ns: &[u64],
    sum_ns: u64,
    unit_ns: f64,
) -> fmt::Result {
    let (mut below, mut wanted) = (0, bounds_ns.iter().peekable());
    for (count, bound_ns) in buckets.iter().zip(DURATION_BOUNDS_NS) {
        below += count;
        if wanted.next_if_eq(&&bound_ns).is_some() {
            writeln!(text, "{name}_bucket{{{labels},le=\"{:?}\"}} {below}", bound_ns as f64 / unit_ns)?;
        }
    }
    debug_assert!(wanted.next().is_none(), "a bound that is not counted by");
    let all: u64 = buckets.iter().sum();
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}")?;
    writeln!(text, "{name}_sum{{{labels}}} {:?}\n{name}_count{{{labels}}} {all}", sum_ns as f64 / unit_ns)
}

/// A histogram of sizes.
fn sizes(text: &mut String, name: &str, labels: &str, buckets: &SizeBuckets, sum: u64) -> fmt::Result {
    let mut below = 0;
    for (count, bound) in buckets.iter().zip(SIZE_BOUNDS) {
        below += count;
        let bound = if bound == 0 { 0.5 } else { bound as f64 };
        writeln!(text, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {below}")?;
    }
    let all: u64 = buckets.iter().sum();
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {all}")?;
    writeln!(text, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {all}")
}

#[cfg(test)]
mod tests {
    use super::super::{CallEnd, Flag, MethodId, Methods, Recorder};
    use super::*;
    use crate::http2::FieldList;
    use crate::mesh::{Endpoint, ObjectName, Pod, PodKey};
    use std::sync::Arc;

    fn telemetry() -> Arc<Telemetry> {
        let telemetry = Arc::new(Telemetry::new(true));
        let workload = Workload {
            app: Some("basket".into()),
            version: Some("v2".into()),
            ..Workload::named("shop", "web", "Deployment")
        };
        let pod = Pod {
            key: PodKey { uid: "u".into(), netns_cookie: 1 },
            name: ObjectName::new("shop", "web-6d4cf56db6-x2x8z"),
            workload: Arc::new(workload),
            netns: std::fs::File::open("/dev/null").expect("it is there").into(),
        };
        let service_port = ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 };
        let mut recorder = Recorder::new(Arc::clone(&telemetry), Some(&pod), service_port.clone());
        let mut methods = Methods::default();
        let endpoint = Endpoint {
            pod: Some("shop/cart-7f9c5b6d4-bcdfg".into()),
            ..Endpoint::at("10.0.0.1:50051".parse().expect("an address"))
        };
        let request = FieldList::new();
        let add = methods.intern(b"/shop.Cart/Add", 1);
        for (grpc_status, flag, method, is_grpc, endpoint) in [
            (Some(0), Flag::None, add, true, Some(&endpoint)),
            (Some(0), Flag::None, add, true, Some(&endpoint)),
            (Some(14), Flag::ServerLost, add, true, Some(&endpoint)),
            (None, Flag::ClientCancelled, add, true, None),
            (None, Flag::None, MethodId::NONE, false, Some(&endpoint)),
        ] {
            let end = CallEnd {
                source: Some(&pod),
                service_port: &service_port,
                original: None,
                endpoint,
                method: methods.name(method),
                request: &request,
                is_grpc,
                http_status: endpoint.map(|_| 200),
                grpc_status,
                flag,
                began_ns: 0,
                first_sent_ns: None,
                headers_ns: None,
                ended_ns: 3_000_000,
                request_bytes: 0,
                response_bytes: 42,
                request_messages: 1,
                response_messages: 2,
                attempts: 1,
                on_existing_connection: true,
            };
            recorder.record(&end, method);
        }
        telemetry
    }

    #[test]
    fn bounds_that_are_shown_are_bounds_that_are_counted_by() {
        for bound in OTEL_BOUNDS_NS.iter().chain(&FINER_BOUNDS_NS).chain(&ISTIO_BOUNDS_NS) {
            assert!(DURATION_BOUNDS_NS.contains(bound), "{bound}");
        }
    }

    #[test]
    fn calls_come_out_under_otels_names() {
        let text = calls_text(&telemetry(), false);
        let labels = "rpc_system_name=\"grpc\",service=\"shop/cart:50051\",rpc_method=\"shop.Cart/Add\"";
        for line in [
            "# TYPE rpc_client_call_duration_seconds histogram".to_owned(),
            format!(
                "rpc_client_call_duration_seconds_bucket{{{labels},rpc_response_status_code=\"OK\",le=\"0.0025\"}} 0"
            ),
            format!(
                "rpc_client_call_duration_seconds_bucket{{{labels},rpc_response_status_code=\"OK\",le=\"0.005\"}} 2"
            ),
            format!(
                "rpc_client_call_duration_seconds_bucket{{{labels},rpc_response_status_code=\"OK\",le=\"10.0\"}} 2"
            ),
            format!("rpc_client_call_duration_seconds_sum{{{labels},rpc_response_status_code=\"OK\"}} 0.006"),
            format!(
                "rpc_client_call_duration_seconds_count{{{labels},rpc_response_status_code=\"UNAVAILABLE\"}} 1"
            ),
            format!(
                "rpc_client_call_duration_seconds_count{{{labels},rpc_response_status_code=\"CANCELLED\"}} 1"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("istio_"), "it was not asked for");
        assert_eq!(text.matches("_count{").count(), 3, "what is no gRPC is not among them");
    }

    #[test]
    fn calls_come_out_under_istios_names_with_its_labels() {
        let text = calls_text(&telemetry(), true);
        let ok = "reporter=\"source\",source_workload=\"web\",source_workload_namespace=\"shop\",source_principal=\"unknown\",\
                  source_app=\"basket\",source_version=\"v2\",source_canonical_service=\"basket\",source_canonical_revision=\"v2\",\
                  source_cluster=\"Kubernetes\",destination_workload=\"cart\",destination_workload_namespace=\"shop\",\
                  destination_principal=\"unknown\",destination_app=\"unknown\",destination_version=\"unknown\",\
                  destination_canonical_service=\"cart\",destination_canonical_revision=\"latest\",\
                  destination_cluster=\"Kubernetes\",destination_service=\"cart.shop.svc.cluster.local\",\
                  destination_service_name=\"cart\",destination_service_namespace=\"shop\",request_protocol=\"grpc\",\
                  response_code=\"200\",grpc_response_status=\"0\",response_flags=\"-\",connection_security_policy=\"unknown\"";
        for line in [
            format!("istio_requests_total{{{ok}}} 2"),
            format!("istio_request_duration_milliseconds_bucket{{{ok},le=\"1.0\"}} 0"),
            format!("istio_request_duration_milliseconds_bucket{{{ok},le=\"5.0\"}} 2"),
            format!("istio_request_duration_milliseconds_sum{{{ok}}} 6.0"),
            format!("istio_request_bytes_bucket{{{ok},le=\"0.5\"}} 2"),
            format!("istio_response_bytes_bucket{{{ok},le=\"25.0\"}} 0"),
            format!("istio_response_bytes_bucket{{{ok},le=\"50.0\"}} 2"),
            format!("istio_response_bytes_sum{{{ok}}} 84"),
            format!("istio_request_messages_total{{{ok}}} 2"),
            format!("istio_response_messages_total{{{ok}}} 4"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        let requests: Vec<_> = text.lines().filter(|line| line.starts_with("istio_requests_total")).collect();
        assert_eq!(requests.len(), 4);
        let has = |parts: [&str; 3]| requests.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(has(["response_code=\"200\"", "grpc_response_status=\"14\"", "response_flags=\"UC\""]));
        assert!(has(["response_code=\"0\"", "grpc_response_status=\"\"", "response_flags=\"DC\""]));
        assert!(has([
            "destination_workload=\"unknown\"",
            "response_flags=\"DC\"",
            "destination_service_name=\"cart\""
        ]));
        assert!(has(["request_protocol=\"http\"", "response_code=\"200\"", "grpc_response_status=\"\""]));
    }
}
