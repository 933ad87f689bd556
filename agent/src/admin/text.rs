//! The answers for people: what [`routes`](mod@super::routes) says as JSON, as aligned tables. The command line shows the same.

use super::page::{Leads, Page};
use super::table::{Table, printable};
use evenkeel_common::Reason;
use serde_json::Value;

const KIB: f64 = 1_024.0;
const MIB: f64 = 1_048_576.0;

/// An answer for people.
pub(super) fn text(leads: Leads, answer: &Value) -> String {
    match leads {
        Leads::Index => index(answer),
        Leads::Page(page) => page_text(page, answer),
        Leads::Calls => calls(answer),
        // It is no one value, and has lines of its own.
        Leads::Tap => String::new(),
        Leads::Log => names_and_values(answer),
        Leads::Cpu => cpu(answer),
        Leads::Heap => heap(answer),
        Leads::OpenApi => format!("{answer:#}\n"),
    }
}

/// A page's JSON for people.
pub fn page_text(page: Page, answer: &Value) -> String {
    match page {
        Page::Pods => pods(answer),
        Page::Services => services(answer),
        Page::Endpoints => endpoints(answer),
        Page::Source => source(answer),
        Page::Problems => problems(answer),
        Page::Connections => connections(answer),
        Page::Streams => streams(answer),
        Page::Snapshot => snapshot(answer),
        Page::Workers => workers(answer),
        Page::Kernel => kernel(answer),
        Page::Explain => explanation(answer),
        Page::Status | Page::Config => names_and_values(answer),
    }
}

fn rows(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.as_array().into_iter().flatten()
}

/// A field, as it stands in a cell.
fn cell(row: &Value, field: &str) -> String {
    word(&row[field])
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(word).collect::<Vec<_>>().join(", "),
        Value::Object(_) => value.to_string(),
    }
}

/// A field in another unit, with one decimal.
fn scaled(row: &Value, field: &str, unit: f64) -> String {
    row[field].as_f64().map(|number| format!("{:.1}", number / unit)).unwrap_or_default()
}

fn index(answer: &Value) -> String {
    let mut table = Table::new(&["PATH", "METHODS", "PARAMETERS", "WHAT"]);
    for row in rows(answer) {
        let parameters: Vec<_> = rows(&row["parameters"]).map(|parameter| cell(parameter, "name")).collect();
        table.row([cell(row, "path"), cell(row, "methods"), parameters.join(", "), cell(row, "summary")]);
    }
    table.render()
}

fn pods(answer: &Value) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "ENROLLED",
        ">FOR (s)",
        ">CONNECTIONS",
        ">TAKEN",
        ">STRAIGHT",
        ">MEMORY (MiB)",
        "WHY NOT, OR STRAIGHT BECAUSE OF",
    ]);
    for pod in rows(answer) {
        let outcomes = pod["connections"].as_object();
        let straight: Vec<_> = outcomes
            .into_iter()
            .flatten()
            .filter(|(outcome, count)| *outcome != TAKEN && count.as_u64() > Some(0))
            .collect();
        let went_straight = outcomes
            .map(|_| straight.iter().filter_map(|(_, count)| count.as_u64()).sum::<u64>().to_string());
        let because: Vec<_> = straight.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        let reason = if pod["reason"].is_string() { cell(pod, "reason") } else { because.join(", ") };
        table.row([
            cell(pod, "namespace"),
            cell(pod, "name"),
            word(&Value::Bool(pod["enrolled"] == true)),
            cell(pod, "enrolled_for_seconds"),
            cell(pod, "open_connections"),
            word(&pod["connections"][TAKEN]),
            went_straight.unwrap_or_default(),
            scaled(pod, "memory_bytes", MIB),
            reason,
        ]);
    }
    table.render()
}

/// The outcome of a connection that was taken, as the kernel's counters name it.
const TAKEN: &str = Reason::Taken.name();

fn services(answer: &Value) -> String {
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        ">PORT",
        "PICKER",
        ">ENDPOINTS",
        ">UNUSED",
        "CAPTURED",
        "STRAIGHT",
    ]);
    for service in rows(answer) {
        for port in rows(&service["ports"]) {
            table.row([
                cell(service, "namespace"),
                cell(service, "name"),
                cell(port, "port"),
                cell(service, "picker"),
                cell(port, "endpoints"),
                rows(&port["unused"]).count().to_string(),
                cell(port, "captured"),
                cell(port, "straight"),
            ]);
        }
    }
    table.render()
}

