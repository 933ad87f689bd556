//! `evenkeel tap`: calls as they end. Each agent tells of its node's; here they become lines.

use super::output::{Cell, NamespaceArgs, OutputArgs, Paint, Palette, RunningTable, print, say};
use super::reach::{self, Agent, Ask, AskError, ReachArgs};
use super::session::{self, complain};
use crate::mesh::MethodFilter;
use crate::telemetry::StatusFilter;
use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// Lines that wait to be printed. Beyond it agents wait, and say what they leave out for it.
const WAITING_LINES: usize = 256;

/// Whoever has seen nothing for so long is told that nothing has come: what is typed wrongly shows as silence, too.
const NOTHING_YET_AFTER: Duration = Duration::from_secs(5);

/// What `evenkeel tap` takes.
#[derive(Args, Debug)]
#[command(mut_arg("pod", |pod| pod.help("The pod that calls; its node's agent is asked").help_heading("Which calls")))]
pub(super) struct TapArgs {
    /// To this Service alone, as cart, cart:50051 or shop/cart
    #[arg(long, value_name = "SERVICE", help_heading = "Which calls")]
    service: Option<String>,
    /// Of this method alone, or of those that begin so
    #[arg(long, value_name = "PACKAGE.SERVICE/METHOD|START*", help_heading = "Which calls", value_parser = checked::<MethodFilter>)]
    method: Option<String>,
    /// That ended so: error, a gRPC status by name or number, or an HTTP status
    #[arg(long, value_name = "STATUS", help_heading = "Which calls", value_parser = checked::<StatusFilter>)]
    status: Option<String>,
    /// With the headers of each request; secrets are masked
    #[arg(long, help_heading = "Output")]
    headers: bool,
    /// Ends after so many calls
    #[arg(long, value_name = "N", help_heading = "Output", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: Option<u32>,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// The text, if it is one of those.
fn checked<T: FromStr<Err = String>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned())
}

/// Runs it.
pub(super) fn run(args: &TapArgs) -> Result<ExitCode> {
    session::run(tap(args))
}

