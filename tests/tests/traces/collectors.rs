//! Collectors that are away, slow, hang, refuse, want a credential or TLS: no call notices.

use super::{CALLS, PARENT, Stage, TRACE, metric, outcome, spans};
use anyhow::{Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Outcome, eventually};
use std::collections::BTreeMap;

#[test]
fn a_collector_that_is_away_fails_no_call_and_gets_its_spans_when_it_is_back_even_elsewhere() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(2)?;
    // A name, which leads to nobody at first.
    let hosts = tempfile::NamedTempFile::new()?;
    let name = "collector.tracing.example";
    let at = |address: &str| std::fs::write(hosts.path(), format!("127.0.0.1 localhost\n{address} {name}\n"));
    at(&stage.client.ipv4.to_string())?;
    let options = Options {
        hosts: Some(hosts.path().to_owned()),
        arguments: vec!["--otlp-endpoint".into(), format!("http://{name}:4317")],
        ..Options::default()
    };
    let mut agent = Agent::start_with(&stage.cluster, &options)?;
    let field = format!("traceparent=00-{TRACE}{{call}}-{PARENT}-01");
    stage.call(CALLS, &[&field], &[])?.is_clean()?;
    eventually("the collector's absence is counted", || {
        metric(&agent, "evenkeel_trace_export_failures_total").is_ok_and(|failures| failures > 2)
    })?;
    let said =
        agent.process.stderr().iter().filter(|line| line.contains("spans are not taken")).count() as u64;
    let failures = metric(&agent, "evenkeel_trace_export_failures_total")?;
    ensure!((1..failures).contains(&said), "of {failures} failures {said} are told");
    at(&stage.observatory.ipv4.to_string())?;
    let mut collector = stage.observatory.collect(&[])?;
    spans(&collector, CALLS)?;
    // It has told of them before it answers.
    eventually("its answers are there", || outcome(&agent, "sent").is_ok_and(|sent| sent == CALLS))?;
    // It goes away in the middle, and another comes.
    collector.process.kill()?;
    stage.call(CALLS, &[&field], &[])?.is_clean()?;
    let again = stage.observatory.collect(&[])?;
    spans(&again, CALLS)?;
    eventually("all are counted", || outcome(&agent, "sent").is_ok_and(|sent| sent == 2 * CALLS))?;
    ensure!(outcome(&agent, "failed")? == 0);
    // What waits at the end is sent at the end.
    stage.call(CALLS, &[&field], &[])?.is_clean()?;
    agent.stop()?;
    spans(&again, 2 * CALLS)?;
    Ok(())
}

#[test]
fn a_collector_that_never_answers_fails_no_call_and_holds_no_more_than_the_queue() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(2)?;
    let _collector = stage.observatory.collect(&["--answers", "hang"])?;
    let mut agent = stage.agent(&["--trace-start", "1"])?;
    // More than the queue and a batch.
    let calls = 12_000;
    let tally = stage.call(calls, &[], &["--rate", "1000", "--in-flight", "200"])?;
    tally.is_clean()?;
    ensure!(tally.completed() == calls, "{tally:?}");
    eventually("what has no room is counted", || {
        outcome(&agent, "dropped").is_ok_and(|dropped| dropped > 0)
    })?;
    ensure!(outcome(&agent, "sent")? == 0);
    // Nor does it keep the agent from its end.
    agent.stop()
}

#[test]
fn refusals_are_obeyed_as_otlp_says() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    // The first batch comes in the end, the second is lost, of the third one span is.
    let answers = "unavailable,exhausted-later,aborted,ok,invalid_argument,reject-one,resource_exhausted,ok";
    let collector = stage.observatory.collect(&["--answers", answers])?;
    let agent = stage.agent(&["--trace-start", "1"])?;
    for (name, count) in [("sent", 1), ("failed", 1), ("rejected", 1), ("failed", 2), ("sent", 2)] {
        stage.call(1, &[], &[])?.is_clean()?;
        eventually(name, || outcome(&agent, name).is_ok_and(|counted| counted == count))?;
    }
    let answered: Vec<String> = collector.exports()?.into_iter().map(|export| export.answer).collect();
    ensure!(answered.join(",") == answers, "{answered:?}");
    ensure!(metric(&agent, "evenkeel_trace_export_failures_total")? == 5);
    ensure!(outcome(&agent, "dropped")? == 0);
    Ok(())
}

#[test]
fn what_the_variables_say_goes_with_each_batch_and_is_shown_nowhere() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    let collector = stage.observatory.collect(&[])?;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*stage.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20hunter2,x-tenant=shop"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let options = Options {
        arguments: vec!["--trace-start".into(), "1".into()],
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..Options::default()
    };
    let mut agent = Agent::start_with(&stage.cluster, &options)?;
    stage.call(CALLS, &[], &[])?.is_clean()?;
    spans(&collector, CALLS)?;
    let exports = collector.exports()?;
    let said = |headers: &BTreeMap<String, String>| {
        headers.get("authorization").is_some_and(|value| value == "Bearer hunter2")
            && headers.get("x-tenant").is_some_and(|value| value == "shop")
    };
    ensure!(!exports.is_empty() && exports.iter().all(|export| said(&export.headers)), "{exports:?}");
    let config = agent.admin("/config")?;
    let (names, compression) = (&config["traces"]["headers"], &config["traces"]["compression"]);
    ensure!(*names == serde_json::json!(["authorization", "x-tenant"]) && compression == "gzip", "{config}");
    ensure!(!config.to_string().contains("hunter2"), "{config}");
    agent.stop()?;
    ensure!(!agent.process.stderr().iter().any(|line| line.contains("hunter2")), "it is logged");
    Ok(())
}

#[test]
fn a_collector_is_spoken_to_over_tls_as_soon_as_its_certificate_is_trusted() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    let folder = tempfile::tempdir()?;
    let address = stage.observatory.ipv4.to_string();
    let certificate = |name: &str| -> Result<[String; 2]> {
        let made = rcgen::generate_simple_self_signed([address.clone()])?;
        let files = ["crt", "key"].map(|end| folder.path().join(format!("{name}.{end}")));
        std::fs::write(&files[0], made.cert.pem())?;
        std::fs::write(&files[1], made.signing_key.serialize_pem())?;
        Ok(files.map(|file| file.to_string_lossy().into_owned()))
    };
    let ([own, key], [other, _]) = (certificate("collector")?, certificate("other")?);
    let collector = stage.observatory.collect(&["--certificate", &own, "--key", &key])?;
    let endpoint = format!("https://{address}:{}", evenkeel_tests::collector::PORT);
    let trusted = folder.path().join("trusted.crt").to_string_lossy().into_owned();
    std::fs::copy(&other, &trusted)?;
    let mut agent = stage.agent_with(&[
        "--otlp-endpoint",
        &endpoint,
        "--trace-start",
        "1",
        "--otlp-ca-file",
        &trusted,
    ])?;
    stage.call(CALLS, &[], &[])?.is_clean()?;
    eventually("the certificate is not trusted", || {
        metric(&agent, "evenkeel_trace_export_failures_total").is_ok_and(|failures| failures > 0)
    })?;
    ensure!(collector.exports()?.is_empty(), "it was told all the same");
    // As whoever rotates certificates does it: the agent goes on.
    std::fs::rename(&own, &trusted)?;
    spans(&collector, CALLS)?;
    agent.stop()
}
