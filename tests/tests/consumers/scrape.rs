//! Prometheus scrapes the agent: it finds nothing to complain of, and takes in what the agent tells, as what it is.

use crate::watched::Watched;
use anyhow::{Context, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::consumers::promtool;
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_answered;
use serde_json::Value;
use std::collections::BTreeMap;

/// Istio's own name, which its consumers know: `promtool` would have seconds.
const NOT_OURS_TO_NAME: &str = "istio_request_duration_milliseconds";

#[test]
fn prometheus_takes_in_all_that_the_agent_tells() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let watched = Watched::start()?;
    let prometheus = &watched.prometheus;
    let mut target = Value::Null;
    // One scrape may fail on a machine that has much to do, but not each.
    eventually_answered("its last scrape went well", || {
        target = prometheus.ask("targets")?["activeTargets"][0].clone();
        Ok((target["health"] == "up" && target["lastError"] == "").then_some(()))
    })
    .with_context(|| target.to_string())?;
    let value = |metric: &str| prometheus.sum_at(metric, watched.after);
    let (scraped, kept) = (value("scrape_samples_scraped")?, value("scrape_samples_post_metric_relabeling")?);
    let text = watched.agent.metrics()?;
    let told = text.lines().filter(|line| !line.starts_with('#')).count() as f64;
    ensure!(scraped == told && kept == told, "told {told} samples, {scraped} scraped, {kept} kept");
    // A doubled or unordered sample is a warning, and so is text that it cannot read.
    let complaints = prometheus.process.stderr();
    ensure!(complaints.is_empty(), "{complaints:#?}");

    // In OpenMetrics a counter's name has no suffix, and there is a type for information: so that was what it asked for.
    let kinds = types(&text);
    for (name, kind) in [
        ("evenkeel_connections", "counter"),
        ("evenkeel_build", "info"),
        ("rpc_client_call_duration_seconds", "histogram"),
        ("process_resident_memory_bytes", "gauge"),
    ] {
        ensure!(kinds.get(name) == Some(&kind), "{name}: {:?}", kinds.get(name));
    }
    let metadata = prometheus.ask("metadata")?;
    for (name, kind) in kinds {
        let known = metadata[name][0]["type"].as_str();
        ensure!(known == Some(kind), "{name} is a {kind}, and known as {known:?}");
        ensure!(
            metadata[name][0]["help"].as_str().is_some_and(|help| !help.is_empty()),
            "{name} has no help"
        );
    }
    for (name, expected) in [
        (
            r#"istio_requests_total{grpc_response_status="0",response_flags="-"}"#,
            watched.earlier.ok() + watched.run.ok(),
        ),
        (
            r#"rpc_client_call_duration_seconds_count{rpc_response_status_code="OK"}"#,
            watched.earlier.ok() + watched.run.ok(),
        ),
        (
            r#"rpc_client_call_duration_seconds_count{error_type="FAILED_PRECONDITION"}"#,
            watched.earlier.failed() + watched.run.failed(),
        ),
    ] {
        let found = value(name)?;
        ensure!(found == expected as f64, "{name}: {found}, and the clients have {expected}");
    }
    let cancelled = value(r#"rpc_client_call_duration_seconds_count{error_type=~"client_.+"}"#)?;
    let by_clients = watched.earlier.cancelled() + watched.run.cancelled();
    ensure!((1.0..=by_clients as f64).contains(&cancelled), "{cancelled} cancelled of {by_clients}");
    Ok(())
}

/// Each metric's type, as the text announces it.
fn types(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[test]
fn promtool_has_no_remark_on_the_classic_text() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let watched = Watched::start()?;
    let answer = watched.agent.metrics_for("text/plain")?;
    let kind = answer.header("content-type").context("it has a type")?;
    ensure!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let output = promtool(&["check", "metrics"], &answer.body)?;
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    // Nobody else's remark is hidden by the one that is expected.
    let remarks: Vec<_> = said.lines().filter(|line| !line.starts_with(NOT_OURS_TO_NAME)).collect();
    ensure!(remarks.is_empty() && said.contains(NOT_OURS_TO_NAME), "{said}\n{}", answer.body);
    // The same samples in both.
    let samples = |text: &str| -> Value { text.lines().filter(|line| !line.starts_with('#')).count().into() };
    ensure!(samples(&answer.body) == samples(&watched.agent.metrics()?));
    Ok(())
}
