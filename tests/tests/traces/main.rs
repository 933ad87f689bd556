//! Traces through the kernel, with a collector that is not ours: each sampled call has one span, its server sees it as its parent, and calls
//! never pay for a collector that does not do its part ([`collectors`]).

mod collectors;

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::cluster::NODE_NAME;
use evenkeel_tests::collector::{Collector, ReceivedSpan};
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Cluster, Outcome, Pod, Server, Service, Tally, eventually};
use std::collections::{BTreeMap, BTreeSet};

const CALLS: u64 = 40;
/// The upper half of each call's trace id, and its client's span.
const TRACE: &str = "4bf92f3577b34da6";
const PARENT: &str = "00f067aa0ba902b7";
/// NOT_FOUND.
const NOT_FOUND: u8 = 5;

/// Servers that say which context their calls had, a client, and a pod for a collector.
struct Stage {
    servers: Vec<Server>,
    /// The servers'.
    pods: Vec<Pod>,
    client: Pod,
    observatory: Pod,
    greeter: Service,
    cluster: Cluster,
}

impl Stage {
    fn new(servers: usize) -> Result<Self> {
        // What it needs is there before anything waits for it.
        Collector::command("", &[])?;
        let mut cluster = Cluster::new()?;
        let client = cluster.pod("client")?;
        let observatory = cluster.pod("observatory")?;
        let pods = (1..=servers)
            .map(|number| cluster.pod(&format!("server-{number}")))
            .collect::<Result<Vec<_>>>()?;
        let tells = [
            "--tell-fields",
            "traceparent",
            "--tell-fields",
            "tracestate",
            "--tell-fields",
            "b3",
            "--tell-fields",
            "x-",
        ];
        let port = evenkeel_tests::cluster::GREETER_TARGET_PORT;
        let servers = pods.iter().map(|pod| pod.serve_with(port, &tells)).collect::<Result<Vec<_>>>()?;
        let greeter = cluster.service("greeter", &pods.iter().collect::<Vec<_>>())?;
        cluster.enrol_namespace(true);
        cluster.publish()?;
        Ok(Self { servers, pods, client, observatory, greeter, cluster })
    }

    /// Where its one server is.
    fn server_at(&self) -> Result<String> {
        let pod = self.pods.first().context("there is a server")?;
        Ok(pod.v4(evenkeel_tests::cluster::GREETER_TARGET_PORT))
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.observatory.v4(evenkeel_tests::collector::PORT))
    }

    fn agent(&self, more: &[&str]) -> Result<Agent> {
        let endpoint = self.endpoint();
        self.agent_with(&[&["--otlp-endpoint", &endpoint], more].concat())
    }

    fn agent_with(&self, arguments: &[&str]) -> Result<Agent> {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Agent::start_with(&self.cluster, &Options { arguments, ..Options::default() })
    }

    fn call(&self, calls: u64, fields: &[&str], more: &[&str]) -> Result<Tally> {
        let fields: Vec<&str> = fields.iter().flat_map(|field| ["--header", field]).collect();
        self.client.call(&self.greeter.v4(), calls, &[&fields, more].concat())
    }

    /// The fields of each call that has come to a server, once the servers have told of so many.
    fn seen(&self, calls: u64) -> Result<Vec<Vec<(String, String)>>> {
        let told = || -> Vec<String> {
            let lines = self.servers.iter().flat_map(|server| server.process.stdout());
            lines.filter_map(|line| line.strip_prefix("fields ").map(str::to_owned)).collect()
        };
        eventually("the servers tell of all calls", || told().len() as u64 >= calls)?;
        told().iter().map(|json| serde_json::from_str(json).with_context(|| json.clone())).collect()
    }
}

/// Waits until the collector has so many spans; no more come.
fn spans(collector: &Collector, count: u64) -> Result<Vec<ReceivedSpan>> {
    eventually(&format!("{count} spans"), || {
        collector.spans().is_ok_and(|spans| spans.len() as u64 >= count)
    })?;
    let spans = collector.spans()?;
    ensure!(spans.len() as u64 == count, "{} spans, not {count}: {spans:#?}", spans.len());
    let ids: BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    ensure!(ids.len() as u64 == count, "spans have come twice: {spans:#?}");
    Ok(spans)
}

/// A sample of the agent's metrics.
fn metric(agent: &Agent, sample: &str) -> Result<u64> {
    let text = agent.metrics()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(sample))
        .with_context(|| format!("{sample}: {text}"))?;
    Ok(line.trim().parse()?)
}

