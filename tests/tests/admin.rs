//! The admin endpoint: what it shows under traffic is what goes on, and as its own description says; what makes no sense is answered
//! with what there is.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::{Answer, Options};
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, Outcome, Shop, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

/// Three calls that stay under way for as long as a test takes.
const LONG_CALLS: [&str; 6] = ["--hold-milliseconds", "90000", "--in-flight", "3", "--rate", "50"];

fn rows(page: &Value) -> Vec<Value> {
    page.as_array().cloned().unwrap_or_default()
}

/// The page's rows, once they are as said.
fn shown(
    agent: &Agent,
    path: &str,
    list: &str,
    what: &str,
    is_so: impl Fn(&[Value]) -> bool,
) -> Result<Vec<Value>> {
    let mut last = Value::Null;
    let found = eventually_some(what, || {
        last = agent.admin(path)?;
        let rows = rows(if list.is_empty() { &last } else { &last[list] });
        Ok(is_so(&rows).then_some(rows))
    });
    found.with_context(|| format!("{path}: {last}"))
}

#[test]
fn live_calls_and_connections_are_shown_with_where_they_come_from_and_go_to() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let load = shop.client.load(&shop.v4(), &LONG_CALLS)?;
    let calls = shown(&agent, "/streams", "streams", "three calls are with servers", |rows| {
        // Headers may come before their message.
        rows.len() == 3 && rows.iter().all(|row| row["stage"] == "sent" && row["request_messages"] == 1)
    })?;
    let of_client = |row: &Value| row["pod"].as_str().is_some_and(|pod| pod.ends_with("/client"));
    let port = calls[0]["service_port"].as_str().context("a call has a Service port")?.to_owned();
    ensure!(port.contains("/greeter:"), "{port}");
    for call in &calls {
        ensure!(of_client(call) && call["service_port"] == port.as_str(), "{call}");
        ensure!(call["method"].as_str().is_some_and(|method| method.starts_with('/')), "{call}");
        ensure!(call["is_grpc"] == true && call["attempts"] == 1, "{call}");
        ensure!(call["endpoint_pod"].as_str().is_some_and(|pod| pod.contains("/server-")), "{call}");
        ensure!(call["age_ms"].as_f64().is_some_and(|age| age >= 0.0), "{call}");
        ensure!(call["request_bytes"].as_u64() > Some(5) && call["request_messages"] == 1, "{call}");
        ensure!(call["response_bytes"] == 0, "nothing has come back: {call}");
    }
    let connections = rows(&agent.admin("/connections")?["connections"]);
    let clients: Vec<_> = connections.iter().filter(|row| row["side"] == "client").collect();
    ensure!(clients.len() == 1, "{connections:?}");
    ensure!(clients[0]["protocol"] == "http2" && clients[0]["streams"] == 3, "{}", clients[0]);
    ensure!(clients[0]["address"] == shop.v4() && of_client(clients[0]), "{}", clients[0]);
    let servers: Vec<_> = connections.iter().filter(|row| row["side"] == "server").collect();
    let on_servers: u64 = servers.iter().filter_map(|row| row["streams"].as_u64()).sum();
    ensure!(on_servers == 3 && servers.iter().all(|row| row["service_port"] == port.as_str()), "{servers:?}");
    ensure!(connections.iter().all(|row| row["held_bytes"].as_u64() > Some(0)), "{connections:?}");

    let pod = calls[0]["pod"].as_str().context("a call has a pod")?;
    for (query, expected) in [
        (format!("pod={pod}"), 3),
        (format!("service={port}"), 3),
        (format!("pod={pod}&service={}", port.split(':').next().unwrap_or_default()), 3),
        ("pod=default/nobody".into(), 0),
        ("service=default/nothing".into(), 0),
    ] {
        let page = agent.admin(&format!("/streams?{query}"))?;
        ensure!(
            page["total"] == expected && rows(&page["streams"]).len() as u64 == expected,
            "{query}: {page}"
        );
        let page = agent.admin(&format!("/connections?{query}"))?;
        ensure!((page["total"] == 0) == (expected == 0), "{query}: {page}");
    }
    let cut = agent.admin("/streams?limit=1")?;
    ensure!(cut["cut"] == true && cut["total"] == 3 && rows(&cut["streams"]).len() == 1, "{cut}");
    let text = agent.ask("GET", "/streams?limit=1", &[("Accept", "text/plain")], "")?.body;
    ensure!(text.contains("DEADLINE IN (ms)") && text.contains("of 3:"), "{text}");

    // With its client, everything goes.
    drop(load);
    shown(&agent, "/streams", "streams", "no call is under way", <[Value]>::is_empty)?;
    shown(&agent, "/connections", "connections", "no client is connected", |rows| {
        rows.iter().all(|row| row["side"] == "server" && row["streams"] == 0)
    })?;
    Ok(())
}