async fn tap(args: &TapArgs) -> Result<ExitCode> {
    let found = reach::find(&args.reach).await?;
    let namespace = args.namespace.chosen(found.namespace.as_deref());
    let ask = args.ask(namespace.as_deref())?;
    let mut incomplete = !found.missing.is_empty();
    for (node, why) in &found.missing {
        complain(node, why);
    }
    // Said to people alone.
    let is_watched = std::io::stderr().is_terminal();
    if is_watched {
        say(&clean(&args.listening(namespace.as_deref(), found.agents.len())));
    }
    let mut printer = Printer::new(args, found.agents.len() > 1);
    let (teller, mut told) = mpsc::channel(WAITING_LINES);
    for agent in found.agents {
        tokio::spawn(follow(agent, ask.clone(), args.reach.limit(), teller.clone()));
    }
    // The end of the last agent's is the end of all.
    drop(teller);
    // From before anything is shown: who sees the table may have seen enough.
    let mut interrupt = signal(SignalKind::interrupt())?;
    if !print(&printer.header())? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut left = args.limit;
    let patience = sleep(NOTHING_YET_AFTER);
    tokio::pin!(patience);
    let mut is_waiting = is_watched;
    while left != Some(0) {
        let line = tokio::select! {
            // Whoever has seen enough is not to wait for what comes still.
            biased;
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            line = told.recv() => line,
            () = &mut patience, if is_waiting => {
                is_waiting = false;
                say("No such call has ended yet: evenkeel top shows whether there are any, evenkeel pods whether they are taken.");
                continue;
            }
        };
        match line {
            None => break,
            Some((node, Err(error))) => {
                incomplete = true;
                complain(&node, &error.to_string());
            }
            Some((node, Ok(value))) => {
                is_waiting = false;
                if value.get("dropped").is_none() {
                    left = left.map(|left| left - 1);
                }
                if !printer.print(&node, value)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
    }
    Ok(if incomplete { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

type Told = (String, Result<Value, AskError>);

/// Passes on what one agent tells, until its end, or until nobody listens.
async fn follow(agent: Agent, ask: Ask, limit: Duration, teller: mpsc::Sender<Told>) {
    let opened = timeout(limit, agent.follow(&ask)).await;
    let mut lines = match opened.unwrap_or(Err(AskError::Silent(limit))) {
        Ok(lines) => lines,
        Err(error) => return drop(teller.send((agent.node, Err(error))).await),
    };
    loop {
        match lines.next().await {
            Ok(None) => return,
            Ok(Some(value)) => {
                if teller.send((agent.node.clone(), Ok(value))).await.is_err() {
                    return;
                }
            }
            Err(error) => return drop(teller.send((agent.node, Err(error))).await),
        }
    }
}

impl TapArgs {
    /// What is listened for, in words.
    fn listening(&self, namespace: Option<&str>, agents: usize) -> String {
        let mut text = "Listening to calls".to_owned();
        match (&self.reach.pod, namespace) {
            (Some(pod), _) => text.push_str(&format!(" of {}", pod.0)),
            (None, Some(namespace)) if self.service.is_none() => {
                text.push_str(&format!(" of the namespace {namespace}"));
            }
            _ => {}
        }
        match (&self.service, namespace) {
            (Some(service), Some(namespace)) if !service.contains('/') => {
                text.push_str(&format!(" to {namespace}/{service}"));
            }
            (Some(service), _) => text.push_str(&format!(" to {service}")),
            _ => {}
        }
        for (name, value) in [("method", &self.method), ("status", &self.status)] {
            if let Some(value) = value {
                text.push_str(&format!(", of the {name} {value}"));
            }
        }
        match agents {
            1 => text.push_str("; one agent tells of them. Ctrl-C ends."),
            agents => text.push_str(&format!("; {agents} agents tell of them. Ctrl-C ends.")),
        }
        text
    }

    /// What each agent is asked for. A namespace is the Service's, if one is said, else that of the pods that call.
    fn ask(&self, namespace: Option<&str>) -> Result<Ask> {
        let mut parameters: Vec<(&str, String)> = Vec::new();
        if let Some(pod) = &self.reach.pod {
            parameters.push(("pod", pod.0.to_string()));
        }
        match (&self.service, namespace) {
            (Some(service), _) if service.contains('/') => parameters.push(("service", service.clone())),
            (Some(service), Some(namespace)) => {
                parameters.push(("service", format!("{namespace}/{service}")));
            }
            (Some(service), None) => match &self.reach.pod {
                // As that pod's resolver would have it.
                Some(pod) => parameters.push(("service", format!("{}/{service}", pod.0.namespace))),
                None => bail!(
                    "--service {service}: of which namespace? --service NAMESPACE/{service}, or -n NAMESPACE"
                ),
            },
            (None, Some(namespace)) if self.reach.pod.is_none() => {
                parameters.push(("namespace", namespace.to_owned()));
            }
            (None, _) => {}
        }
        parameters.extend(self.method.iter().map(|method| ("method", method.clone())));
        parameters.extend(self.status.iter().map(|status| ("status", status.clone())));
        parameters.extend(self.headers.then(|| ("headers", "true".to_owned())));
        parameters.extend(self.limit.iter().map(|limit| ("limit", limit.to_string())));
        Ok(Ask::get_with("/tap", parameters.iter().map(|(name, value)| (*name, value.as_str()))))
    }
}

/// As much of a call as is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    time: String,
    source: Option<Source>,
    destination: Destination,
    endpoint: Option<Endpoint>,
    method: Option<String>,
    http_method: Option<String>,
    path: Option<String>,
    http_status: Option<u16>,
    grpc_status_name: Option<String>,
    flag: Option<String>,
    duration_ms: f64,
    queue_ms: Option<f64>,
    first_byte_ms: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
    request_messages: u64,
    response_messages: u64,
    attempts: u64,
    new_connection: bool,
    trace_id: Option<String>,
    headers: Vec<(String, String)>,
    headers_cut: bool,
    dropped: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    namespace: String,
    pod: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Destination {
    namespace: String,
    service: String,
    port: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    address: String,
    pod: Option<String>,
}

impl Call {
    /// How it ended, in a word.
    fn status(&self) -> Cell {
        let is_error = self.flag.is_some()
            || self.grpc_status_name.as_ref().is_some_and(|name| name != "OK")
            || self.http_status.is_some_and(|status| status >= 400);
        let paint = if is_error { Paint::Bad } else { Paint::Good };
        match (&self.grpc_status_name, self.http_status) {
            (Some(name), _) => Cell::painted(name.clone(), paint),
            (None, Some(status)) if self.method.is_none() => Cell::painted(status.to_string(), paint),
            // Its client did not wait; the flag says why.
            _ => Cell::painted("-", paint),
        }
    }

    fn asked_for(&self) -> String {
        match (&self.method, &self.http_method, &self.path) {
            (Some(method), ..) => method.clone(),
            (None, Some(method), Some(path)) => format!("{method} {path}"),
            _ => "-".to_owned(),
        }
    }
}

/// Makes lines of calls, and prints them.
struct Printer<'a> {
    output: &'a OutputArgs,
    table: RunningTable,
    is_wide: bool,
    are_several: bool,
    palette: Palette,
}

impl<'a> Printer<'a> {
    fn new(args: &'a TapArgs, are_several: bool) -> Self {
        let is_wide = args.output.is_wide();
        // Wide enough for most, so that lines stand below each other from the first on.
        let mut columns =
            vec![("TIME", 12), ("SOURCE", 24), ("SERVICE", 20), ("ENDPOINT", 24), ("METHOD", 24)];
        columns.extend([("STATUS", 9), ("DURATION", 9), ("FLAG", 4)]);
        if is_wide {
            columns.extend([("QUEUE", 8), ("FIRST-BYTE", 9), ("SENT", 8), ("RECEIVED", 8)]);
            columns.extend([("ATTEMPTS", 1), ("CONNECTION", 1), ("TRACE", 32)]);
        }
        columns.extend(are_several.then_some(("NODE", 12)));
        let table = RunningTable::new(columns);
        Self { output: &args.output, table, is_wide, are_several, palette: Palette::of_stdout() }
    }

    /// What stands above the first call.
    fn header(&self) -> String {
        let has_table = self.output.item_for_programs(&Value::Null).is_none();
        if has_table && self.output.has_header() { self.table.header(self.palette) } else { String::new() }
    }

    /// Whether anybody still reads.
    fn print(&mut self, node: &str, value: Value) -> Result<bool> {
        let value = session::with_node(value, node);
        if let Some(text) = self.output.item_for_programs(&value) {
            return print(&text);
        }
        let Ok(call) = Call::deserialize(&value) else {
            complain(node, "a line is no call: is the agent of another version?");
            return Ok(true);
        };
        if call.dropped > 0 {
            complain(node, &format!("{} calls are not shown: there were more than could be", call.dropped));
            return Ok(true);
        }
        print(&self.text(node, &call))
    }

    fn text(&mut self, node: &str, call: &Call) -> String {
        let ms = |ms: f64| format!("{ms:.3}ms");
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let source = call.source.as_ref().map(|source| format!("{}/{}", source.namespace, source.pod));
        let to = &call.destination;
        let endpoint = call.endpoint.as_ref();
        // Nearly always of the Service's own namespace.
        let endpoint = endpoint.map(|endpoint| match &endpoint.pod {
            Some(pod) => {
                let own = pod.split_once('/').filter(|(namespace, _)| *namespace == to.namespace);
                own.map_or(pod.as_str(), |(_, name)| name).to_owned()
            }
            None => endpoint.address.clone(),
        });
        let mut cells: Vec<Cell> = vec![
            Cell::painted(time_of_day(&call.time), Paint::Faint),
            or_none(source).into(),
            format!("{}/{}:{}", to.namespace, to.service, to.port).into(),
            or_none(endpoint).into(),
            call.asked_for().into(),
            call.status(),
            ms(call.duration_ms).into(),
            call.flag.as_ref().map_or_else(|| "-".into(), |flag| Cell::painted(flag.clone(), Paint::Odd)),
        ];
        if self.is_wide {
            let size = |bytes, messages| format!("{bytes}B/{messages}");
            cells.extend([
                or_none(call.queue_ms.map(ms)).into(),
                or_none(call.first_byte_ms.map(ms)).into(),
                size(call.request_bytes, call.request_messages).into(),
                size(call.response_bytes, call.response_messages).into(),
                call.attempts.into(),
                if call.new_connection { "new" } else { "existing" }.into(),
                or_none(call.trace_id.clone()).into(),
            ]);
        }
        cells.extend(self.are_several.then(|| node.into()));
        let mut text = self.table.line(&cells, self.palette);
        for (name, value) in &call.headers {
            text.push_str(&format!("    {}: {}\n", clean(name), clean(value)));
        }
        if call.headers_cut {
            text.push_str("    …\n");
        }
        text
    }
}

/// Without anything that a terminal obeys.
fn clean(text: &str) -> String {
    crate::admin::table::printable(text)
}

/// Of RFC 3339's date and time, the time to the millisecond: UTC, as all of the agent's.
fn time_of_day(time: &str) -> String {
    let time = time.split_once('T').map_or(time, |(_, time)| time);
    time.chars().take("00:00:00.000".len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        tap: TapArgs,
    }

    fn args(line: &[&str]) -> Result<TapArgs, String> {
        let line = Line::try_parse_from(["evenkeel"].iter().chain(line));
        line.map(|line| line.tap).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_typed_is_what_agents_are_asked_for() {
        for (line, namespace, expected) in [
            (&[][..], None, "/tap"),
            (&[], Some("shop"), "/tap?namespace=shop"),
            (&["--service", "cart"], Some("shop"), "/tap?service=shop%2Fcart"),
            (&["--service", "mall/cart:1"], Some("shop"), "/tap?service=mall%2Fcart%3A1"),
            (&["--pod", "shop/a"], Some("other"), "/tap?pod=shop%2Fa"),
            (&["--pod", "shop/a", "--service", "cart"], None, "/tap?pod=shop%2Fa&service=shop%2Fcart"),
            (
                &["--method", "a.B/*", "--status", "not-found", "--headers", "--limit", "3"],
                None,
                "/tap?method=a.B%2F%2A&status=not-found&headers=true&limit=3",
            ),
        ] {
            assert_eq!(args(line).unwrap().ask(namespace).unwrap(), Ask::get(expected), "{line:?}");
        }
        let error = args(&["--service", "cart"]).unwrap().ask(None).unwrap_err().to_string();
        assert!(error.contains("--service NAMESPACE/cart"), "{error}");
        for (line, said) in [
            (["--status", "bad"], "a gRPC status by name or number"),
            (["--method", "*a*"], "shop.Cart/*"),
            (["--limit", "0"], "1..=1000000"),
            (["--pod", "a"], "namespace/name"),
        ] {
            let error = args(&line).unwrap_err();
            assert!(error.contains(said), "{line:?}: {error}");
        }
    }

    #[test]
    fn what_is_listened_for_is_said_in_words() {
        for (line, namespace, expected) in [
            (&[][..], None, "Listening to calls; one agent tells of them. Ctrl-C ends."),
            (&["-n", "shop"], Some("shop"), "Listening to calls of the namespace shop; one agent"),
            (&["--service", "cart:1"], Some("shop"), "Listening to calls to shop/cart:1; one agent"),
            (
                &["--pod", "shop/a", "--service", "mall/cart", "--method", "a.B/*", "--status", "error"],
                Some("shop"),
                "Listening to calls of shop/a to mall/cart, of the method a.B/*, of the status error; one agent",
            ),
        ] {
            let said = args(line).unwrap().listening(namespace, 1);
            assert!(said.starts_with(expected), "{line:?}: {said}");
        }
        assert!(args(&[]).unwrap().listening(None, 3).contains("; 3 agents tell of them."));
    }

    fn call() -> Value {
        json!({
            "time": "2023-11-14T22:13:20.250001Z",
            "source": {"namespace": "shop", "pod": "web-0", "workload": "web"},
            "destination": {"namespace": "shop", "service": "cart", "port": 50051},
            "endpoint": {"address": "10.0.0.1:50051", "pod": "shop/cart-a"},
            "method": "shop.Cart/Add",
            "http_status": 200,
            "grpc_status": 5,
            "grpc_status_name": "NOT_FOUND",
            "duration_ms": 3.25,
            "request_bytes": 10,
            "response_bytes": 2000,
            "request_messages": 1,
            "response_messages": 2,
            "attempts": 2,
            "new_connection": true,
            "headers": [["x-a", "b\u{1b}[31m"], ["authorization", "***"]],
        })
    }

    #[test]
    fn a_call_is_a_line_with_its_headers_below_it() {
        let tap = args(&["--headers"]).unwrap();
        let mut printer = Printer { palette: Palette::Plain, ..Printer::new(&tap, false) };
        let text = printer.text("n1", &Call::deserialize(call()).unwrap());
        let words: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
        let expected =
            ["22:13:20.250", "shop/web-0", "shop/cart:50051", "cart-a", "shop.Cart/Add", "NOT_FOUND"];
        assert_eq!(words, [&expected[..], &["3.250ms", "-"]].concat());
        assert!(text.ends_with("\n    x-a: b\\u{1b}[31m\n    authorization: ***\n"), "{text}");
        let header = printer.header();
        assert_eq!(header.find("METHOD"), text.find("shop.Cart/Add"), "{header}{text}");
        let wide = args(&["-o", "wide"]).unwrap();
        let mut printer = Printer { palette: Palette::Plain, ..Printer::new(&wide, true) };
        let text = printer.text("n1", &Call::deserialize(call()).unwrap());
        assert!(text.contains("10B/1") && text.contains("2000B/2") && text.contains("   n1\n"), "{text}");
    }

    #[test]
    fn a_call_of_which_little_is_known_is_a_line_too() {
        let tap = args(&[]).unwrap();
        let mut printer = Printer { palette: Palette::Plain, ..Printer::new(&tap, false) };
        let value =
            json!({"http_method": "GET", "path": "/a", "http_status": 503, "from": "a later version"});
        let text = printer.text("n1", &Call::deserialize(value).unwrap());
        assert!(text.contains("GET /a") && text.contains("503"), "{text}");
    }
}
