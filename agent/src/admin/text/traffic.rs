//! Connections and calls.

use super::cells::{KIB, cell, rows, scaled, word};
use crate::admin::table::Table;
use serde_json::Value;

pub(super) fn connections(answer: &Value) -> String {
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

pub(super) fn streams(answer: &Value) -> String {
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

/// What of the rows is missing, a line each.
fn completeness(answer: &Value) -> String {
    let mut text = String::new();
    if answer["cut"] == true {
        text += &format!(
            "\nof {}: ask for some of them (pod, service, …), or for more (limit)\n",
            answer["total"]
        );
    }
    for worker in rows(&answer["silent_workers"]) {
        text += &format!(
            "\nworker {worker} has not answered within a second: it hangs, and what it has is missing\n"
        );
    }
    text
}

pub(super) fn calls(answer: &Value) -> String {
    let by: Vec<_> = rows(&answer["by"]).map(word).collect();
    // What is summed up has no column.
    let columns: Vec<&CallsColumn> =
        CALLS_BY.iter().filter(|(of, ..)| by.iter().any(|by| by == of)).collect();
    let titles: Vec<_> = columns.iter().map(|(_, title, _)| *title).chain(CALLS_COUNTS).collect();
    let mut table = Table::new(&titles);
    let counts = |row: &Value| {
        [
            cell(row, "calls"),
            cell(row, "failures"),
            cell(row, "attempts"),
            scaled(&row["latency"], "p50_ms", 1.0),
            scaled(&row["latency"], "p99_ms", 1.0),
            scaled(row, "request_bytes", KIB),
            scaled(row, "response_bytes", KIB),
            format!("{}/{}", cell(row, "request_messages"), cell(row, "response_messages")),
        ]
    };
    for row in rows(&answer["calls"]) {
        table.row(columns.iter().map(|(_, _, of)| of(row)).chain(counts(row)));
    }
    if answer["others"].is_object() {
        let names = columns.iter().enumerate();
        let names = names.map(|(column, _)| if column == 0 { "(others)".to_owned() } else { String::new() });
        table.row(names.chain(counts(&answer["others"])));
    }
    table.render() + &completeness(answer)
}

/// A column of `/calls`: what of `by` it is of, its title, and its cell of a row.
type CallsColumn = (&'static str, &'static str, fn(&Value) -> String);

const CALLS_BY: [CallsColumn; 8] = [
    ("pod", "POD", |row| of_namespace(row, "pod")),
    ("workload", "WORKLOAD", |row| of_namespace(row, "workload")),
    ("service", "SERVICE", |row| cell(row, "service")),
    ("method", "METHOD", |row| cell(row, "method")),
    ("endpoint", "ENDPOINT", |row| cell(row, "endpoint")),
    ("endpoint", "ENDPOINT POD", |row| cell(row, "endpoint_pod")),
    // A gRPC call's status says more than that of the response which it came in.
    ("status", "STATUS", |row| match row["grpc_status"].is_null() {
        true => cell(row, "http_status"),
        false => format!("grpc {}", row["grpc_status"]),
    }),
    ("status", "WHAT WENT WRONG", |row| cell(row, "flag")),
];

const CALLS_COUNTS: [&str; 8] = [
    ">CALLS",
    ">FAILED",
    ">ATTEMPTS",
    ">P50 (ms)",
    ">P99 (ms)",
    ">REQUESTS (KiB)",
    ">RESPONSES (KiB)",
    ">MESSAGES",
];

fn of_namespace(row: &Value, field: &str) -> String {
    if row[field].is_string() {
        format!("{}/{}", cell(row, "namespace"), cell(row, field))
    } else {
        String::new()
    }
}
