//! What is told of single calls, beside what clients and the agent's own counts say: the access log has each call once, whatever becomes of it;
//! a log that nobody reads costs no call anything; and a tap shows what it is asked for, for as long as somebody looks.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::evenkeel_cli::command;
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::process::Process;
use evenkeel_tests::{Agent, Outcome, Shop, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

const OF_EACH_KIND: u64 = 25;
const FAILED: u64 = 40;
const OF_CANCELS: u64 = 80;
/// FAILED_PRECONDITION, which neither the agent nor the client gives by itself.
const FAILED_PRECONDITION: &str = "9";
const SECRET: &str = "Bearer-hunter2";

fn arguments(arguments: &[&str]) -> Options {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Options { arguments, ..Options::default() }
}

/// The lines of a file of JSON lines.
fn json_lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

/// What calls are told apart by, in the access log and at `/calls`.
type Kind = [String; 4];

fn kind(row: &Value, endpoint: &Value, flag: &Value) -> Kind {
    let text = |value: &Value| if value.is_null() { "-".to_owned() } else { value.to_string() };
    [&row["method"], &row["grpc_status"], flag, endpoint].map(text)
}

/// Bytes each way, messages each way.
fn amounts(row: &Value) -> [u64; 4] {
    ["request_bytes", "response_bytes", "request_messages", "response_messages"]
        .map(|field| row[field].as_u64().unwrap_or(0))
}

fn is_error(line: &Value) -> bool {
    line["grpc_status"] != 0 || line["flag"].is_string()
}

#[test]
fn each_call_is_in_the_access_log_once_and_where_errors_are_asked_for_those_alone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    // An endpoint that refuses connections: calls that were to go there go elsewhere.
    shop.greeters[1].process.kill()?;
    for which in ["all", "errors"] {
        let folder = tempfile::tempdir()?;
        let (log, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let to = log.to_string_lossy();
        let mut agent =
            Agent::start_with(&shop.cluster, &arguments(&["--access-log", which, "--access-log-to", &to]))?;
        let mixed = ["--kind", "mixed", "--payload-bytes", "300", "--reply-bytes", "500"];
        shop.client.call(&shop.v4(), 4 * OF_EACH_KIND, &mixed)?.is_clean()?;
        // As logrotate does, in the midst of it.
        fs::rename(&log, &moved)?;
        let failed = shop.client.call(&shop.v4(), FAILED, &["--fail-with", FAILED_PRECONDITION])?;
        ensure!(failed.failed() == FAILED, "{failed:?}");
        let cancelled = shop.client.call(&shop.v4(), OF_CANCELS, &["--cancel-every", "2"])?;
        eventually("the last call is over for the agent too", || agent.is_idle().unwrap_or(false))?;
        let rows = agent.admin("/calls")?;
        let counted = rows["calls"].as_array().context("a list")?;
        let of_rows: u64 = counted.iter().filter_map(|row| row["calls"].as_u64()).sum();
        let errors = |row: &Value| row["grpc_status"] != 0 || row["flag"] != "-";
        let errors_of_rows: u64 =
            counted.iter().filter(|row| errors(row)).filter_map(|row| row["calls"].as_u64()).sum();
        let given_up = errors_of_rows - FAILED;
        ensure!(given_up <= cancelled.cancelled, "{given_up} of {} cancelled", cancelled.cancelled);
        let expected = if which == "all" { of_rows } else { errors_of_rows };
        eventually("all lines are written", || {
            metric(&agent, "evenkeel_access_log_lines_total").is_ok_and(|lines| lines >= expected)
        })?;
        agent.stop()?;
        let lines = [json_lines(&moved)?, json_lines(&log)?].concat();
        let told = lines.len() as u64;
        ensure!(expected > FAILED && told == expected, "{which}: {told} lines of {expected} calls");
        ensure!(which == "all" || lines.iter().all(is_error), "{lines:#?}");

        // Each of them under its own name, with its own bytes and messages.
        let (mut by_line, mut by_row) = (BTreeMap::<Kind, (u64, [u64; 4])>::new(), BTreeMap::new());
        for line in &lines {
            let (calls, sums) =
                by_line.entry(kind(line, &line["endpoint"]["address"], &line["flag"])).or_default();
            *calls += 1;
            sums.iter_mut().zip(amounts(line)).for_each(|(sum, amount)| *sum += amount);
        }
        for row in counted.iter().filter(|row| which == "all" || errors(row)) {
            let flag = if row["flag"] == "-" { Value::Null } else { row["flag"].clone() };
            let calls = row["calls"].as_u64().unwrap_or(0);
            by_row.insert(kind(row, &row["endpoint"], &flag), (calls, amounts(row)));
        }
        ensure!(by_line == by_row, "{which}: told {by_line:#?}, counted {by_row:#?}");
        let is_sent_again = |line: &Value| line["attempts"].as_u64() > Some(1);
        ensure!(which == "errors" || lines.iter().any(is_sent_again), "none was sent twice: {lines:#?}");
        check_fields(&lines)?;
    }
    Ok(())
}

/// Where each call came from and went to, and how long it took.
fn check_fields(lines: &[Value]) -> Outcome {
    for line in lines {
        let (source, to) = (&line["source"], &line["destination"]);
        ensure!(source["namespace"] == "shop" && source["pod"] == "client", "{line}");
        ensure!(source["workload"].is_string(), "{line}");
        ensure!(to["service"] == "greeter" && to["port"] == 50_051 && to["address"].is_string(), "{line}");
        ensure!(
            line["time"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')),
            "{line}"
        );
        let duration = line["duration_ms"].as_f64().context("a duration")?;
        let parts = [&line["queue_ms"], &line["first_byte_ms"]].map(|part| part.as_f64().unwrap_or(0.0));
        ensure!(parts.iter().all(|part| (0.0..=duration).contains(part)), "{line}");
        if line["grpc_status"] == 0 {
            ensure!(line["first_byte_ms"].is_f64() && line["queue_ms"].is_f64(), "{line}");
            let pod = line["endpoint"]["pod"].as_str();
            ensure!(pod.is_some_and(|pod| pod.starts_with("shop/server-")), "{line}");
        }
        ensure!(line["headers"].is_null(), "nobody asked for headers: {line}");
    }
    // Each client process had one connection.
    let first = lines.iter().filter(|line| line["new_connection"] == true).count();
    ensure!((1..=3).contains(&first), "{first} of {} were first on their connections", lines.len());
    Ok(())
}

#[test]
fn a_log_that_nobody_reads_costs_no_call_anything_and_what_is_dropped_is_counted() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    // More than the pipe, a batch and the queue hold.
    const CALLS: u64 = 12_000;
    let shop = Shop::enrolled(2)?;
    let folder = tempfile::tempdir()?;
    let pipe = folder.path().join("pipe");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success());
    // Both ends, so that there is a reader, which reads nothing.
    let reader = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&pipe)?;
    let to = pipe.to_string_lossy();
    let mut agent =
        Agent::start_with(&shop.cluster, &arguments(&["--access-log", "all", "--access-log-to", &to]))?;
    let load = ["--rate", "4000", "--connections", "4", "--in-flight", "200"];
    let tally = shop.client.call(&shop.v4(), CALLS, &load)?;
    tally.is_clean()?;
    ensure!(tally.completed() == CALLS, "{tally:?}");
    let dropped = || metric(&agent, "evenkeel_access_log_dropped_total");
    ensure!(dropped()? > 0, "nothing was dropped");
    eventually("the log says that records were dropped", || {
        agent.process.stderr().iter().any(|line| line.contains("records of the access log were dropped"))
    })?;
    // Now somebody reads.
    let (mut lines, mut unread) = (0, Reading { pipe: reader, text: Vec::new() });
    eventually("what was told was written or dropped", || {
        lines += unread.lines();
        let written = metric(&agent, "evenkeel_access_log_lines_total").unwrap_or(0);
        written == lines && dropped().is_ok_and(|dropped| written + dropped == CALLS)
    })?;
    ensure!(lines > 8_000 && unread.text.is_empty(), "{lines} lines, {:?}", unread.text);
    let told = agent.process.stderr();
    let told = told.iter().filter(|line| line.contains("records of the access log were dropped")).count();
    ensure!(told == 1, "once a minute at most: {told}");
    agent.stop()
}

