//! The text of counted calls, beside what was called.

use super::calls_text;
use super::istio::ISTIO_BOUNDS_NS;
use super::otel::{FINER_BOUNDS_NS, OTEL_BOUNDS_NS};
use crate::http2::FieldList;
use crate::mesh::{Endpoint, ObjectName, Pod, PodKey, ServicePort, Workload};
use crate::telemetry::calls::histogram::DURATION_BOUNDS_NS;
use crate::telemetry::{CallEnd, CallStats, Flag, MethodId, Methods, Recorder, Status, Telemetry};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        let id =
            if is_grpc { self.methods.intern(path.as_bytes(), path.len() as u32) } else { MethodId::NONE };
        let end = CallEnd {
            source: Some(&self.pod),
            service_port: &service_port(),
            original: None,
            endpoint,
            method: self.methods.name(id),
            request: &FieldList::new(),
            stats: CallStats {
                status: Status { is_grpc, http: endpoint.map_or(0, |_| 200), grpc: grpc_status, flag },
                ended_ns: 3_000_000,
                response_bytes: 42,
                request_messages: 1,
                response_messages: 2,
                attempts: 1,
                ..CallStats::default()
            },
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
    let (mut samples, mut family, mut families) = (BTreeMap::new(), "", std::collections::BTreeSet::new());
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
