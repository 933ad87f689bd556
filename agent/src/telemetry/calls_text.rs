//! What is counted of calls as OpenMetrics text: under OTel's names, and under Istio's.
//!
//! OTel's: <https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/>. Istio's: <https://istio.io/latest/docs/reference/config/metrics/>,
//! with the values that its proxy has for what it does not know.

use super::calls::histogram::{DURATION_BOUNDS_NS, SIZE_BOUNDS, add};
use super::exposition::escaped;
use super::{
    CallCounts, CallGroup, CallSums, DurationBuckets, EdgeCounts, EdgeGroup, SizeBuckets, Status, Telemetry,
};
use crate::mesh::{ServicePort, Workload};
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Instant;

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

/// The part of a scrape that is about calls. Without an end mark.
pub(super) fn calls_text(telemetry: &Telemetry, istio: bool, now: Instant) -> String {
    let mut text = String::new();
    let calls = telemetry.call_sums(now);
    otel(&calls, &mut text)
        .and_then(
            |()| {
                if istio { self::istio(&calls.groups, &telemetry.sizes(now), &mut text) } else { Ok(()) }
            },
        )
        .expect("a String takes whatever is written to it");
    text
}

/// What OTel's metric tells gRPC calls apart by.
type OtelKey<'a> = (&'a ServicePort, &'a str, &'static str, Option<Cow<'static, str>>);

fn otel(calls: &CallSums, text: &mut String) -> fmt::Result {
    let mut sums: BTreeMap<OtelKey<'_>, (DurationBuckets, u64)> = BTreeMap::new();
    let groups = calls
        .groups
        .iter()
        .map(|(CallGroup { edge, method }, counts)| (&edge.service_port, method, edge.status, counts));
    let rest = calls.rest.iter().map(|(at, method, status, counts)| (at, method, *status, counts));
    for (service_port, method, status, counts) in
        groups.chain(rest).filter(|(_, _, status, _)| status.is_grpc)
    {
        let (buckets, sum) =
            sums.entry((service_port, method, status.code_name(), status.error_type())).or_default();
        add(buckets, &counts.durations);
        *sum += counts.duration_sum_ns;
    }
    const NAME: &str = "rpc_client_call_duration_seconds";
    head(text, NAME, "histogram", "Time from a gRPC call's request to its end, as its client sees it")?;
    let bounds: Vec<u64> = FINER_BOUNDS_NS.into_iter().chain(OTEL_BOUNDS_NS).collect();
    for ((service_port, method, code, error), (buckets, sum_ns)) in sums {
        let mut labels = String::from("rpc_system_name=\"grpc\"");
        for (label, value) in [
            ("service", &*service_port.to_string()),
            ("server_address", &host(service_port)),
            ("server_port", &service_port.port.to_string()),
            ("rpc_method", method),
            ("rpc_response_status_code", code),
        ] {
            push(&mut labels, "", label, value);
        }
        if let Some(error) = error {
            push(&mut labels, "", "error_type", &error);
        }
        durations(text, NAME, &labels, &buckets, &bounds, sum_ns, 1e9)?;
    }
    Ok(())
}

/// A Service's name in the cluster's DNS.
fn host(ServicePort { service, .. }: &ServicePort) -> String {
    format!("{}.{}.{CLUSTER_DOMAIN}", service.name, service.namespace)
}

/// Calls that read alike under Istio's labels.
#[derive(Default)]
struct Edge {
    is_grpc: bool,
    calls: CallCounts,
    sizes: Option<EdgeCounts>,
}