/// What comes out of a pipe.
struct Reading {
    pipe: File,
    text: Vec<u8>,
}

impl Reading {
    /// How many whole lines there are by now.
    fn lines(&mut self) -> u64 {
        let mut piece = vec![0; 64 << 10];
        while let Ok(read @ 1..) = self.pipe.read(&mut piece) {
            self.text.extend_from_slice(&piece[..read]);
        }
        let whole = self.text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines = self.text.drain(..whole).filter(|byte| *byte == b'\n').count();
        lines as u64
    }
}

/// A metric without labels.
fn metric(agent: &Agent, name: &str) -> Result<u64> {
    let text = agent.metrics()?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).with_context(|| format!("{name}: {text}"))
}

/// A tap over the agent's unix socket, once its answer has begun.
struct Tap(BufReader<UnixStream>);

impl Tap {
    fn open(socket: &Path, query: &str) -> Result<(u16, Self)> {
        // It knows no chunks: the lines come as they are.
        Self::open_by("HTTP/1.0", socket, query)
    }

    fn open_by(protocol: &str, socket: &Path, query: &str) -> Result<(u16, Self)> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(evenkeel_tests::wait::WAIT_LIMIT))?;
        let request = format!("GET /tap{query} {protocol}\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context(line.clone())?;
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
        }
        Ok((status, Self(reader)))
    }

    /// The next record; `None`: the answer has ended.
    fn next(&mut self) -> Result<Option<Value>> {
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line)? {
                0 => return Ok(None),
                // A sign of life.
                _ if line.trim().is_empty() => {}
                _ => return serde_json::from_str(&line).map(Some).context(line),
            }
        }
    }

    fn rest(&mut self) -> Result<Vec<Value>> {
        std::iter::from_fn(|| self.next().transpose()).collect()
    }
}

