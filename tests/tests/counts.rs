//! What the agent counts of calls is what their clients and servers count: over calls of every kind, errors, retries and cancels, no call is
//! missing and none is double.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Outcome, Shop, Tally, eventually};
use serde_json::Value;
use std::collections::BTreeSet;

/// Of each kind of call; there are four.
const OF_EACH_KIND: u64 = 50;
const FAILED: u64 = 60;
const OF_CANCELS: u64 = 120;
/// FAILED_PRECONDITION, which neither the agent nor the client gives by itself.
const FAILED_PRECONDITION: u8 = 9;
const REQUEST_BYTES: u64 = 700;
const REPLY_BYTES: u64 = 3_000;
/// Messages of a streaming call of `peer load`.
const STREAM_MESSAGES: u64 = 5;

/// The rows of `/calls`.
struct Rows(Vec<Value>);

impl Rows {
    fn of(agent: &Agent) -> Result<Self> {
        Ok(Self(agent.admin("/calls")?["calls"].as_array().context("there is a list")?.clone()))
    }

    /// The sum of a column over the rows that are so.
    fn sum(&self, column: &str, is_so: impl Fn(&Value) -> bool) -> u64 {
        self.0.iter().filter(|row| is_so(row)).filter_map(|row| row[column].as_u64()).sum()
    }

    fn calls(&self, is_so: impl Fn(&Value) -> bool) -> u64 {
        self.sum("calls", is_so)
    }
}

fn is_ok(row: &Value) -> bool {
    row["grpc_status"] == 0 && row["flag"] == "-"
}

/// The client reset the stream, or its process ended before it could.
fn is_given_up(row: &Value) -> bool {
    row["flag"] == "client_cancelled" || row["flag"] == "client_gone"
}

/// The sum of a metric's samples that have all these labels.
fn metric(text: &str, name: &str, labels: &[&str]) -> Result<f64> {
    let start = format!("{name}{{");
    let mut sum = 0.0;
    for line in text.lines().filter(|line| line.starts_with(&start)) {
        if labels.iter().all(|label| line.contains(label)) {
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
            sum += value.with_context(|| format!("a number: {line}"))?;
        }
    }
    Ok(sum)
}

#[test]
fn what_is_counted_of_calls_is_what_clients_and_servers_count() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    // An endpoint that refuses connections: calls that were to go there go elsewhere.
    shop.greeters[1].process.kill()?;
    let agent = Agent::start(&shop.cluster)?;
    let sizes = [format!("{REQUEST_BYTES}"), format!("{REPLY_BYTES}")];
    let mixed = ["--kind", "mixed", "--payload-bytes", &sizes[0], "--reply-bytes", &sizes[1]];
    let answered = shop.client.call(&shop.v4(), 4 * OF_EACH_KIND, &mixed)?;
    answered.is_clean()?;
    let failed = shop.client.call(&shop.v4(), FAILED, &["--fail-with", &FAILED_PRECONDITION.to_string()])?;
    ensure!(failed.failed() == FAILED, "{failed:?}");
    let cancelled = shop.client.call(&shop.v4(), OF_CANCELS, &["--cancel-every", "2"])?;
    ensure!(cancelled.failed() == 0 && cancelled.cancelled == OF_CANCELS / 2, "{cancelled:?}");
    eventually("the last call is over for the agent too", || agent.is_idle().unwrap_or(false))?;

    let rows = Rows::of(&agent)?;
    check_rows(&rows, &answered, &cancelled).with_context(|| format!("{:#?}", rows.0))?;
    let text = agent.metrics()?;
    check_metrics(&text, &rows).with_context(|| text.clone())?;
    let counters = agent.admin("/workers")?;
    ensure!(counters["calls"] == rows.calls(|_| true), "{counters}");
    ensure!(counters["reconnects"].as_u64() > Some(0), "nothing was sent elsewhere: {counters}");
    for (query, expected) in [
        ("pod=shop/client", rows.calls(|_| true)),
        ("service=shop/greeter", rows.calls(|_| true)),
        ("pod=shop/client&service=shop/greeter:50051", rows.calls(|_| true)),
        ("pod=shop/server-1", 0),
        ("service=shop/greeter:1", 0),
        (
            "method=evenkeel.test.Greeter/*",
            rows.calls(|row| row["method"].as_str().is_some_and(|name| !name.is_empty())),
        ),
        ("method=evenkeel.test.Greeter/None", 0),
        ("by=service", rows.calls(|_| true)),
        ("by=workload,endpoint,status", rows.calls(|_| true)),
    ] {
        let asked = agent.admin(&format!("/calls?{query}"))?;
        let asked = Rows(asked["calls"].as_array().cloned().unwrap_or_default());
        ensure!(asked.calls(|_| true) == expected, "{query}: {:#?}", asked.0);
    }
    let table = agent.ask("GET", "/calls", &[("Accept", "text/plain")], "")?.body;
    ensure!(table.starts_with("POD ") && table.contains("shop/client"), "{table}");
    // Once more, and nothing has changed: reading counts nothing.
    let again = Rows::of(&agent)?;
    ensure!(again.calls(|_| true) == rows.calls(|_| true), "{:#?}", again.0);
    Ok(())
}

