//! The command line beside an agent, with real pods and calls: what it prints is what the test knows. [`terminal`]: what it does on one.

mod terminal;

use anyhow::{Context, Result, ensure};
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::evenkeel_cli::{command, line, run};
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, Cluster, Outcome, Shop, Tally};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;

const CALLS: u64 = 60;

/// A row's number.
fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or(0)
}

#[test]
fn what_is_shown_is_what_was_called() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let agent = Agent::start(&shop.cluster)?;
    let tally = shop.client.call(&shop.v4(), CALLS, &["--rate", "500"])?;
    tally.is_clean()?;
    let evenkeel = |arguments: &[&str]| run(&shop.cluster.node, arguments);

    let status = evenkeel(&["status", "-o", "json"])?.json()?;
    let status = &status[0];
    ensure!(status["ready"] == true && status["calls"]["begun"] == CALLS, "{status}");
    ensure!(status["pods"]["enrolled"] == 4 && status["pods"]["waiting"] == 0, "{status}");
    let table = evenkeel(&["status"])?.clean()?;
    ensure!(table.starts_with("NODE ") && table.contains(env!("CARGO_PKG_VERSION")), "{table}");

    let pods = evenkeel(&["pods"])?.clean()?;
    let client = line(&pods, &["shop", "client"]).with_context(|| pods.clone())?;
    ensure!(client[2] == "yes" && client[5] == "1", "one connection was taken: {client:?}");
    ensure!(evenkeel(&["pods", "-n", "elsewhere"])?.stderr.starts_with("No pods in the namespace elsewhere"));
    let of_one = evenkeel(&["pods", "--pod", "shop/server-2", "--no-headers"])?.clean()?;
    ensure!(of_one.lines().count() == 1 && of_one.starts_with("shop   server-2"), "{of_one}");

    let services = evenkeel(&["services"])?.clean()?;
    let greeter = line(&services, &["shop", "greeter"]).with_context(|| services.clone())?;
    ensure!(greeter[2].starts_with("50051") && greeter[3..5] == ["yes", "round-robin"], "{greeter:?}");

    let rows = evenkeel(&["endpoints", "greeter:50051", "-o", "json"])?.json()?;
    let rows = rows.as_array().context("a list")?;
    for (server, calls) in &tally.calls {
        let of_server = rows.iter().filter(|row| row["pod"] == format!("shop/{server}"));
        let shown: u64 = of_server.map(|row| number(row, "calls")).sum();
        ensure!(shown == *calls, "{server} got {calls}, and {shown} are shown: {rows:?}");
    }
    let endpoints = evenkeel(&["endpoints", "-o", "wide"])?.clean()?;
    ensure!(endpoints.contains("server-1") && endpoints.contains("LATENCY"), "{endpoints}");

    let yaml = evenkeel(&["endpoints", "-o", "yaml"])?.clean()?;
    ensure!(yaml.contains("service_port: shop/greeter:50051"), "{yaml}");
    drop(agent);
    let gone = evenkeel(&["status", "--address", "127.0.0.1:15800"])?;
    ensure!(!gone.success && gone.stdout.is_empty() && gone.stderr.lines().count() == 1, "{gone:?}");
    Ok(())
}

#[test]
fn an_explanation_says_what_then_happens() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    if let Some(service) = shop.cluster.services.get_mut("greeter") {
        service.annotations.insert("evenkeel.dev/picker".into(), "ring-hash".into());
    }
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    let node = Arc::clone(&shop.cluster.node);
    let explain = |to: &str, more: &[&str]| {
        run(&node, &[&["explain", "--pod", "shop/client", "--to", to][..], more].concat())
    };
    // By the calling pod's hash: all calls to one, and it is said beforehand which.
    let said =
        explain("greeter:50051", &["--method", "/evenkeel.test.Greeter/Hello", "-o", "json"])?.json()?;
    ensure!(said["outcome"] == "balanced" && said["address"] == shop.v4(), "{said}");
    let endpoint = said["endpoint"].as_str().with_context(|| said.to_string())?.to_owned();
    let tally = shop.client.call(&shop.v4(), 20, &[])?;
    tally.is_clean()?;
    let called: Vec<&String> = tally.calls.keys().collect();
    let chosen = shop.servers.iter().find(|server| endpoint.starts_with(&format!("{}:", server.ipv4)));
    let chosen = chosen.with_context(|| endpoint.clone())?;
    ensure!(called == [&chosen.name], "{endpoint} was said, and {called:?} called");

    let text = explain("greeter.shop.svc.cluster.local:50051", &[])?.clean()?;
    ensure!(text.contains(&format!("this call goes to {endpoint}")), "{text}");
    let by_address = explain(&shop.v6(), &[])?.clean()?;
    ensure!(by_address.contains("The connection is taken"), "{by_address}");
    for (to, said) in [
        ("greeter:1", "shop/greeter has no TCP port 1"),
        ("example.com:443", "example.com is no Service's name"),
        ("nobody:1", "nobody has no address"),
    ] {
        let text = explain(to, &[])?.clean()?;
        ensure!(text.contains(said), "{to}: {text}");
    }
    shop.cluster.enrol_namespace(false);
    shop.cluster.publish()?;
    evenkeel_tests::eventually("the pod is enrolled no more, and that is said", || {
        let told = explain("greeter:50051", &[]);
        told.is_ok_and(|told| told.stdout.contains("The connection goes straight: the pod is not enrolled"))
    })?;
    let wrong = explain("greeter", &[])?;
    ensure!(!wrong.success && wrong.stderr.contains("--to=\"greeter\": expected host:port"), "{wrong:?}");
    Ok(())
}