fn outcome(agent: &Agent, name: &str) -> Result<u64> {
    metric(agent, &format!("evenkeel_trace_spans_total{{outcome=\"{name}\"}}"))
}

#[test]
fn each_sampled_call_has_one_span_and_its_server_sees_it_as_its_parent() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(2)?;
    let collector = stage.observatory.collect(&[])?;
    let mut agent = stage.agent(&["--node-name", NODE_NAME, "--pod-uid", "uid-of-the-agent"])?;
    let contexts: [&[&str]; 3] = [
        &[&format!("traceparent=00-{TRACE}{{call}}-{PARENT}-01"), "tracestate=vendor=1"],
        &[&format!("b3={TRACE}{{call}}-{PARENT}-1")],
        &[&format!("x-b3-traceid={TRACE}{{call}}"), &format!("x-b3-spanid={PARENT}"), "x-b3-sampled=1"],
    ];
    stage.call(1, &[], &[])?.is_clean()?;
    for context in contexts {
        stage.call(CALLS, context, &[])?.is_clean()?;
    }
    let failed = stage.call(CALLS, contexts[0], &["--fail-with", &NOT_FOUND.to_string()])?;
    ensure!(failed.failed() == CALLS, "{failed:?}");

    let received = spans(&collector, 4 * CALLS)?;
    let by_id: BTreeMap<&str, &ReceivedSpan> = received.iter().map(|span| (&*span.span_id, span)).collect();
    let mut parents = Vec::new();
    for fields in stage.seen(4 * CALLS + 1)? {
        let of = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let (trace_id, parent) = match (of("traceparent"), of("b3"), of("x-b3-spanid")) {
            (Some(traceparent), ..) => {
                let parts: Vec<_> = traceparent.split('-').collect();
                ensure!(parts.len() == 4 && parts[0] == "00" && parts[3] == "01", "{traceparent}");
                ensure!(of("tracestate") == Some("vendor=1"), "{fields:?}");
                (parts[1].to_owned(), parts[2].to_owned())
            }
            (_, Some(b3), _) => {
                let parts: Vec<_> = b3.split('-').collect();
                ensure!(parts.len() == 4 && parts[2] == "1" && parts[3] == PARENT, "{b3}");
                (parts[0].to_owned(), parts[1].to_owned())
            }
            (_, _, Some(span)) => {
                ensure!(
                    of("x-b3-parentspanid") == Some(PARENT) && of("x-b3-sampled") == Some("1"),
                    "{fields:?}"
                );
                (of("x-b3-traceid").unwrap_or_default().to_owned(), span.to_owned())
            }
            _ => {
                ensure!(fields.is_empty(), "a context out of nothing: {fields:?}");
                continue;
            }
        };
        let span = by_id.get(&*parent).with_context(|| format!("no span is {fields:?}'s parent"))?;
        ensure!(span.trace_id == trace_id && span.parent_span_id == PARENT, "{fields:?} {span:#?}");
        parents.push(parent);
    }
    let different: BTreeSet<_> = parents.iter().collect();
    ensure!(parents.len() == received.len() && different.len() == parents.len(), "{} parents", parents.len());
    for span in &received {
        check_span(span).with_context(|| format!("{span:#?}"))?;
    }
    let failed = received.iter().filter(|span| span.attributes["rpc.response.status_code"] == "NOT_FOUND");
    ensure!(failed.count() as u64 == CALLS);
    let exports = collector.exports()?;
    ensure!(exports.iter().all(|export| export.unknown == 0), "fields that nobody knows: {exports:?}");
    eventually("all are counted", || outcome(&agent, "sent").is_ok_and(|sent| sent == 4 * CALLS))?;
    for other in ["dropped", "failed", "rejected"] {
        ensure!(outcome(&agent, other)? == 0, "{other}");
    }
    agent.stop()
}