#[test]
fn a_tap_shows_the_calls_that_it_is_asked_for_and_masks_secrets() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("admin.sock");
    let options = Options { admin_socket: Some(socket.clone()), ..Options::default() };
    let mut agent = Agent::start_with(&shop.cluster, &options)?;
    let open = |query: &str| -> Result<Tap> {
        let (status, tap) = Tap::open(&socket, query)?;
        ensure!(status == 200, "{query}: {status}");
        Ok(tap)
    };
    // They end with as many calls as there are of theirs, so that none may be missing.
    let mut all = open("?limit=120")?;
    let mut uploads = open("?method=evenkeel.test.Greeter/Upload&limit=20")?;
    let mut failures = open("?status=failed-precondition&service=shop/greeter:50051&limit=40")?;
    let mut errors = open("?status=error&pod=shop/client&headers=true&limit=40")?;
    let mut elsewhere = open("?namespace=elsewhere")?;
    let header = ["--header", &format!("authorization={SECRET}"), "--header", "x-user=anna"];
    let mixed = [&["--kind", "mixed"][..], &header].concat();
    shop.client.call(&shop.v4(), 80, &mixed)?.is_clean()?;
    shop.client.call(&shop.v4(), 40, &[&["--fail-with", FAILED_PRECONDITION][..], &header].concat())?;

    let all = all.rest()?;
    ensure!(all.len() == 120, "{} of 120 calls", all.len());
    let uploads = uploads.rest()?;
    ensure!(
        uploads.len() == 20 && uploads.iter().all(|line| line["method"] == "evenkeel.test.Greeter/Upload")
    );
    ensure!(uploads.iter().all(|line| line["request_messages"] == 5), "{uploads:?}");
    let failures = failures.rest()?;
    ensure!(
        failures.len() == 40 && failures.iter().all(|line| line["grpc_status_name"] == "FAILED_PRECONDITION")
    );
    let errors = errors.rest()?;
    ensure!(errors.len() == 40, "{errors:?}");
    for line in &errors {
        let headers: BTreeMap<String, String> =
            serde_json::from_value::<Vec<_>>(line["headers"].clone())?.into_iter().collect();
        ensure!(headers["authorization"] == "***" && headers["x-user"] == "anna", "{headers:?}");
        ensure!(headers[":path"] == "/evenkeel.test.Greeter/SayHello", "{headers:?}");
        ensure!(!line.to_string().contains(SECRET), "{line}");
    }
    ensure!(all.iter().all(|line| line["headers"].is_null()), "nobody asked for them");
    // An end of the agent's is the tap's: nothing else came.
    agent.stop()?;
    ensure!(elsewhere.rest()?.is_empty());
    Ok(())
}

#[test]
fn who_goes_away_frees_the_tap_at_once() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(1)?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("admin.sock");
    let options = Options { admin_socket: Some(socket.clone()), ..Options::default() };
    let _agent = Agent::start_with(&shop.cluster, &options)?;
    for protocol in ["HTTP/1.0", "HTTP/1.1"] {
        let mut open = Vec::new();
        let refused = loop {
            ensure!(open.len() < 100, "there is no bound");
            let (status, mut tap) = Tap::open_by(protocol, &socket, "")?;
            match status {
                200 => open.push(tap),
                status => {
                    let mut said = String::new();
                    tap.0.read_line(&mut said)?;
                    break (status, said);
                }
            }
        };
        ensure!(refused.0 == 503 && refused.1.contains("8 taps are open"), "{refused:?}");
        // No call ends meanwhile that would have to be written to who has gone.
        drop(open);
        let is_free = || Tap::open_by(protocol, &socket, "").is_ok_and(|(status, _)| status == 200);
        eventually("there is room again", is_free)?;
    }
    Ok(())
}