#[test]
fn top_sees_calls_while_they_are_made() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &["--rate", "200"])?;
    load.until("calls are made", &Tally::default(), |tally| tally.completed() > 20)?;
    // Of one second, in which a busy machine may have made no call.
    let shown = |arguments: &[&str], is_so: &dyn Fn(&str) -> Result<bool>| {
        let mut last = String::new();
        let shown = eventually_some("top shows what is called", || {
            last =
                run(&shop.cluster.node, &[&["top", "--interval", "1"][..], arguments].concat())?.clean()?;
            Ok(is_so(&last)?.then(|| last.clone()))
        });
        shown.with_context(|| format!("{arguments:?}: {last}"))
    };
    for (by, name) in [("pod", "client"), ("method", "evenkeel.test.Greeter/SayHello")] {
        shown(&["--once", "--by", by], &|text| {
            let its = text.lines().find(|line| line.split_whitespace().any(|word| word == name));
            let rate = its.and_then(|line| line.split_whitespace().find_map(|word| word.parse::<f64>().ok()));
            Ok(rate.is_some_and(|rate| rate > 1.0))
        })?;
    }
    shown(&["--once", "--by", "endpoint"], &|text| {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("shop ")).collect();
        let rates = lines.iter().filter_map(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
        Ok(lines.len() >= 2 && rates.sum::<f64>() > 1.0)
    })?;

    // For programs: the same in numbers.
    let by_endpoint = shown(&["-o", "json", "--by", "endpoint", "-n", "shop"], &|text| {
        let rows: Vec<Value> = serde_json::from_str(text)?;
        let is_called = |row: &Value| row["calls"].as_f64() >= Some(1.0) && row["latency_ms"].is_number();
        Ok(rows.len() == 2 && rows.iter().all(is_called))
    })?;
    let by_pod = shown(&["-o", "yaml", "--by", "pod"], &|text| Ok(text.contains("pod: client")))?;
    ensure!(by_pod.contains("calls_per_second: "), "{by_pod}");
    load.stop()?.is_clean()?;
    let rows: Vec<Value> = serde_json::from_str(&by_endpoint)?;
    ensure!(rows.iter().all(|row| row["service"] == "shop/greeter:50051"), "{by_endpoint}");
    let sum = |field: &str| rows.iter().filter_map(|row| row[field].as_f64()).sum::<f64>();
    ensure!(sum("calls_per_second") > 1.0 && sum("failures") == 0.0, "{by_endpoint}");
    ensure!((sum("share") - 1.0).abs() < 1e-6, "{by_endpoint}");
    let endpoints: Vec<_> = rows.iter().filter_map(|row| row["endpoint"].as_str()).collect();
    ensure!(
        shop.servers.iter().all(|pod| endpoints.contains(&&*pod.v4(GREETER_TARGET_PORT))),
        "{endpoints:?}"
    );
    Ok(())
}