fn check_rows(rows: &Rows, answered: &Tally, cancelled: &Tally) -> Outcome {
    // By server, as the servers' own replies say.
    for server in ["server-1", "server-2", "server-3"] {
        let counted = rows.calls(|row| {
            is_ok(row) && row["endpoint_pod"].as_str().is_some_and(|pod| pod.ends_with(&format!("/{server}")))
        });
        let seen = [answered, cancelled].iter().filter_map(|tally| tally.calls.get(server)).sum::<u64>();
        ensure!(counted == seen, "{server}: counted {counted}, answered {seen}");
    }
    // By method, with each one's messages and bytes.
    for (method, requests, replies) in [
        ("Upload", STREAM_MESSAGES, 1),
        ("Download", 1, STREAM_MESSAGES),
        ("Chat", STREAM_MESSAGES, STREAM_MESSAGES),
    ] {
        let name = format!("evenkeel.test.Greeter/{method}");
        let is_its = |row: &Value| is_ok(row) && row["method"] == *name;
        ensure!(rows.calls(is_its) == OF_EACH_KIND, "{method}");
        let messages = rows.sum("request_messages", is_its);
        ensure!(messages == requests * OF_EACH_KIND, "{method}: {messages} requests");
        let messages = rows.sum("response_messages", is_its);
        ensure!(messages == replies * OF_EACH_KIND, "{method}: {messages} replies");
        // Payloads, and around each a prefix and a few fields.
        for (column, payload, messages) in
            [("request_bytes", REQUEST_BYTES, requests), ("response_bytes", REPLY_BYTES, replies)]
        {
            let (bytes, payloads) = (rows.sum(column, is_its), payload * messages * OF_EACH_KIND);
            ensure!(
                (payloads..payloads + 100 * messages * OF_EACH_KIND).contains(&bytes),
                "{method}: {bytes} {column}"
            );
        }
    }
    let unary = rows.calls(|row| is_ok(row) && row["method"] == "evenkeel.test.Greeter/SayHello");
    ensure!(unary == OF_EACH_KIND + cancelled.completed(), "{unary} single calls");
    let failed = rows.calls(|row| row["grpc_status"] == FAILED_PRECONDITION && row["flag"] == "-");
    ensure!(failed == FAILED, "{failed} failed");
    // Some were cancelled before they had left.
    let given_up = rows.calls(is_given_up);
    ensure!((1..=cancelled.cancelled).contains(&given_up), "{given_up} of {} cancelled", cancelled.cancelled);
    let all = rows.calls(|_| true);
    let expected = answered.completed() + cancelled.completed() + FAILED + given_up;
    ensure!(all == expected, "{all} calls, not {expected}");
    // Some met the endpoint that refuses connections first; some were cancelled before any was chosen.
    let (attempts, sent) = (rows.sum("attempts", |_| true), rows.calls(|row| !row["endpoint"].is_null()));
    ensure!(attempts > sent, "{attempts} attempts of {sent} calls");
    Ok(())
}