#[test]
fn the_command_line_taps_until_its_reader_has_seen_enough() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load =
        shop.client.load(&shop.v4(), &["--kind", "mixed", "--rate", "100", "--header", "x-user=anna"])?;
    let tap = |arguments: &[&str]| {
        evenkeel_tests::evenkeel_cli::run(&shop.cluster.node, &[&["tap"][..], arguments].concat())
    };
    let table =
        tap(&["--limit", "4", "--method", "evenkeel.test.Greeter/Chat", "--service", "shop/greeter"])?
            .clean()?;
    ensure!(table.starts_with("TIME ") && table.lines().count() == 5 && !table.contains('\u{1b}'), "{table}");
    ensure!(
        table.matches(" evenkeel.test.Greeter/Chat ").count() == 4 && table.contains(" shop/client "),
        "{table}"
    );
    let json = tap(&["--limit", "3", "-o", "json", "--headers", "--pod", "shop/client"])?.clean()?;
    let lines: Vec<Value> = json.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 3 && lines.iter().all(|line| line["node"].is_string()), "{json}");
    ensure!(json.matches(r#"["x-user","anna"]"#).count() == 3, "{json}");
    let yaml = tap(&["--limit", "2", "-o", "yaml", "--status", "ok"])?.clean()?;
    ensure!(yaml.matches("---\n").count() == 2 && yaml.contains("grpc_status_name: OK"), "{yaml}");
    let wrong = tap(&["--status", "bad"])?;
    ensure!(!wrong.success && wrong.stderr.contains("a gRPC status by name or number"), "{wrong:?}");

    // A pipe that is closed: the next call ends it.
    let mut closed = command(&shop.cluster.node, &["tap", "--no-headers"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut first = String::new();
    BufReader::new(closed.stdout.take().context("a pipe")?).read_line(&mut first)?;
    ensure!(first.contains("shop/greeter:50051"), "{first}");
    let mut complaints = String::new();
    closed.stderr.take().context("a pipe")?.read_to_string(&mut complaints)?;
    ensure!(closed.wait()?.success() && complaints.is_empty(), "{complaints}");

    // Ctrl-C, while no call ends.
    load.until("calls are made", &Default::default(), |tally| tally.completed() > 0)?;
    load.stop()?.is_clean()?;
    let mut interrupted = Process::spawn("tap", command(&shop.cluster.node, &["tap"])?, None)?;
    interrupted.line("TIME ")?;
    interrupted.signal(libc::SIGINT);
    ensure!(interrupted.wait()?.success() && interrupted.stderr().is_empty(), "{:?}", interrupted.stderr());
    Ok(())
}

#[test]
fn the_proxy_has_an_access_log_too_for_people_and_sampled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    const LISTEN: u16 = 9000;
    let mut shop = Shop::not_enrolled(2)?;
    let host = shop.cluster.pod("host")?;
    let listen = host.v4(LISTEN);
    let to: Vec<String> = shop.servers.iter().map(|pod| pod.v4(GREETER_TARGET_PORT)).collect();
    for (sample, expected) in [("1", 140), ("0", 40)] {
        let mut command = Command::new(host::evenkeel_binary()?);
        command.args(["proxy", "--workers", "2", "--listen", &listen, "--to", &to.join(",")]);
        command.args(["--access-log", "all", "--access-log-format", "text", "--access-log-sample", sample]);
        let mut proxy = host.spawn("proxy", command)?;
        eventually("the proxy listens", || {
            host.listening_on()
                .is_ok_and(|listening| listening.iter().any(|address| address.port() == LISTEN))
        })?;
        shop.client.call(&listen, 100, &["--rate", "500"])?.is_clean()?;
        shop.client.call(&listen, 40, &["--rate", "500", "--fail-with", FAILED_PRECONDITION])?;
        ensure!(proxy.stop()?.success());
        let lines = proxy.stdout();
        ensure!(lines.len() == expected, "{} of {expected} lines: {lines:#?}", lines.len());
        let failed =
            lines.iter().filter(|line| line.contains("Z FAILED_PRECONDITION - -> -/to:0 at ")).count();
        ensure!(failed == 40, "{failed} of 40: {lines:#?}");
        ensure!(lines.iter().all(|line| line.contains(" evenkeel.test.Greeter/SayHello ")), "{lines:#?}");
    }
    Ok(())
}