/// Closes a schema: a field that it does not name is none.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".into(), false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn every_answer_is_as_the_description_says_and_every_path_is_described() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    // One that is not enrolled, and one that cannot be.
    let left_out = shop.cluster.pod("left-out")?;
    shop.cluster.label_pod(&left_out, false);
    let mut ghost = shop.cluster.pods.get("client").context("the client has an object")?.clone();
    ghost.name = "ghost".to_owned();
    ghost.uid = "00000000-0000-4000-8000-000000000001".to_owned();
    ghost.addresses = vec!["10.244.255.1".parse()?];
    shop.cluster.pods.insert(ghost.name.clone(), ghost);
    shop.cluster.publish()?;
    let mut agent = Agent::launch(&shop.cluster, &Options::default())?;
    agent.ready()?;
    shop.client.call(&shop.v4(), 40, &[])?.is_clean()?;
    let _load = shop.client.load(&shop.v4(), &LONG_CALLS)?;
    // And calls that end, for who taps.
    let _short = shop.client.load(&shop.v4(), &["--rate", "50"])?;
    shown(&agent, "/streams", "streams", "calls are under way", |rows| !rows.is_empty())?;

    let description = agent.admin("/openapi.json")?;
    ensure!(description["openapi"] == "3.1.0", "{description}");
    let mut components = description["components"].clone();
    close(&mut components["schemas"]);
    let paths = description["paths"].as_object().context("there are paths")?;
    let listed = rows(&agent.admin("/")?);
    let listed: Vec<_> = listed.iter().filter_map(|row| row["path"].as_str()).collect();
    ensure!(listed.len() == paths.len(), "{listed:?}");
    for path in listed {
        let described = paths.get(path).with_context(|| format!("{path} is not described"))?;
        let asked = match path {
            "/profile/cpu" => "/profile/cpu?seconds=1",
            "/explain" => "/explain?pod=shop/client&to=greeter:50051&header=x-user%3Danna",
            "/tap" => "/tap?limit=3&headers=true",
            path => path,
        };
        let media_type = if path == "/tap" { "application/x-ndjson" } else { "application/json" };
        let answer = agent.ask("GET", asked, &[("Accept", "application/json")], "")?;
        ensure!(answer.status == 200 && answer.header("content-type") == Some(media_type), "{answer:?}");
        // Of an answer that goes on, each line is one.
        let values = match path {
            "/tap" => answer
                .body
                .lines()
                .filter(|line| !line.is_empty())
                .map(serde_json::from_str)
                .collect::<Result<Vec<Value>, _>>()?,
            _ => vec![serde_json::from_str(&answer.body)?],
        };
        ensure!(values.len() == if path == "/tap" { 3 } else { 1 }, "{path}: {}", answer.body);
        let mut schema = described["get"]["responses"]["200"]["content"][media_type]["schema"].clone();
        ensure!(schema.is_object(), "{path}: {described}");
        close(&mut schema);
        schema["components"] = components.clone();
        let validator = jsonschema::validator_for(&schema).with_context(|| format!("{path}: {schema}"))?;
        for value in values {
            let errors: Vec<_> = validator
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            ensure!(errors.is_empty(), "{path}: {errors:#?} in {value}");
        }
        let text = agent.ask("GET", asked, &[("Accept", "text/plain")], "")?;
        let is_text = text.header("content-type") == Some("text/plain; charset=utf-8");
        ensure!(text.status == 200 && is_text && !text.body.is_empty(), "{path}: {text:?}");
        let refused = agent.ask("DELETE", path, &[], "")?;
        ensure!(refused.status == 405 && refused.header("allow").is_some(), "{path}: {refused:?}");
    }
    // The test can fail: a field that nobody has described is found.
    let mut schema = json!({ "$ref": "#/components/schemas/LogView" });
    schema["components"] = components;
    let mut log = agent.admin("/log")?;
    ensure!(jsonschema::is_valid(&schema, &log), "{log}");
    log["undescribed"] = 1.into();
    ensure!(!jsonschema::is_valid(&schema, &log), "{log}");
    Ok(())
}