fn endpoints(answer: &Value) -> String {
    let mut table = Table::new(&[
        "SERVICE",
        "ENDPOINT",
        "POD",
        "ZONE",
        ">WEIGHT",
        ">CALLS",
        ">SHARE (%)",
        ">FAILED",
        ">ACTIVE",
        ">LATENCY (ms)",
        "STANDS",
    ]);
    for endpoint in rows(answer) {
        let because = || {
            let (reason, left) = (cell(endpoint, "ejection_reason"), cell(endpoint, "ejected_for_seconds"));
            format!("{reason}, for {left} s")
        };
        let stands = match (endpoint["ejected"] == true, endpoint["ejected_by"].as_u64()) {
            _ if endpoint["unhealthy"] == true => "unhealthy: its health check says so".into(),
            (true, _) => format!("ejected: {}", because()),
            (false, Some(pods)) => format!("ejected by {pods} pods: {}", because()),
            (false, None) => "serves".into(),
        };
        table.row([
            cell(endpoint, "service_port"),
            cell(endpoint, "address"),
            cell(endpoint, "pod"),
            cell(endpoint, "zone"),
            cell(endpoint, "weight"),
            cell(endpoint, "calls"),
            scaled(endpoint, "share_percent", 1.0),
            cell(endpoint, "failures"),
            cell(endpoint, "active"),
            scaled(endpoint, "latency_us", 1_000.0),
            stands,
        ]);
    }
    table.render()
}

fn connections(answer: &Value) -> String {
    let mut table = Table::new(&[
        ">WORKER",
        "SIDE",
        "POD",
        "SERVICE",
        "ADDRESS",
        "PROTOCOL",
        "STANDS",
        ">AGE (s)",
        ">CALLS",
        ">HELD (KiB)",
        ">UNWRITTEN (KiB)",
        ">STUCK (s)",
    ]);
    for connection in rows(&answer["connections"]) {
        let standing = cell(connection, "standing");
        table.row([
            cell(connection, "worker"),
            cell(connection, "side"),
            cell(connection, "pod"),
            cell(connection, "service_port"),
            cell(connection, "address"),
            cell(connection, "protocol"),
            if connection["is_read"] == false { format!("{standing}, not read") } else { standing },
            scaled(connection, "age_seconds", 1.0),
            cell(connection, "streams"),
            scaled(connection, "held_bytes", KIB),
            scaled(connection, "unwritten_bytes", KIB),
            scaled(connection, "stuck_seconds", 1.0),
        ]);
    }
    table.render() + &completeness(answer)
}

fn streams(answer: &Value) -> String {
    let mut table = Table::new(&[
        ">WORKER",
        "POD",
        "SERVICE",
        "METHOD",
        "ENDPOINT",
        "ENDPOINT POD",
        "STAGE",
        ">AGE (ms)",
        ">DEADLINE IN (ms)",
        ">REQUEST (KiB)",
        ">RESPONSE (KiB)",
        ">MESSAGES",
    ]);
    for stream in rows(&answer["streams"]) {
        table.row([
            cell(stream, "worker"),
            cell(stream, "pod"),
            cell(stream, "service_port"),
            cell(stream, "method"),
            cell(stream, "endpoint"),
            cell(stream, "endpoint_pod"),
            cell(stream, "stage"),
            scaled(stream, "age_ms", 1.0),
            scaled(stream, "deadline_left_ms", 1.0),
            scaled(stream, "request_bytes", KIB),
            scaled(stream, "response_bytes", KIB),
            format!("{}/{}", cell(stream, "request_messages"), cell(stream, "response_messages")),
        ]);
    }
    table.render() + &completeness(answer)
}

fn calls(answer: &Value) -> String {
    let mut table = Table::new(&[
        "POD",
        "SERVICE",
        "METHOD",
        "ENDPOINT",
        "ENDPOINT POD",
        "STATUS",
        "WHAT WENT WRONG",
        ">CALLS",
        ">ATTEMPTS",
        ">P50 (ms)",
        ">P99 (ms)",
        ">REQUESTS (KiB)",
        ">RESPONSES (KiB)",
        ">MESSAGES",
    ]);
    for row in rows(answer) {
        let pod = || format!("{}/{}", cell(row, "namespace"), cell(row, "pod"));
        // A gRPC call's status says more than that of the response which it came in.
        let status = match row["grpc_status"].is_null() {
            true => cell(row, "http_status"),
            false => format!("grpc {}", row["grpc_status"]),
        };
        table.row([
            if row["pod"].is_string() { pod() } else { String::new() },
            cell(row, "service"),
            cell(row, "method"),
            cell(row, "endpoint"),
            cell(row, "endpoint_pod"),
            status,
            cell(row, "flag"),
            cell(row, "calls"),
            cell(row, "attempts"),
            scaled(&row["latency"], "p50_ms", 1.0),
            scaled(&row["latency"], "p99_ms", 1.0),
            scaled(row, "request_bytes", KIB),
            scaled(row, "response_bytes", KIB),
            format!("{}/{}", cell(row, "request_messages"), cell(row, "response_messages")),
        ]);
    }
    table.render()
}