/// A monitoring system takes each series once, and the samples of a metric where they stand together.
fn check_series(text: &str) -> Outcome {
    let (mut family, mut families, mut series) = ("", BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            family = head.split(' ').next().unwrap_or_default();
            ensure!(families.insert(family), "{family} comes twice");
        } else if !line.starts_with('#') {
            let (of, _) = line.rsplit_once(' ').with_context(|| format!("a sample: {line}"))?;
            ensure!(of.starts_with(family), "{of} stands under {family}");
            ensure!(series.insert(of), "{of} comes twice");
        }
    }
    Ok(())
}

/// The metrics are the same counts under other names.
fn check_metrics(text: &str, rows: &Rows) -> Outcome {
    check_series(text)?;
    let reporter = "reporter=\"source\"";
    for (labels, otel, is_so) in [
        (
            vec!["grpc_response_status=\"0\"", "response_code=\"200\"", "response_flags=\"-\""],
            "rpc_response_status_code=\"OK\"",
            &is_ok as &dyn Fn(&Value) -> bool,
        ),
        (vec!["grpc_response_status=\"9\""], "rpc_response_status_code=\"FAILED_PRECONDITION\"", &|row| {
            row["grpc_status"] == 9
        }),
        (vec!["response_flags=\"DC\""], "rpc_response_status_code=\"CANCELLED\"", &is_given_up),
    ] {
        let expected = rows.calls(is_so) as f64;
        ensure!(expected > 0.0, "{labels:?}");
        let labels: Vec<&str> = labels.into_iter().chain([reporter, "request_protocol=\"grpc\""]).collect();
        for name in [
            "istio_requests_total",
            "istio_request_duration_milliseconds_count",
            "istio_request_bytes_count",
            "istio_response_bytes_count",
        ] {
            let found = metric(text, name, &labels)?;
            ensure!(found == expected, "{name} {labels:?}: {found}, not {expected}");
        }
        for (name, column) in [
            ("istio_request_bytes_sum", "request_bytes"),
            ("istio_response_bytes_sum", "response_bytes"),
            ("istio_request_messages_total", "request_messages"),
            ("istio_response_messages_total", "response_messages"),
        ] {
            let (found, expected) = (metric(text, name, &labels)?, rows.sum(column, is_so) as f64);
            ensure!(found == expected, "{name} {labels:?}: {found}, not {expected}");
        }
        let found = metric(text, "rpc_client_call_duration_seconds_count", &[otel])?;
        ensure!(found == expected, "{otel}: {found}, not {expected}");
    }
    let labels = [
        "source_workload=\"client\"",
        "destination_workload=\"server\"",
        "destination_service_name=\"greeter\"",
        "connection_security_policy=\"unknown\"",
    ];
    ensure!(metric(text, "istio_requests_total", &labels)? > 0.0, "{labels:?}");
    let labels = [
        "server_address=\"greeter.shop.svc.cluster.local\"",
        "server_port=\"50051\"",
        "error_type=\"FAILED_PRECONDITION\"",
    ];
    let found = metric(text, "rpc_client_call_duration_seconds_count", &labels)?;
    ensure!(found == FAILED as f64, "{labels:?}: {found}, not {FAILED}");
    ensure!(!text.lines().any(|line| line.contains("code=\"OK\"") && line.contains("error_type")), "{text}");
    ensure!(text.contains("\nevenkeel_call_series_evicted_total 0"), "{text}");
    ensure!(text.contains("evenkeel_proxy_circuit_refusals_total 0"), "the worker threads' own counters");
    ensure!(text.ends_with("# EOF\n"));
    Ok(())
}

#[test]
fn less_or_nothing_is_counted_where_that_is_asked_for() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    for (what, counted) in [("otel", 20.0), ("none", 0.0)] {
        let options = evenkeel_tests::agent::Options {
            arguments: vec![format!("--call-metrics={what}")],
            ..Default::default()
        };
        let agent = Agent::start_with(&shop.cluster, &options)?;
        shop.client.call(&shop.v4(), 20, &[])?.is_clean()?;
        eventually("the calls are over for the agent too", || {
            agent.admin("/workers").is_ok_and(|workers| workers["calls"] == 20)
                && agent.is_idle().unwrap_or(false)
        })?;
        let text = agent.metrics()?;
        let calls = metric(&text, "rpc_client_call_duration_seconds_count", &[])?;
        ensure!(calls == counted && !text.contains("istio_"), "{what}: {calls} calls\n{text}");
    }
    Ok(())
}
