//! What Kiali and Istio's Grafana dashboards ask of Prometheus has answers, and those that the clients' own counts demand.
//!
//! Kiali's queries: `graph/telemetry/istio/istio.go`, its appenders beside that, and `prometheus/metrics.go` of <https://github.com/kiali/kiali>.
//! Istio's: `manifests/addons/dashboards` of <https://github.com/istio/istio>. As they are there, with their variables filled in; they ask
//! for ranges of whole seconds, and here for the one between two scrapes.
//!
//! The agent tells of a call where it begins (`reporter="source"`), once. What asks for the other side's report has none, as it is in a mesh
//! whose servers have no sidecar: Kiali draws an edge when the caller's namespace is looked at, and the dashboards are to be set to the
//! reporter `source`.

use crate::watched::{ENVELOPE_BYTES, FAILED_STATUS, Watched};
use anyhow::{Context, Result, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::consumers::Sample;
use evenkeel_tests::host::privileged;

/// What Kiali groups a graph's edges by.
const EDGE: &str = "source_cluster,source_workload_namespace,source_workload,source_canonical_service,source_canonical_revision,\
                    destination_cluster,destination_service_namespace,destination_service,destination_service_name,\
                    destination_workload_namespace,destination_workload,destination_canonical_service,destination_canonical_revision";
/// And what it adds of requests.
const OUTCOME: &str = "request_protocol,response_code,grpc_response_status,response_flags";
/// Kiali rounds what it asks for.
const ROUNDED: f64 = 0.0005;

/// Asks, with the range in place of `RANGE`, and the groups in place of `EDGE` and `OUTCOME`.
fn ask(watched: &Watched, query: &str) -> Result<Vec<Sample>> {
    let query = query.replace("RANGE", &watched.range()).replace("EDGE", EDGE).replace("OUTCOME", OUTCOME);
    watched.prometheus.query_at(&query, watched.after)
}

/// Checks that something was counted so often, or up to so much oftener, by its rounded rate.
fn is_counted(watched: &Watched, what: &str, rate: f64, least: u64, more: u64, series: usize) -> Outcome {
    let (count, off) = (watched.count(rate), ROUNDED * watched.seconds() * series as f64 + 1e-6);
    let expected = least as f64 - off..=(least + more) as f64 + off;
    ensure!(expected.contains(&count), "{what}: {count}, not {expected:?}");
    Ok(())
}

fn sum<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> f64 {
    samples.into_iter().map(|sample| sample.value).sum()
}

/// What Kiali makes an edge of: `populateTrafficMap` passes over series that lack one of these, and `IsBadSourceTelemetry` and
/// `IsBadDestTelemetry` over those with a known namespace and an unknown cluster or workload.
fn is_an_edge(sample: &Sample) -> Outcome {
    for (label, expected) in [
        ("source_cluster", "Kubernetes"),
        ("source_workload_namespace", "shop"),
        ("source_workload", "client"),
        ("source_canonical_service", "client"),
        ("source_canonical_revision", "latest"),
        ("destination_service_namespace", "shop"),
        ("destination_service", "greeter.shop.svc.cluster.local"),
        ("destination_service_name", "greeter"),
    ] {
        ensure!(sample.label(label) == expected, "{label}: {sample:?}");
    }
    for label in EDGE.split(',') {
        ensure!(!sample.label(label).is_empty(), "{label}: {sample:?}");
    }
    Ok(())
}

#[test]
fn kialis_graph_has_the_edges_rates_and_latencies_that_the_clients_count() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let watched = &Watched::start()?;
    let run = &watched.run;
    // Of a namespace's workloads' calls.
    let edges = ask(
        watched,
        r#"round(sum(rate(istio_requests_total{reporter="source",source_workload_namespace="shop"} [RANGE])) by (EDGE,OUTCOME) > 0,0.001)"#,
    )?;
    let of = |status: &'static str, flags: &'static str| {
        let rows = edges.iter().filter(move |edge| {
            edge.label("grpc_response_status") == status && edge.label("response_flags") == flags
        });
        rows.collect::<Vec<_>>()
    };
    for (status, expected) in [("0", run.ok()), (FAILED_STATUS, run.failed())] {
        let rows = of(status, "-");
        let [row] = rows[..] else { anyhow::bail!("status {status} is one edge, and not {rows:#?}") };
        is_an_edge(row)?;
        for (label, expected) in [
            ("request_protocol", "grpc"),
            ("response_code", "200"),
            ("destination_cluster", "Kubernetes"),
            ("destination_workload_namespace", "shop"),
            ("destination_workload", "server"),
            ("destination_canonical_service", "server"),
        ] {
            ensure!(row.label(label) == expected, "{label}: {row:?}");
        }
        is_counted(watched, status, row.value, expected, 0, 1)?;
    }
    for edge in &edges {
        is_an_edge(edge)?;
    }
    is_counted(watched, "all", sum(&edges), run.answered(), run.cancelled(), edges.len())?;

    // Latency: by quantile and on average, in milliseconds.
    for query in [
        r#"round(histogram_quantile(0.95, sum(rate(istio_request_duration_milliseconds_bucket{reporter=~"source|waypoint",source_workload_namespace="shop"}[RANGE])) by (le,EDGE,request_protocol)) > 0,0.001)"#,
        r#"round(sum(rate(istio_request_duration_milliseconds_sum{reporter=~"source|waypoint",source_workload_namespace="shop"}[RANGE])) by (EDGE,request_protocol) / sum(rate(istio_request_duration_milliseconds_count{reporter=~"source|waypoint",source_workload_namespace="shop"}[RANGE])) by (EDGE,request_protocol) > 0,0.001)"#,
    ] {
        let found = ask(watched, query)?;
        let to_servers: Vec<_> =
            found.iter().filter(|edge| edge.label("destination_workload") == "server").collect();
        let [edge] = to_servers[..] else { anyhow::bail!("{query}: {found:#?}") };
        is_an_edge(edge)?;
        ensure!(edge.value > 0.0 && edge.value < 60_000.0, "{query}: {edge:?}");
    }
    // Throughput.
    let bytes = ask(
        watched,
        r#"round(sum(rate(istio_request_bytes_sum{reporter="source",source_workload_namespace="shop"}[RANGE])) by (EDGE) > 0,0.001)"#,
    )?;
    let envelopes = (run.requests() + run.cancelled()) * ENVELOPE_BYTES;
    is_counted(watched, "request bytes", sum(&bytes), run.request_bytes(), envelopes, bytes.len())?;
    // gRPC messages.
    for (metric, messages, more) in [
        ("istio_request_messages_total", run.requests(), run.cancelled()),
        ("istio_response_messages_total", run.replies(), 0),
    ] {
        let query = r#"round(sum(rate(METRIC{reporter="source",source_workload_namespace="shop"} [RANGE])) by (EDGE) > 0,0.001)"#;
        let found = ask(watched, &query.replace("METRIC", metric))?;
        is_counted(watched, metric, sum(&found), messages, more, found.len())?;
    }
    Ok(())
}

