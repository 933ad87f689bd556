//! Pods, Services, endpoints and where they are from; what a call would become.

use super::cells::{MIB, cell, rows, scaled, word};
use crate::admin::table::{Table, printable};
use evenkeel_common::Reason;
use serde_json::Value;

/// The outcome of a connection that was taken, as the kernel's counters name it.
const TAKEN: &str = Reason::Taken.name();

pub(super) fn pods(answer: &Value) -> String {
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

pub(super) fn services(answer: &Value) -> String {
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

pub(super) fn endpoints(answer: &Value) -> String {
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

pub(super) fn snapshot(answer: &Value) -> String {
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

pub(super) fn source(answer: &Value) -> String {
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

pub(super) fn problems(answer: &Value) -> String {
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

pub(super) fn explanation(answer: &Value) -> String {
    let mut text = String::new();
    for (number, step) in rows(&answer["steps"]).enumerate() {
        let said = [cell(step, "question"), cell(step, "answer")].map(|words| printable(&words));
        let otherwise = if step["hypothetical"] == true { " (if it were otherwise)" } else { "" };
        text.push_str(&format!("{}. {} {}{otherwise}\n", number + 1, said[0], said[1]));
        rows(&step["detail"]).for_each(|line| text.push_str(&format!("   {}\n", printable(&word(line)))));
    }
    let mut table = Table::new(&["ENDPOINT", "STATE", "ODDS %", "WHY"]);
    for row in rows(&answer["endpoints"]) {
        table.row(["address", "state", "odds_percent", "why"].map(|field| cell(row, field)));
    }
    format!("{text}\n{}\n{}\n", table.render(), printable(&cell(answer, "summary")))
}
