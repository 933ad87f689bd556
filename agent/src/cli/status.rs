//! `evenkeel status`: is it on, everywhere?

use super::output::{Cell, OutputArgs, Paint, Palette, Table};
use super::reach::{Ask, ReachArgs};
use super::session::{self, Told, age};
use crate::admin::table::printable;
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
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    ready: bool,
    #[serde(default)]
    seconds: u64,
    #[serde(default)]
    pods: PodCounts,
    #[serde(default)]
    connections: Connections,
    #[serde(default)]
    calls: Calls,
    #[serde(default)]
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
    let asks = [Ask::get("/status").of_object(), Ask::get("/problems").of_list()];
    let mut told = session::run(session::ask(&args.reach, &asks))?;
    if let Some(text) = args.output.for_programs(&for_programs(&told)) {
        return told.finish(&text);
    }
    let text = text(&mut told, &args.output, Palette::of_stdout());
    told.finish(&text)
}

fn for_programs(told: &Told) -> Value {
    let nodes = told.nodes.iter().map(|node| {
        let mut status = node.answer(0).cloned().unwrap_or_else(|| json!({}));
        if let Value::Object(fields) = &mut status {
            fields.insert("problems".to_owned(), node.answer(1).cloned().unwrap_or_default());
        }
        session::with_node(status, &node.node)
    });
    nodes.collect()
}

fn text(told: &mut Told, output: &OutputArgs, palette: Palette) -> String {
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
    let width = columns.len();
    let mut table = Table::new(columns);
    let mut below = String::new();
    let mut lacking = Vec::new();
    for node in &told.nodes {
        let problems = node.answer(1).map(Vec::<Problem>::deserialize).transpose();
        let problems = problems.unwrap_or_else(|error| {
            lacking.push((node.node.clone(), format!("its /problems is not an agent's: {error}")));
            None
        });
        below.push_str(&problem_lines(&node.node, &problems.unwrap_or_default(), palette));
        let status = match node.answer(0).map(Status::deserialize) {
            Some(Ok(status)) => status,
            other => {
                if let Some(Err(error)) = other {
                    lacking.push((node.node.clone(), format!("its /status is not an agent's: {error}")));
                }
                let unknown = || Cell::painted("<unknown>", Paint::Bad);
                table.push(std::iter::once(node.node.as_str().into()).chain((1..width).map(|_| unknown())));
                continue;
            }
        };
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
    }
    for (node, why) in lacking {
        told.lack(&node, &why);
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
        let line = printable(&format!("{about}{}", problem.cause));
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
        let mut told = told(&[
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

node-1: Pod shop/a: no. 0\\u{1b}
node-1: Pod shop/a: no. 1\\u{1b}
node-1: Pod shop/a: no. 2\\u{1b}
node-1: Pod shop/a: no. 3\\u{1b}
node-1: Pod shop/a: no. 4\\u{1b}
node-1: and 1 more (-o yaml)
";
        assert_eq!(text(&mut told, &OutputArgs::default(), Palette::Plain), expected);
        assert!(!told.incomplete);
        assert_eq!(for_programs(&told)[0]["node"], "node-1");
        assert_eq!(for_programs(&told)[0]["problems"].as_array().unwrap().len(), 6);
    }

    #[test]
    fn what_a_node_has_not_said_is_unknown_and_not_naught() {
        let good = json!({"version": "0.1.0", "ready": true});
        for (answers, is_lacking, is_known) in [
            (&[json!({"status": "ok"}), json!([])][..], true, false),
            (&[json!({"version": "0.1.0", "ready": true, "seconds": "7"}), json!([])], true, false),
            // Which was said where it was asked.
            (&[], false, false),
            (&[good.clone(), json!([17])], true, true),
            (&[good, json!([])], false, true),
        ] {
            let mut told = told(&[("n1", answers)]);
            let shown = text(&mut told, &OutputArgs::default(), Palette::Plain);
            let line: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
            assert_eq!(line[1..].iter().all(|word| *word == "<unknown>"), !is_known, "{shown}");
            assert_eq!(told.incomplete, is_lacking, "{answers:?}");
        }
    }
}