#[test]
fn what_a_node_lacks_is_told_to_programs_as_to_people() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    for more in [&[][..], &["--cgroup", "/nowhere"]] {
        let check = |format: &[&str]| run(&cluster.node, &[&["check"][..], more, format].concat());
        let (text, json, yaml) = (check(&[])?, check(&["-o", "json"])?, check(&["-o", "yaml"])?);
        ensure!(text.success == json.success && text.success == yaml.success, "{text:?} {json:?} {yaml:?}");
        let points: Value = serde_json::from_str(&json.stdout).with_context(|| json.stdout.clone())?;
        let points = points.as_array().context("a list")?;
        let lines: Vec<&str> = text.stdout.lines().take_while(|line| !line.is_empty()).collect();
        let told: Vec<&str> = lines.iter().copied().filter(|line| !line.starts_with(' ')).collect();
        ensure!(told.len() == points.len() && !points.is_empty(), "{points:?}: {}", text.stdout);
        for (line, point) in told.iter().zip(points) {
            let verdict = point["verdict"].as_str().context("a verdict")?;
            ensure!(line.to_lowercase().starts_with(verdict), "{line}: {point}");
            ensure!(point["name"].as_str().is_some_and(|name| line.contains(name)), "{line}: {point}");
        }
        let remedies = points.iter().filter(|point| point["remedy"].is_string()).count();
        ensure!(lines.len() - told.len() == remedies, "{points:?}: {}", text.stdout);
        let lacks = points.iter().any(|point| point["verdict"] == "lacks");
        ensure!(lacks != json.success && lacks != more.is_empty(), "{points:?}");
        ensure!(yaml.stdout.matches("verdict: ").count() == points.len(), "{}", yaml.stdout);
    }
    Ok(())
}

#[test]
fn the_log_is_changed_while_the_agent_runs() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let _agent = Agent::start(&shop.cluster)?;
    let log = |arguments: &[&str]| run(&shop.cluster.node, &[&["log"][..], arguments].concat());
    let before = log(&["-o", "json"])?.json()?;
    let changed = log(&["info,evenkeel::proxy=debug", "-o", "json"])?.json()?;
    ensure!(changed[0]["start_filter"] == before[0]["filter"], "{before} {changed}");
    let now = log(&["-o", "json"])?.json()?;
    let filter = now[0]["filter"].as_str().unwrap_or_default();
    ensure!(filter.contains("evenkeel::proxy=debug"), "{now}");
    let wrong = log(&["loud"])?;
    ensure!(!wrong.success && wrong.stderr.lines().count() == 1, "{wrong:?}");
    Ok(())
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let _agent = Agent::start(&shop.cluster)?;
    for arguments in [&["pods"][..], &["status", "-o", "yaml"], &["completions", "bash"], &["check"]] {
        let mut child =
            command(&shop.cluster.node, arguments)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        drop(child.stdout.take());
        let mut complaint = String::new();
        child.stderr.take().context("its standard error")?.read_to_string(&mut complaint)?;
        let status = child.wait()?;
        ensure!(status.success() && complaint.is_empty(), "{arguments:?}: {status} {complaint}");
    }
    // Nobody hears the complaint: the exit status says it all the same.
    let mut child = command(&shop.cluster.node, &["status", "--address", "127.0.0.1:1"])?
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    drop(child.stderr.take());
    ensure!(child.wait()?.code() == Some(1), "it fails, and does not fall");
    Ok(())
}

/// What is asked answers with JSON, and is no agent.
#[test]
fn another_program_at_the_address_is_not_taken_for_an_agent() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    let netns = &cluster.node;
    let listener = netns.enter(|| TcpListener::bind("127.0.0.1:0"))??;
    let address = listener.local_addr()?.to_string();
    // A terminal would turn red, and what follows around.
    const BODY: &str = "[1, {\"name\": \"\\u001b[31mred\\u202e\"}]";
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let length = BODY.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{BODY}"
            );
        }
    });
    for arguments in [
        &["status"][..],
        &["pods"],
        &["services"],
        &["endpoints"],
        &["log"],
        &["explain", "--pod", "shop/web", "--to", "cart:80"],
        &["top", "--once", "--interval", "1"],
    ] {
        let output = command(netns, &[arguments, &["--address", &address]].concat())?.output()?;
        let (told, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.code() == Some(1), "{arguments:?}: {output:?}");
        ensure!(complaint.contains("not an agent's") || arguments[0] == "top", "{arguments:?}: {complaint}");
        ensure!(!told.contains(" no ") && !told.contains("READY   yes"), "{arguments:?}: {told}");
        let obeyed = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        ensure!(!complaint.chars().chain(told.chars()).any(obeyed), "{arguments:?}: {told:?} {complaint:?}");
    }
    Ok(())
}