fn check_span(span: &ReceivedSpan) -> Outcome {
    let attribute = |name: &str| span.attributes.get(name).cloned().unwrap_or_default();
    let is_ok = attribute("rpc.response.status_code") == "OK";
    ensure!(span.name == "evenkeel.test.Greeter/SayHello" && span.kind == "SPAN_KIND_CLIENT");
    ensure!((span.status == "STATUS_CODE_UNSET") == is_ok && (span.status == "STATUS_CODE_ERROR") != is_ok);
    ensure!(is_ok && !span.attributes.contains_key("error.type") || attribute("error.type") == "NOT_FOUND");
    for (name, expected) in [
        ("rpc.system.name", "grpc"),
        ("rpc.method", "evenkeel.test.Greeter/SayHello"),
        ("server.address", "greeter.shop.svc"),
        ("k8s.src.namespace", "shop"),
        ("k8s.src.name", "client"),
        ("k8s.dst.namespace", "shop"),
    ] {
        ensure!(attribute(name) == expected, "{name}: {}", attribute(name));
    }
    ensure!(attribute("k8s.dst.name").as_str().is_some_and(|pod| pod.starts_with("server-")));
    ensure!(attribute("server.port") == 50051 && attribute("evenkeel.attempts") == 1);
    ensure!(attribute("network.peer.address").is_string() && attribute("network.peer.port").is_u64());
    ensure!(attribute("evenkeel.request_messages") == 1, "{}", attribute("evenkeel.request_messages"));
    ensure!(span.start < span.end && span.flags == 0x301 && span.scope == "evenkeel");
    // Of this very time: both clocks of the agent stand as ours.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    ensure!(span.end <= now && now - span.start < 600_000_000_000, "{} {now}", span.start);
    for (name, expected) in
        [("service.name", "evenkeel"), ("k8s.node.name", NODE_NAME), ("k8s.pod.uid", "uid-of-the-agent")]
    {
        ensure!(span.resource.get(name).is_some_and(|value| value == expected), "{name}");
    }
    ensure!(
        span.resource.contains_key("service.version") && span.resource.contains_key("service.instance.id")
    );
    Ok(())
}

#[test]
fn what_is_not_sampled_goes_on_as_it_came_and_nothing_starts_unasked() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    let collector = stage.observatory.collect(&[])?;
    let agent = stage.agent(&["--trace-sample", "0.5"])?;
    let unsampled = [
        vec![format!("traceparent=00-{TRACE}{{call}}-{PARENT}-00"), "tracestate=a=1".to_owned()],
        vec![format!("traceparent=00-{TRACE}{{call}}-{PARENT}-01x")],
        vec![format!("b3={TRACE}{{call}}-{PARENT}-0")],
        vec!["b3=0".to_owned()],
        // Its trace id is among the lower half of all.
        vec![format!("traceparent=00-{TRACE}{{call}}-{PARENT}-01")],
        vec![],
    ];
    let mut expected = Vec::new();
    for fields in &unsampled {
        let given: Vec<&str> = fields.iter().map(String::as_str).collect();
        stage.call(CALLS, &given, &[])?.is_clean()?;
        for call in 0..CALLS {
            let field = |field: &String| {
                let (name, value) = field.split_once('=')?;
                Some((name.to_owned(), value.replace("{call}", &format!("{call:016x}"))))
            };
            expected.push(fields.iter().filter_map(field).collect::<Vec<_>>());
        }
    }
    // One that is sampled, and of the upper half: behind it no earlier span can come.
    stage.call(1, &[&format!("traceparent=00-{TRACE}00ffffffffffffff-{PARENT}-01")], &[])?.is_clean()?;
    spans(&collector, 1)?;
    let mut seen = stage.seen(6 * CALLS + 1)?;
    seen.pop();
    let sorted = |mut all: Vec<Vec<(String, String)>>| {
        all.sort();
        all
    };
    ensure!(sorted(seen) == sorted(expected), "servers see something else than clients have sent");
    eventually("it is counted", || outcome(&agent, "sent").is_ok_and(|sent| sent == 1))
}

#[test]
fn where_it_is_asked_for_each_call_without_a_context_starts_a_trace() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    let collector = stage.observatory.collect(&[])?;
    let _agent = stage.agent(&["--trace-start", "1"])?;
    stage.call(CALLS, &[], &[])?.is_clean()?;
    stage.call(CALLS, &["b3=0"], &[])?.is_clean()?;
    let received = spans(&collector, CALLS)?;
    ensure!(
        received.iter().all(|span| span.parent_span_id.is_empty() && span.flags == 0x101),
        "{received:#?}"
    );
    let traces: BTreeSet<_> = received.iter().map(|span| &span.trace_id).collect();
    ensure!(traces.len() as u64 == CALLS, "each is a trace of its own");
    let ids: BTreeSet<String> =
        received.iter().map(|span| format!("00-{}-{}-01", span.trace_id, span.span_id)).collect();
    let seen: BTreeSet<String> = stage
        .seen(2 * CALLS)?
        .into_iter()
        .flatten()
        .filter(|(name, _)| name == "traceparent")
        .map(|(_, value)| value)
        .collect();
    ensure!(ids == seen, "servers see other contexts than the spans have");
    Ok(())
}