#[test]
fn the_pages_show_what_the_calls_came_to() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    shop.client.call(&shop.v4(), 60, &[])?.is_clean()?;
    let endpoints = rows(&agent.admin("/endpoints")?);
    let number = |row: &Value, field: &str| row[field].as_f64().unwrap_or(0.0);
    let of_greeter: Vec<_> = endpoints.iter().filter(|row| row["pod"].is_string()).collect();
    ensure!(of_greeter.iter().map(|row| number(row, "calls")).sum::<f64>() == 60.0, "{endpoints:?}");
    let shares: f64 = of_greeter.iter().map(|row| number(row, "share_percent")).sum();
    ensure!((99.0..=101.0).contains(&shares), "{endpoints:?}");
    ensure!(of_greeter.iter().all(|row| row["weight"] == 100), "{endpoints:?}");

    let snapshot = agent.admin("/snapshot")?;
    let addresses = rows(&snapshot["destinations"]);
    ensure!(addresses.iter().any(|row| row["address"] == shop.v4() && row["endpoints"] == 2), "{snapshot}");
    shown(&agent, "/snapshot", "workers", "both workers go by the newest state", |workers| {
        agent.admin("/snapshot").is_ok_and(|now| {
            workers.len() == 2 && workers.iter().all(|worker| worker["version"] == now["version"])
        })
    })?;

    let kernel = agent.admin("/kernel")?;
    let programs = rows(&kernel["programs"]);
    ensure!(programs.len() == 9 && programs.iter().all(|program| program["attached"] == true), "{kernel}");
    ensure!(kernel["connections"]["taken"].as_u64() > Some(0), "{kernel}");
    let map = |name: &str| rows(&kernel["maps"]).into_iter().find(|map| map["name"] == name);
    let pods = map("PODS").context("there is a map of pods")?;
    ensure!(pods["entries"] == 3 && pods["capacity"] == 1024, "the client and two servers: {kernel}");
    let destinations = map("DESTINATIONS").context("there is a map of destinations")?;
    ensure!(destinations["entries"].as_u64() == kernel["ids"]["live"].as_u64(), "{kernel}");

    let workers = agent.admin("/workers")?;
    ensure!(workers["calls"] == 60 && rows(&workers["workers"]).len() == 2, "{workers}");
    let only = rows(&agent.admin("/pods?enrolled=true&name=client")?);
    ensure!(only.len() == 1 && only[0]["name"] == "client", "{only:?}");
    ensure!(rows(&agent.admin("/pods?enrolled=false")?).is_empty());
    ensure!(rows(&agent.admin("/services?name=greeter")?).len() == 1);
    ensure!(rows(&agent.admin("/services?name=nothing")?).is_empty());
    ensure!(rows(&agent.admin("/endpoints?service=nowhere/nothing")?).is_empty());

    let cpu = agent.admin("/profile/cpu?seconds=1")?;
    let threads = rows(&cpu["threads"]);
    ensure!(threads.iter().filter(|thread| is_worker(thread)).count() == 2, "{cpu}");
    let heap = agent.admin("/profile/heap")?;
    ensure!(
        heap["resident_bytes"].as_u64() > Some(1 << 20) && heap["committed_bytes"].as_u64() > Some(0),
        "{heap}"
    );
    Ok(())
}

fn is_worker(thread: &Value) -> bool {
    thread["name"].as_str().is_some_and(|name| name.starts_with("worker-"))
}