/// What of the rows is missing, a line each.
fn completeness(answer: &Value) -> String {
    let mut text = String::new();
    if answer["cut"] == true {
        text +=
            &format!("\nof {}: ask for some of them (pod, service), or for more (limit)\n", answer["total"]);
    }
    for worker in rows(&answer["silent_workers"]) {
        text += &format!(
            "\nworker {worker} has not answered within a second: it hangs, and what it has is missing\n"
        );
    }
    text
}

fn snapshot(answer: &Value) -> String {
    let mut table = Table::new(&["ADDRESS", "STANDS FOR IT", "SERVICE", ">ENDPOINTS"]);
    for destination in rows(&answer["destinations"]) {
        table.row(["address", "loopback", "service_port", "endpoints"].map(|field| cell(destination, field)));
    }
    let mut text = format!("version {}", answer["version"]);
    for worker in rows(&answer["workers"]) {
        text += &format!(", worker {}: {}", worker["worker"], worker["version"]);
    }
    format!("{text}\n\n{}\n{}", table.render(), source(&answer["source"]))
}

fn workers(answer: &Value) -> String {
    let mut table =
        Table::new(&[">WORKER", ">CONNECTIONS", ">CALLS OPEN", ">BUSY (%)", ">LAST ALIVE (ms ago)"]);
    for worker in rows(&answer["workers"]) {
        let fields = ["worker", "connections", "calls_open", "busy_percent", "silent_ms"];
        table.row(fields.map(|field| cell(worker, field)));
    }
    format!("{}\n{}", table.render(), names_and_values(&without(answer, &["workers"])))
}

fn kernel(answer: &Value) -> String {
    let mut programs = Table::new(&[
        "PROGRAM",
        "ATTACHED AS",
        "ATTACHED",
        ">RUNS",
        ">A RUN (ns)",
        ">MISSED",
        ">MEMORY (KiB)",
    ]);
    for program in rows(&answer["programs"]) {
        let a_run = program["run_time_ns"].as_f64().zip(program["runs"].as_f64());
        programs.row([
            cell(program, "name"),
            cell(program, "attached_as"),
            cell(program, "attached"),
            cell(program, "runs"),
            a_run.map(|(time, runs)| format!("{:.0}", time / runs)).unwrap_or_default(),
            cell(program, "missed_runs"),
            scaled(program, "memory_bytes", KIB),
        ]);
    }
    let mut maps = Table::new(&["MAP", ">ENTRIES", ">CAPACITY", ">MEMORY (KiB)"]);
    for map in rows(&answer["maps"]) {
        let memory = scaled(map, "memory_bytes", KIB);
        maps.row([cell(map, "name"), cell(map, "entries"), cell(map, "capacity"), memory]);
    }
    let hint = if answer["counts_runs"] == true {
        ""
    } else {
        "(runs are counted while sysctl kernel.bpf_stats_enabled=1)\n"
    };
    let rest = names_and_values(&without(answer, &["programs", "maps"]));
    format!("{}{hint}\n{}\n{rest}", programs.render(), maps.render())
}

fn cpu(answer: &Value) -> String {
    let mut table =
        Table::new(&["THREAD", ">ID", ">CPU (%)", ">RAN (ms)", ">WAITED FOR A CPU (ms)", ">RUNS"]);
    for thread in rows(&answer["threads"]) {
        table.row([
            cell(thread, "name"),
            cell(thread, "tid"),
            scaled(thread, "cpu_percent", 1.0),
            scaled(thread, "cpu_ms", 1.0),
            scaled(thread, "waited_ms", 1.0),
            cell(thread, "runs"),
        ]);
    }
    format!("process {}, {} s\n\n{}", answer["pid"], scaled(answer, "seconds", 1.0), table.render())
}

fn heap(answer: &Value) -> String {
    let lines: String =
        rows(&answer["allocator_statistics"]).map(|line| printable(&word(line)) + "\n").collect();
    format!("{}\n{lines}", names_and_values(&without(answer, &["allocator_statistics"])))
}