/// Whatever the ratio is: the caller has decided.
#[test]
fn where_traces_may_start_one_that_b3_asks_for_starts_and_goes_on_in_b3() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    let collector = stage.observatory.collect(&[])?;
    let agent = stage.agent(&["--trace-start", "0.000000001"])?;
    for fields in [&["b3=1"][..], &["b3=d"], &["x-b3-sampled=1"], &["b3=0"], &[]] {
        stage.call(CALLS, fields, &[])?.is_clean()?;
    }
    let received = spans(&collector, 3 * CALLS)?;
    ensure!(received.iter().all(|span| span.parent_span_id.is_empty()), "{received:#?}");
    let ids: BTreeSet<String> =
        received.iter().map(|span| format!("{}-{}", span.trace_id, span.span_id)).collect();
    let mut seen = BTreeSet::new();
    for fields in stage.seen(5 * CALLS)? {
        let of = |name: &str| {
            fields.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
        };
        ensure!(of("traceparent").is_empty(), "the caller speaks B3: {fields:?}");
        let (b3, trace, span) = (of("b3"), of("x-b3-traceid"), of("x-b3-spanid"));
        match b3.rsplit_once('-') {
            Some((id, "1" | "d")) => drop(seen.insert(id.to_owned())),
            Some(_) => anyhow::bail!("{fields:?}"),
            None if !trace.is_empty() => drop(seen.insert(format!("{trace}-{span}"))),
            None => ensure!(matches!(b3, "" | "0") && of("x-b3-sampled").is_empty(), "{fields:?}"),
        }
    }
    ensure!(ids == seen, "servers see other contexts than the spans have: {ids:?} {seen:?}");
    eventually("all are counted", || outcome(&agent, "sent").is_ok_and(|sent| sent == 3 * CALLS))
}

#[test]
fn the_proxy_traces_calls_too() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    const LISTEN: u16 = 9_000;
    let mut stage = Stage::new(1)?;
    let collector = stage.observatory.collect(&[])?;
    let host = stage.cluster.pod("host")?;
    let (listen, to) = (host.v4(LISTEN), stage.server_at()?);
    let mut command = std::process::Command::new(evenkeel_tests::host::evenkeel_binary()?);
    command.args(["proxy", "--listen", &listen, "--to", &to, "--otlp-endpoint", &stage.endpoint()]);
    let mut proxy = host.spawn("proxy", command)?;
    eventually("the proxy listens", || {
        host.listening_on().is_ok_and(|listening| listening.iter().any(|address| address.port() == LISTEN))
    })?;
    let field = format!("traceparent=00-{TRACE}{{call}}-{PARENT}-01");
    stage.client.call(&listen, CALLS, &["--header", &field])?.is_clean()?;
    // What waits at the end is sent at the end.
    ensure!(proxy.stop()?.success());
    let (address, port) = to.rsplit_once(':').context("an address")?;
    for span in spans(&collector, CALLS)? {
        let attribute = |name: &str| span.attributes.get(name).cloned().unwrap_or_default();
        ensure!(span.parent_span_id == PARENT && attribute("server.address") == address, "{span:#?}");
        ensure!(attribute("server.port").as_u64() == port.parse().ok(), "{span:#?}");
        ensure!(attribute("evenkeel.service").is_null(), "{span:#?}");
    }
    Ok(())
}

#[test]
fn without_a_collector_contexts_are_not_touched() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let stage = Stage::new(1)?;
    let _agent = stage.agent_with(&[])?;
    let field = format!("traceparent=00-{TRACE}0000000000000001-{PARENT}-01");
    stage.call(CALLS, &[&field], &[])?.is_clean()?;
    let (name, value) = field.split_once('=').context("it is a pair")?;
    let seen = stage.seen(CALLS)?;
    ensure!(
        seen.len() as u64 == CALLS
            && seen.iter().all(|fields| *fields == [(name.to_owned(), value.to_owned())]),
        "{seen:?}"
    );
    Ok(())
}