#[test]
fn kialis_health_and_metrics_have_the_clients_counts_and_its_other_queries_no_second_report() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let watched = &Watched::start()?;
    let run = &watched.run;
    // Health of a Service, of a workload as a server, as a client, and of a namespace: shares of statuses.
    for selector in [
        r#"destination_service_name="greeter",destination_service_namespace="shop""#,
        r#"destination_service_namespace="shop""#,
        r#"source_workload_namespace="shop",source_workload="client""#,
        r#"source_workload_namespace="shop",source_canonical_service="client""#,
        r#"destination_workload_namespace="shop",destination_workload="server""#,
        r#"destination_workload_namespace="shop",destination_canonical_service="server""#,
    ] {
        let found = ask(watched, &format!("rate(istio_requests_total{{{selector}}}[RANGE]) > 0"))?;
        for (status, expected) in [("0", run.ok()), (FAILED_STATUS, run.failed())] {
            let rows = found.iter().filter(|row| {
                row.label("grpc_response_status") == status && row.label("response_flags") == "-"
            });
            is_counted(watched, selector, sum(rows), expected, 0, 1)?;
        }
        is_counted(watched, selector, sum(&found), run.answered(), run.cancelled(), 1)?;
    }
    // The metrics of a Service, inbound, and of a workload, outbound.
    for selector in [
        r#"reporter="source",destination_service_name="greeter",destination_service_namespace="shop""#,
        r#"reporter="source",source_workload_namespace="shop",source_workload="client""#,
    ] {
        let rounded = |inner: &str| {
            format!("round({inner}, 0.001000) > 0.001000 or {inner}").replace("SELECTOR", selector)
        };
        for (metric, least, more) in [
            ("istio_requests_total", run.answered(), run.cancelled()),
            ("istio_request_messages_total", run.requests(), run.cancelled()),
            ("istio_response_messages_total", run.replies(), 0),
            ("istio_response_bytes_sum", run.reply_bytes(), (run.replies() + run.failed()) * ENVELOPE_BYTES),
        ] {
            let found = ask(watched, &rounded(&format!("sum(rate({metric}{{SELECTOR}}[RANGE]))")))?;
            is_counted(watched, metric, sum(&found), least, more, 1)?;
        }
        for metric in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
            for query in [
                format!(
                    "sum(rate({metric}_sum{{SELECTOR}}[RANGE])) / sum(rate({metric}_count{{SELECTOR}}[RANGE]))"
                ),
                format!("histogram_quantile(0.99, sum(rate({metric}_bucket{{SELECTOR}}[RANGE])) by (le))"),
            ] {
                let found = ask(watched, &rounded(&query))?;
                ensure!(
                    found.len() == 1 && found[0].value > 0.0 && found[0].value.is_finite(),
                    "{query}: {found:?}"
                );
            }
        }
    }
    // A call is told of once: nothing where another side's report is asked for, and so nothing is counted twice.
    for nothing in [
        r#"sum(rate(istio_requests_total{reporter="destination",destination_workload_namespace="shop"} [RANGE])) by (EDGE,OUTCOME) > 0"#,
        r#"sum(rate(istio_requests_total{reporter="source",source_workload_namespace!="shop",destination_workload_namespace="unknown",destination_workload="unknown",destination_service=~"^.+\\.shop\\..+$"} [RANGE])) by (EDGE,OUTCOME) > 0"#,
        r#"(sum(rate(istio_requests_total{reporter="destination",source_workload_namespace="shop"}[RANGE])) by (EDGE,source_principal,destination_principal,connection_security_policy) > 0) OR (sum(rate(istio_tcp_sent_bytes_total{reporter="destination",source_workload_namespace="shop"}[RANGE])) by (EDGE,source_principal,destination_principal,connection_security_policy) > 0)"#,
    ] {
        let found = ask(watched, nothing)?;
        ensure!(found.is_empty(), "{nothing}: {found:#?}");
    }
    Ok(())
}

