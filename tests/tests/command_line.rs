//! The command line beside an agent, with real pods and calls: what it prints is what the test knows.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::evenkeel_cli::{command, line, run};
use evenkeel_tests::host::privileged;
use evenkeel_tests::process::signal_to;
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, Cluster, Outcome, Shop, Tally};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Stdio;
use std::sync::{Arc, mpsc};

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
    let top = run(&shop.cluster.node, &["top", "--once", "--interval", "1", "--by", "endpoint"])?.clean()?;
    let of_pod = run(&shop.cluster.node, &["top", "--once", "--interval", "1", "--by", "pod"])?.clean()?;
    let of_method =
        run(&shop.cluster.node, &["top", "--once", "--interval", "1", "--by", "method"])?.clean()?;
    load.stop()?.is_clean()?;
    for (text, name) in [(of_pod, "client"), (of_method, "evenkeel.test.Greeter/SayHello")] {
        let its = text.lines().find(|line| line.split_whitespace().any(|word| word == name));
        let rate = its.and_then(|line| line.split_whitespace().find_map(|word| word.parse::<f64>().ok()));
        ensure!(rate.is_some_and(|rate| rate > 1.0), "{name}: {text}");
    }
    let lines: Vec<_> = top.lines().filter(|line| line.starts_with("shop ")).collect();
    ensure!(lines.len() >= 2, "{top}");
    let rates = lines.iter().filter_map(|line| line.split_whitespace().nth(3)?.parse::<f64>().ok());
    let rate: f64 = rates.sum();
    ensure!(rate > 1.0, "{rate} a second: {top}");
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

/// A terminal: the side that a program has, and the side of who looks and presses keys.
fn terminal() -> Result<(File, File)> {
    let (mut person, mut program) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are written before it returns 0; a name and modes are not asked for.
    let made = unsafe { libc::openpty(&mut person, &mut program, null, null.cast(), &size) };
    ensure!(made == 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: both were opened just now, and are nobody else's.
    Ok(unsafe { (File::from_raw_fd(program), File::from_raw_fd(person)) })
}

/// The modes that say whether what is typed is edited, echoed, and made signals of.
fn modes(terminal: &File) -> Result<libc::tcflag_t> {
    let mut modes = MaybeUninit::<libc::termios>::uninit();
    // SAFETY: it is written before it returns 0.
    let read = unsafe { libc::tcgetattr(terminal.as_raw_fd(), modes.as_mut_ptr()) };
    ensure!(read == 0, "no modes: {}", std::io::Error::last_os_error());
    // SAFETY: it returned 0.
    Ok(unsafe { modes.assume_init() }.c_lflag)
}

/// An agent that answers two questions and no third; what is sent here is that one has come.
fn half_an_agent(listener: TcpListener) -> mpsc::Receiver<()> {
    let (asked, hears) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut held, mut requests) = (Vec::new(), 0);
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            while let Ok(1..) = stream.read(&mut request) {
                requests += 1;
                let body = if requests == 1 { r#"{"calls":[],"total":0,"cut":false}"# } else { "[]" };
                if requests > 2 {
                    let _ = asked.send(());
                    break;
                }
                let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
            held.push(stream);
        }
    });
    hears
}

#[test]
fn top_is_left_at_once_though_an_agent_hangs_and_gives_the_terminal_back() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    for leave in ["q", "\u{3}", "SIGTERM"] {
        let listener = cluster.node.enter(|| TcpListener::bind("127.0.0.1:0"))??;
        let address = listener.local_addr()?.to_string();
        let hangs = half_an_agent(listener);
        let (program, mut person) = terminal()?;
        let before = modes(&program)?;
        let arguments = ["top", "--address", &address, "--interval", "1", "--timeout", "3600"];
        let mut top = command(&cluster.node, &arguments)?
            .stdin(program.try_clone()?)
            .stdout(program.try_clone()?)
            .stderr(Stdio::piped())
            .spawn()?;
        eventually_some("it asks a third time", || Ok(hangs.try_recv().ok()))?;
        ensure!(modes(&program)? != before, "keys are read as they are pressed");
        match leave {
            "SIGTERM" => signal_to(top.id() as i32, libc::SIGTERM),
            key => person.write_all(key.as_bytes())?,
        }
        let status = eventually_some("it ends", || Ok(top.try_wait()?));
        if status.is_err() {
            top.kill()?;
        }
        ensure!(status?.success(), "{leave:?}");
        ensure!(modes(&program)? == before, "{leave:?}: the terminal is as it was");
        drop(program);
        let mut drawn = Vec::new();
        // Its last program has gone, which is an error to read of.
        let _ = person.read_to_end(&mut drawn);
        ensure!(String::from_utf8_lossy(&drawn).ends_with("\u{1b}[?1049l"), "the shell's screen is back");
    }
    Ok(())
}