#[test]
fn a_request_that_makes_no_sense_is_told_what_there_is() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let agent = Agent::start(&shop.cluster)?;
    let long = "x".repeat(5_000);
    type Refused<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let expected: [Refused<'_>; 15] = [
        ("GET", "/pod", &[], "", 404, "did you mean /pods?"),
        ("GET", "/%2e%2e/etc/passwd", &[], "", 404, "there is: / /pods"),
        ("POST", "/pods", &[], "", 405, "takes GET, HEAD"),
        ("BREW", "/pods", &[], "", 405, "takes GET, HEAD"),
        ("GET", "/pods?namspace=default", &[], "", 400, "did you mean namespace?"),
        ("GET", "/endpoints?service=greeter", &[], "", 400, "expected NAMESPACE/NAME"),
        ("GET", "/streams?limit=many", &[], "", 400, "from 1 to 10000"),
        ("GET", "/profile/cpu?seconds=0", &[], "", 400, "from 1 to 60"),
        ("GET", "/tap?status=wrong", &[], "", 400, "a gRPC status by name or number"),
        ("GET", "/tap?limit=none", &[], "", 400, "from 1 to 1000000"),
        ("GET", "/pods", &[("Accept", "image/png")], "", 406, "application/json"),
        ("GET", "/pods", &[("Host", "evil.example")], "", 403, "evil.example"),
        ("PUT", "/log", &[("Origin", "https://evil.example")], "off", 403, "another origin"),
        ("PUT", "/log", &[], "inof", 400, "did you mean info?"),
        ("PUT", "/log", &[], &long, 413, "4096 bytes"),
    ];
    for (method, path, headers, body, status, said) in expected {
        let Answer { status: got, body, .. } = agent.ask(method, path, headers, body)?;
        ensure!(got == status && body.contains(said), "{method} {path} {headers:?}: {got} {body}");
        ensure!(body.lines().count() == 1, "one line: {body}");
    }
    ensure!(agent.admin("/log")?["filter"] == "info", "nothing has changed");
    let head = agent.ask("HEAD", "/pods", &[], "")?;
    ensure!(head.status == 200 && head.body.is_empty(), "{head:?}");
    Ok(())
}

#[test]
fn what_is_logged_can_be_changed_while_it_runs() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(1)?;
    let options = Options { arguments: vec!["--log".into(), "error".into()], ..Options::default() };
    let agent = Agent::start_with(&shop.cluster, &options)?;
    let is_told = |pod: &str| {
        agent
            .process
            .stderr()
            .iter()
            .any(|line| line.contains("enrolled") && line.contains(&format!("/{pod} ")))
    };
    let enrolled = |pod: &str| {
        let what = format!("{pod} is enrolled");
        shown(&agent, &format!("/pods?name={pod}"), "", &what, |rows| {
            rows.iter().any(|row| row["enrolled"] == true)
        })
    };
    let _quiet = shop.cluster.pod("quiet")?;
    shop.cluster.publish()?;
    enrolled("quiet")?;
    let answer = agent.ask("PUT", "/log", &[], "info\n")?;
    ensure!(answer.status == 200, "{answer:?}");
    let log = agent.admin("/log")?;
    ensure!(log["filter"] == "info" && log["start_filter"] == "error", "{log}");
    let _loud = shop.cluster.pod("loud")?;
    shop.cluster.publish()?;
    enrolled("loud")?;
    eventually("the log has the second pod", || is_told("loud"))?;
    ensure!(!is_told("quiet"), "{:?}", agent.process.stderr());
    Ok(())
}

#[test]
fn a_unix_socket_is_the_agents_own_and_outlives_its_worker() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("admin.sock");
    let options = Options { admin_socket: Some(socket.clone()), ..Options::default() };
    let mut agent = Agent::start_with(&shop.cluster, &options)?;
    ensure!(rows(&agent.admin("/pods")?).len() == 2);
    ensure!(std::fs::metadata(&socket)?.permissions().mode() & 0o777 == 0o600);
    // What a killed worker leaves is replaced by the next one.
    agent.kill_worker_process()?;
    ensure!(rows(&agent.admin("/pods")?).len() == 2);
    agent.stop()?;
    ensure!(!socket.exists(), "what is stopped in order leaves nothing");
    Ok(())
}

#[test]
fn clients_that_say_nothing_take_no_descriptors_and_keep_nobody_out() -> Outcome {
    /// Each endpoint's bound is far below, and this process's own limit above.
    const CLIENTS: usize = 250;
    const MOST: usize = 3 * 64;
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let agent = Agent::start(&shop.cluster)?;
    let before = agent.descriptors()?;
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        silent.push(agent.silent_connections()?);
        ensure!(agent.is_ready(), "after {} clients", silent.len());
    }
    ensure!(agent.metrics()?.ends_with("# EOF\n"));
    ensure!(rows(&agent.admin("/pods")?).len() == 2);
    let now = agent.descriptors()?;
    ensure!(now <= before + MOST + 10, "{before} descriptors before, {now} now");
    shop.client.call(&shop.v4(), 10, &[])?.is_clean()?;
    drop(silent);
    Ok(())
}
