//! Jaeger receives the agent's spans: a person who has a call's trace id finds it there.

use anyhow::{Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::consumers::{Jaeger, Span};
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, Outcome, Shop};
use serde_json::json;

const CALLS: u64 = 20;
/// The upper half of each call's trace id, whose lower half is its number; and its client's span.
const TRACE: &str = "4bf92f3577b34da6";
const PARENT: &str = "00f067aa0ba902b7";
/// What the agent calls itself, as a source of spans.
const SERVICE: &str = "evenkeel";
const NOT_FOUND: &str = "5";

#[test]
fn a_call_with_a_sampled_context_is_found_in_jaeger_under_its_clients_span() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let jaeger = Jaeger::start(&shop.cluster)?;
    let arguments = vec!["--otlp-endpoint".to_owned(), jaeger.endpoint()];
    let _agent = Agent::start_with(&shop.cluster, &Options { arguments, ..Options::default() })?;
    let context = |upper: &str, sampled: &str| format!("traceparent=00-{upper}{{call}}-{PARENT}-{sampled}");
    // Without a context, and with one that is not to be sampled: nobody hears of these.
    shop.client.call(&shop.v4(), CALLS, &[])?.is_clean()?;
    shop.client.call(&shop.v4(), CALLS, &["--header", &context("1111111111111111", "00")])?.is_clean()?;
    shop.client.call(&shop.v4(), CALLS, &["--header", &context(TRACE, "01")])?.is_clean()?;
    let failed = [&*context("2222222222222222", "01")];
    let failed = shop.client.call(&shop.v4(), CALLS, &["--header", failed[0], "--fail-with", NOT_FOUND])?;
    ensure!(failed.failed() == CALLS, "{failed:?}");
    for (upper, code) in [(TRACE, "OK"), ("2222222222222222", "NOT_FOUND")] {
        for call in 0..CALLS {
            let id = format!("{upper}{call:016x}");
            let spans = eventually_some(&format!("Jaeger has the trace {id}"), || {
                Ok(Some(jaeger.trace(&id)?).filter(|spans| !spans.is_empty()))
            })?;
            ensure!(spans.len() == 1, "{spans:#?}");
            check(&spans[0], code)?;
        }
    }
    let traces = jaeger.traces_of(SERVICE)?;
    ensure!(traces as u64 == 2 * CALLS, "{traces} traces, and none but the sampled ones are to be there");
    Ok(())
}

fn check(span: &Span, code: &str) -> Result<()> {
    ensure!(span.parent() == Some(PARENT) && span.id() != PARENT, "{span:#?}");
    ensure!(span.name() == "evenkeel.test.Greeter/SayHello", "{span:#?}");
    for (name, expected) in [
        ("span.kind", "client"),
        ("rpc.system.name", "grpc"),
        ("rpc.method", "evenkeel.test.Greeter/SayHello"),
        ("rpc.response.status_code", code),
        ("evenkeel.service", "shop/greeter:50051"),
        ("k8s.src.namespace", "shop"),
        ("k8s.src.name", "client"),
        ("k8s.dst.namespace", "shop"),
    ] {
        ensure!(span.attribute(name) == Some(&json!(expected)), "{name}: {span:#?}");
    }
    let server = span.attribute("k8s.dst.name").and_then(serde_json::Value::as_str);
    ensure!(server.is_some_and(|server| server.starts_with("server-")), "{span:#?}");
    // Jaeger's own word for a span whose status is an error.
    let is_error = span.attribute("error").is_some_and(|error| *error == true);
    ensure!(is_error == (code != "OK"), "{span:#?}");
    ensure!(span.0["duration"].as_u64() > Some(0), "{span:#?}");
    Ok(())
}
