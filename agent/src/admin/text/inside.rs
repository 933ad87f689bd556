//! What there is to look at; worker threads, the kernel's side, the process.

use super::cells::{KIB, cell, names_and_values, rows, scaled, without, word};
use crate::admin::table::{Table, printable};
use serde_json::Value;

pub(super) fn index(answer: &Value) -> String {
    let mut table = Table::new(&["PATH", "METHODS", "PARAMETERS", "WHAT"]);
    for row in rows(answer) {
        let parameters: Vec<_> = rows(&row["parameters"]).map(|parameter| cell(parameter, "name")).collect();
        table.row([cell(row, "path"), cell(row, "methods"), parameters.join(", "), cell(row, "summary")]);
    }
    table.render()
}

pub(super) fn workers(answer: &Value) -> String {
    let mut table =
        Table::new(&[">WORKER", ">CONNECTIONS", ">CALLS OPEN", ">BUSY (%)", ">LAST ALIVE (ms ago)"]);
    for worker in rows(&answer["workers"]) {
        let fields = ["worker", "connections", "calls_open", "busy_percent", "silent_ms"];
        table.row(fields.map(|field| cell(worker, field)));
    }
    format!("{}\n{}", table.render(), names_and_values(&without(answer, &["workers"])))
}

pub(super) fn kernel(answer: &Value) -> String {
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

pub(super) fn cpu(answer: &Value) -> String {
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

pub(super) fn heap(answer: &Value) -> String {
    let lines: String =
        rows(&answer["allocator_statistics"]).map(|line| printable(&word(line)) + "\n").collect();
    format!("{}\n{lines}", names_and_values(&without(answer, &["allocator_statistics"])))
}