/// An object without some of its fields.
fn without(answer: &Value, fields: &[&str]) -> Value {
    let mut answer = answer.clone();
    if let Value::Object(all) = &mut answer {
        all.retain(|field, _| !fields.contains(&field.as_str()));
    }
    answer
}

fn source(answer: &Value) -> String {
    let mut table = Table::new(&[
        "KIND",
        "STATE",
        ">CONTACT (s ago)",
        ">OBJECTS",
        "RESOURCE VERSION",
        ">LISTS",
        ">WATCHES",
        ">FAILURES",
        ">RECEIVED (MiB)",
    ]);
    for kind in rows(answer) {
        table.row([
            cell(kind, "kind"),
            cell(kind, "state"),
            scaled(kind, "seconds_since_contact", 1.0),
            cell(kind, "objects"),
            cell(kind, "resource_version"),
            cell(kind, "lists"),
            cell(kind, "watches"),
            cell(kind, "failures"),
            scaled(kind, "bytes", MIB),
        ]);
    }
    if table.is_empty() {
        return "a folder: it is read as a whole, whenever it changes\n".into();
    }
    table.render()
}

fn problems(answer: &Value) -> String {
    let mut table = Table::new(&["SEVERITY", "WHERE", "WHAT"]);
    for problem in rows(answer) {
        let place = ["file", "line", "column"].map(|field| cell(problem, field));
        let place = place.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":");
        let whole = [place, cell(problem, "object")].into_iter().filter(|part| !part.is_empty());
        let place = whole.collect::<Vec<_>>().join(" ");
        table.row([cell(problem, "severity"), place, cell(problem, "cause")]);
    }
    if table.is_empty() { "none\n".into() } else { table.render() }
}

fn explanation(answer: &Value) -> String {
    let mut text = String::new();
    for (number, step) in rows(&answer["steps"]).enumerate() {
        text.push_str(&format!("{}. {} {}\n", number + 1, cell(step, "question"), cell(step, "answer")));
        rows(&step["detail"]).for_each(|line| text.push_str(&format!("   {}\n", word(line))));
    }
    let mut table = Table::new(&["ENDPOINT", "STATE", "ODDS %", "WHY"]);
    for row in rows(&answer["endpoints"]) {
        table.row(["address", "state", "odds_percent", "why"].map(|field| cell(row, field)));
    }
    format!("{text}\n{}\n{}\n", table.render(), cell(answer, "summary"))
}

/// An object, one line for each of its values; those within another by both names.
fn names_and_values(answer: &Value) -> String {
    let mut table = Table::new(&["NAME", "VALUE"]);
    let mut left: Vec<(String, &Value)> = vec![(String::new(), answer)];
    while let Some((name, value)) = left.pop() {
        let below = |inner: &str| if name.is_empty() { inner.to_owned() } else { format!("{name}.{inner}") };
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                left.extend(fields.iter().rev().map(|(inner, value)| (below(inner), value)));
            }
            Value::Array(values) if values.iter().any(Value::is_object) => {
                let numbered = values.iter().enumerate().rev();
                left.extend(numbered.map(|(index, value)| (below(&index.to_string()), value)));
            }
            Value::Object(_) => table.row([name, String::new()]),
            _ => table.row([name, word(value)]),
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_are_shown_with_what_their_connections_met() {
        let pods = json!([
            { "namespace": "shop", "name": "web", "enrolled": true, "enrolled_for_seconds": 60, "open_connections": 2, "memory_bytes": 1_572_864,
              "connections": { "taken": 7, "agent_silent": 1, "no_endpoint": 2, "udp": 0 } },
            { "namespace": "shop", "name": "db", "enrolled": false, "reason": "no process" },
        ]);
        let text = page_text(Page::Pods, &pods);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            ["shop", "web", "yes", "60", "2", "7", "3", "1.5", "agent_silent", "1,", "no_endpoint", "2"]
        );
        assert_eq!(lines[2], ["shop", "db", "no", "-", "-", "-", "-", "-", "no", "process"]);
    }

    #[test]
    fn an_object_is_shown_value_by_value() {
        let answer = json!({ "ids": { "live": 2, "resting": 0 }, "list": [1, 2], "rows": [{ "a": null }], "none": {} });
        let text = page_text(Page::Config, &answer);
        let lines: Vec<Vec<&str>> =
            text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let expected: [&[&str]; 5] = [
            &["ids.live", "2"],
            &["ids.resting", "0"],
            &["list", "1,", "2"],
            &["none", "-"],
            &["rows.0.a", "-"],
        ];
        assert_eq!(lines, expected);
    }
}