#[test]
fn istios_service_and_workload_dashboards_show_the_clients_counts() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let watched = &Watched::start()?;
    let run = &watched.run;
    // What a person may choose.
    for (label, expected) in
        [("destination_service", "greeter.shop.svc.cluster.local"), ("reporter", "source")]
    {
        let values = watched.prometheus.ask(&format!("label/{label}/values"))?;
        ensure!(values == serde_json::json!([expected]), "{label}: {values}");
    }
    let service = r#"reporter=~"source",destination_service="greeter.shop.svc.cluster.local""#;
    let from_client = r#"source_workload=~"client",source_workload_namespace=~"shop""#;
    let outbound = r#"source_workload_namespace=~"shop",source_workload=~"client",reporter="source",destination_service=~"greeter.shop.svc.cluster.local""#;
    let filled = |query: &str| {
        query.replace("SERVICE", service).replace("FROM_CLIENT", from_client).replace("OUTBOUND", outbound)
    };
    // Calls a second: in all, by source and code, and those of a workload by destination.
    for (query, labels) in [
        (r#"round(sum(irate(istio_requests_total{SERVICE}[RANGE])), 0.001)"#, vec![]),
        (
            r#"round(sum(irate(istio_requests_total{connection_security_policy!="mutual_tls",SERVICE,FROM_CLIENT}[RANGE])) by (source_workload, source_workload_namespace, response_code), 0.001)"#,
            vec![
                ("source_workload", "client"),
                ("source_workload_namespace", "shop"),
                ("response_code", "200"),
            ],
        ),
        (
            r#"round(sum(irate(istio_requests_total{destination_principal!~"spiffe.*",OUTBOUND}[RANGE])) by (destination_service, response_code), 0.001)"#,
            vec![("destination_service", "greeter.shop.svc.cluster.local"), ("response_code", "200")],
        ),
    ] {
        let found = ask(watched, &filled(query))?;
        is_counted(watched, query, sum(&found), run.answered(), run.cancelled(), found.len())?;
        let is_so = |sample: &Sample| labels.iter().all(|(label, value)| sample.label(label) == *value);
        let row =
            found.iter().find(|sample| is_so(sample)).with_context(|| format!("{query}: {found:#?}"))?;
        is_counted(watched, query, row.value, run.answered(), run.cancelled(), 1)?;
    }
    // The share that did not fail, in HTTP's terms.
    for query in [
        r#"sum(irate(istio_requests_total{SERVICE,response_code!~"5.*"}[RANGE])) / (sum(irate(istio_requests_total{SERVICE}[RANGE])) or on () vector(1))"#,
        r#"sum(irate(istio_requests_total{OUTBOUND,response_code!~"5.*"}[RANGE])) by (destination_service) / sum(irate(istio_requests_total{OUTBOUND}[RANGE])) by (destination_service)"#,
    ] {
        let found = ask(watched, &filled(query))?;
        ensure!(found.len() == 1 && (found[0].value - 1.0).abs() < 1e-9, "{query}: {found:?}");
    }
    // Durations and sizes, by quantile.
    for query in [
        "(histogram_quantile(0.50, sum(irate(istio_request_duration_milliseconds_bucket{SERVICE}[RANGE])) by (le)) / 1000) or histogram_quantile(0.50, sum(irate(istio_request_duration_seconds_bucket{SERVICE}[RANGE])) by (le))",
        r#"histogram_quantile(0.95, sum(irate(istio_request_bytes_bucket{SERVICE,connection_security_policy!="mutual_tls",FROM_CLIENT}[RANGE])) by (source_workload, source_workload_namespace, le))"#,
        r#"histogram_quantile(0.95, sum(irate(istio_response_bytes_bucket{SERVICE,connection_security_policy!="mutual_tls",FROM_CLIENT}[RANGE])) by (source_workload, source_workload_namespace, le))"#,
        r#"(histogram_quantile(0.99, sum(irate(istio_request_duration_milliseconds_bucket{OUTBOUND,destination_principal!~"spiffe.*"}[RANGE])) by (destination_service, le)) / 1000)"#,
    ] {
        let found = ask(watched, &filled(query))?;
        ensure!(found.len() == 1 && found[0].value > 0.0 && found[0].value.is_finite(), "{query}: {found:?}");
    }
    Ok(())
}