/// Istio's metrics. What they are summed up by are the labels' texts: several groups may have the same.
fn istio(
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
        self::sizes(text, "istio_request_bytes", labels, &counts.request_sizes, counts.request_bytes)?;
    }
    head(text, "istio_response_bytes", "histogram", "Response bodies' sizes")?;
    for (labels, counts) in sizes() {
        self::sizes(text, "istio_response_bytes", labels, &counts.response_sizes, counts.response_bytes)?;
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
    use std::time::Duration;

    fn web() -> Workload {
        Workload {
            app: Some("basket".into()),
            version: Some("v2".into()),
            ..Workload::named("shop", "web", "Deployment")
        }
    }

    fn service_port() -> ServicePort {
        ServicePort { service: ObjectName::new("shop", "cart"), port: 50051 }
    }

    fn server() -> Endpoint {
        Endpoint {
            pod: Some("shop/cart-7f9c5b6d4-bcdfg".into()),
            ..Endpoint::at("10.0.0.1:50051".parse().expect("an address"))
        }
    }

    /// A pod that calls, and what its calls are counted with.
    struct Client {
        pod: Pod,
        recorder: Recorder,
        methods: Methods,
    }

    impl Client {
        fn of(telemetry: &Arc<Telemetry>, workload: Workload) -> Self {
            let pod = Pod {
                key: PodKey { uid: format!("{workload:?}").into(), netns_cookie: 1 },
                name: ObjectName::new("shop", "web-6d4cf56db6-x2x8z"),
                workload: Arc::new(workload),
                netns: std::fs::File::open("/dev/null").expect("it is there").into(),
            };
            let recorder = Recorder::new(Arc::clone(telemetry), Some(&pod), service_port());
            let methods = recorder.methods();
            Self { pod, recorder, methods }
        }

        /// A call of a method, or, without one, a request that is not gRPC.
        fn call(&mut self, method: &str, endpoint: Option<&Endpoint>, grpc_status: Option<u8>, flag: Flag) {
            let is_grpc = !method.is_empty();
            let path = format!("/{method}");
            let id = if is_grpc {
                self.methods.intern(path.as_bytes(), path.len() as u32)
            } else {
                MethodId::NONE
            };
            let end = CallEnd {
                source: Some(&self.pod),
                service_port: &service_port(),
                original: None,
                endpoint,
                method: self.methods.name(id),
                request: &FieldList::new(),
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
            self.recorder.record(&end, id);
        }
    }

    fn telemetry() -> Arc<Telemetry> {
        let telemetry = Arc::new(Telemetry::new(true));
        let mut client = Client::of(&telemetry, web());
        let (endpoint, add) = (server(), "shop.Cart/Add");
        for (grpc_status, flag, method, endpoint) in [
            (Some(0), Flag::None, add, Some(&endpoint)),
            (Some(0), Flag::None, add, Some(&endpoint)),
            (Some(14), Flag::ServerLost, add, Some(&endpoint)),
            (Some(5), Flag::None, add, Some(&endpoint)),
            (None, Flag::ClientCancelled, add, None),
            // Istio's metrics have one word for both.
            (None, Flag::ClientGone, add, None),
            (None, Flag::None, "", Some(&endpoint)),
        ] {
            client.call(method, endpoint, grpc_status, flag);
        }
        telemetry
    }

    /// The samples of a text by their names and labels. Panics where one comes twice, or a metric's do not stand together.
    fn samples(text: &str) -> BTreeMap<&str, f64> {
        let (mut samples, mut family, mut families) =
            (BTreeMap::new(), "", std::collections::BTreeSet::new());
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# TYPE ") {
                family = head.split(' ').next().expect("a name");
                assert!(families.insert(family), "{family} comes twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a sample");
                assert!(series.starts_with(family), "{series} stands under {family}");
                let before = samples.insert(series, value.parse().expect("a number"));
                assert!(before.is_none(), "{series} comes twice");
            }
        }
        samples
    }

    #[test]
    fn bounds_that_are_shown_are_bounds_that_are_counted_by() {
        for bound in OTEL_BOUNDS_NS.iter().chain(&FINER_BOUNDS_NS).chain(&ISTIO_BOUNDS_NS) {
            assert!(DURATION_BOUNDS_NS.contains(bound), "{bound}");
        }
    }

    #[test]
    fn calls_come_out_under_otels_names() {
        let text = calls_text(&telemetry(), false, Instant::now());
        let labels = "rpc_system_name=\"grpc\",service=\"shop/cart:50051\",server_address=\"cart.shop.svc.cluster.local\",\
                      server_port=\"50051\",rpc_method=\"shop.Cart/Add\"";
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
                "rpc_client_call_duration_seconds_count{{{labels},rpc_response_status_code=\"UNAVAILABLE\",error_type=\"server_lost\"}} 1"
            ),
            format!(
                "rpc_client_call_duration_seconds_count{{{labels},rpc_response_status_code=\"CANCELLED\",error_type=\"client_gone\"}} 1"
            ),
            format!(
                "rpc_client_call_duration_seconds_count{{{labels},rpc_response_status_code=\"NOT_FOUND\",error_type=\"NOT_FOUND\"}} 1"
            ),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("istio_"), "it was not asked for");
        assert_eq!(text.matches("_count{").count(), 5, "what is no gRPC is not among them");
    }

    #[test]
    fn calls_come_out_under_istios_names_with_its_labels() {
        let text = calls_text(&telemetry(), true, Instant::now());
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
        assert_eq!(requests.len(), 5);
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

    #[test]
    fn no_series_comes_out_twice_whatever_reads_alike() {
        let telemetry = Arc::new(Telemetry::new(true));
        // Alike in all that is told of them.
        let workloads = [
            web(),
            Workload { kind: "StatefulSet".into(), ..web() },
            Workload { canonical_name: Some("basket".into()), ..web() },
            Workload { canonical_revision: Some("v2".into()), ..web() },
        ];
        let server = server();
        for workload in &workloads {
            let mut client = Client::of(&telemetry, workload.clone());
            for flag in Flag::ALL {
                for endpoint in [None, Some(&server)] {
                    client.call("shop.Cart/Add", endpoint, None, *flag);
                    client.call("shop.Cart/Get", endpoint, Some(14), *flag);
                    client.call("", endpoint, None, *flag);
                }
            }
        }
        let text = calls_text(&telemetry, true, Instant::now());
        let samples = samples(&text);
        let all = |name: &str| -> f64 {
            samples.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, value)| value).sum()
        };
        let calls = (workloads.len() * Flag::ALL.len() * 6) as f64;
        assert_eq!(all("istio_requests_total{"), calls, "and none is missing");
        assert_eq!(all("istio_request_bytes_count{"), calls);
        assert_eq!(all("rpc_client_call_duration_seconds_count{"), calls / 3.0 * 2.0);
        assert_eq!(text, calls_text(&telemetry, true, Instant::now()), "their order stays");
    }

    #[test]
    fn nothing_that_is_told_falls_while_anything_of_it_goes_on() {
        let telemetry = Arc::new(Telemetry::new(true));
        let start = Instant::now();
        let rolled = Endpoint { pod: Some("shop/cart-7f9c5b6d4-x2x8z".into()), ..server() };
        let server = server();
        let mut job = Client::of(&telemetry, Workload::named("shop", "import", "Job"));
        let mut client = Client::of(&telemetry, web());
        for _ in 0..1_000 {
            job.call("shop.Cart/Add", Some(&server), Some(0), Flag::None);
        }
        // A method once, when it starts, and then others: the series of the first end when the server is rolled.
        client.call("shop.Cart/Config", Some(&rolled), Some(0), Flag::None);
        client.call("shop.Cart/Config", Some(&server), Some(0), Flag::None);
        client.call("shop.Cart/Add", Some(&server), Some(0), Flag::None);
        let first = calls_text(&telemetry, true, start);
        let mut before: BTreeMap<String, f64> =
            samples(&first).into_iter().map(|(series, value)| (series.to_owned(), value)).collect();
        drop(job);
        client.recorder.keep(std::iter::empty());
        for minute in (0..900).step_by(5) {
            client.call("shop.Cart/Add", Some(&server), Some(0), Flag::None);
            let text = calls_text(&telemetry, true, start + Duration::from_secs(60 * minute));
            let now: BTreeMap<String, f64> =
                samples(&text).into_iter().map(|(series, value)| (series.to_owned(), value)).collect();
            for (series, value) in &before {
                match now.get(series) {
                    Some(now) => {
                        assert!(now >= value, "after {minute} minutes: {now} after {value}: {series}");
                    }
                    // What has ended ends as a whole: nobody takes that for a smaller number.
                    None => {
                        assert!(series.contains("source_workload=\"import\"") && minute >= 135, "{series}");
                    }
                }
            }
            before = now;
        }
        let is_of_job = |series: &String| series.contains("source_workload=\"import\"");
        assert!(!before.keys().any(is_of_job), "a workload that has long ended is told of no more");
    }
}
