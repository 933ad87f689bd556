//! `evenkeel status`: is it on, everywhere?

use super::output::{Cell, OutputArgs, Paint, Palette, Table};
use super::reach::{Ask, ReachArgs};
use super::session::{self, Told, age};
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Problems of a node that are shown below the table.
const PROBLEMS_SHOWN: usize = 5;

/// What `evenkeel status` takes.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    reach: ReachArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// As much of `/status` as is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    version: String,
    ready: bool,
    seconds: u64,
    pods: PodCounts,
    connections: Connections,
    calls: Calls,
    problems: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodCounts {
    enrolled: u64,
    waiting: u64,
    refused: u64,
    not_asked: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Connections {
    open: u64,
    taken: u64,
    straight: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Calls {
    begun: u64,
    failed: u64,
    active: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    severity: String,
    object: Option<String>,
    file: Option<String>,
    cause: String,
}

/// Runs it.
pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let told = session::run(session::ask(&args.reach, &[Ask::get("/status"), Ask::get("/problems")]))?;
    if let Some(text) = args.output.for_programs(&for_programs(&told)) {
        return told.finish(&text);
    }
    let text = text(&told, &args.output, Palette::of_stdout());
    told.finish(&text)
}

fn for_programs(told: &Told) -> Value {
    let nodes = told.nodes.iter().map(|node| {
        let mut status = node.answer(0).cloned().unwrap_or_else(|| json!({}));
        status["node"] = node.node.clone().into();
        status["problems"] = node.answer(1).cloned().unwrap_or_default();
        status
    });
    nodes.collect()
}

fn text(told: &Told, output: &OutputArgs, palette: Palette) -> String {
    let mut columns = vec![
        "NODE",
        "READY",
        "VERSION",
        "ENROLLED",
        "WAITING",
        "REFUSED",
        "CONNECTIONS",
        "CALLS",
        "FAILED",
        "PROBLEMS",
        "AGE",
    ];
    if output.is_wide() {
        columns.extend(["NOT-ASKED", "TAKEN", "STRAIGHT", "ACTIVE"]);
    }
    let mut table = Table::new(columns);
    let mut below = String::new();
    for node in &told.nodes {
        let status = node.answer(0).and_then(|status| Status::deserialize(status).ok()).unwrap_or_default();
        let mut row = vec![
            Cell::from(node.node.as_str()),
            if status.ready { Cell::painted("yes", Paint::Good) } else { Cell::painted("no", Paint::Bad) },
            status.version.as_str().into(),
            status.pods.enrolled.into(),
            counted(status.pods.waiting, Paint::Odd),
            counted(status.pods.refused, Paint::Odd),
            status.connections.open.into(),
            status.calls.begun.into(),
            counted(status.calls.failed, Paint::Bad),
            counted(status.problems, Paint::Bad),
            age(status.seconds).into(),
        ];
        if output.is_wide() {
            let more = [
                status.pods.not_asked,
                status.connections.taken,
                status.connections.straight,
                status.calls.active,
            ];
            row.extend(more.map(Cell::from));
        }
        table.push(row);
        let problems = node
            .answer(1)
            .and_then(|problems| Vec::<Problem>::deserialize(problems).ok())
            .unwrap_or_default();
        below.push_str(&problem_lines(&node.node, &problems, palette));
    }
    if table.is_empty() {
        return String::new();
    }
    let mut text = output.table(&table, palette);
    if !below.is_empty() {
        text.push('\n');
        text.push_str(&below);
    }
    text
}

fn counted(count: u64, paint: Paint) -> Cell {
    if count == 0 { count.into() } else { Cell::painted(count.to_string(), paint) }
}

fn problem_lines(node: &str, problems: &[Problem], palette: Palette) -> String {
    let mut text = String::new();
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        let paint = if problem.severity.eq_ignore_ascii_case("error") { Paint::Bad } else { Paint::Odd };
        let about = problem.object.as_deref().or(problem.file.as_deref());
        let about = about.map(|about| format!("{about}: ")).unwrap_or_default();
        let line: String = format!("{about}{}", problem.cause)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        text.push_str(&format!("{}: {line}\n", palette.paint(node, paint)));
    }
    if problems.len() > PROBLEMS_SHOWN {
        text.push_str(&format!("{node}: and {} more (-o yaml)\n", problems.len() - PROBLEMS_SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::session::told;

    #[test]
    fn a_node_is_a_line_and_its_problems_follow() {
        let problem = |cause: String| json!({"severity": "warning", "object": "Pod shop/a", "cause": cause});
        let told = told(&[
            (
                "node-1",
                &[
                    json!({
                        "version": "0.1.0", "ready": true, "seconds": 7_300,
                        "pods": {"enrolled": 12, "waiting": 1, "refused": 0, "not_asked": 4},
                        "connections": {"open": 30, "taken": 40, "straight": 2},
                        "calls": {"begun": 123_456, "failed": 7, "active": 3}, "problems": 6,
                        "of a later version": {"is": "passed over"},
                    }),
                    (0..6).map(|number| problem(format!("no. {number}\u{1b}"))).collect(),
                ],
            ),
            ("n2", &[json!({"version": "0.1.0", "ready": false}), json!([])]),
        ]);
        let expected = "\
NODE     READY   VERSION   ENROLLED   WAITING   REFUSED   CONNECTIONS   CALLS    FAILED   PROBLEMS   AGE
node-1   yes     0.1.0     12         1         0         30            123456   7        6          2h
n2       no      0.1.0     0          0         0         0             0        0        0          0s

node-1: Pod shop/a: no. 0 \nnode-1: Pod shop/a: no. 1 \nnode-1: Pod shop/a: no. 2 \nnode-1: Pod shop/a: no. 3 \nnode-1: Pod shop/a: no. 4 \nnode-1: and 1 more (-o yaml)\n";
        assert_eq!(text(&told, &OutputArgs::default(), Palette::Plain), expected);
        assert_eq!(for_programs(&told)[0]["node"], "node-1");
        assert_eq!(for_programs(&told)[0]["problems"].as_array().unwrap().len(), 6);
    }
}
