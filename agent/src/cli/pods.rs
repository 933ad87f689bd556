//! `evenkeel pods`: is it on for my pods, and if not, why?

use super::output::{Cell, NamespaceArgs, OutputArgs, Paint, Palette, Table, say};
use super::reach::{Ask, ReachArgs};
use super::session::{self, Told, age, nothing};
use crate::admin::table::printable;
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// What `evenkeel pods` takes.
#[derive(Args, Debug)]
#[command(mut_arg("pod", |pod| pod.help("This pod alone, of the agent of the node that it runs on")))]
pub(super) struct PodsArgs {
    /// Only those that are enrolled, or only those that are not
    #[arg(long, value_name = "true|false")]
    enrolled: Option<bool>,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// As much of a row of `/pods` as is shown.
#[derive(Debug, Deserialize)]
struct Row {
    node: String,
    namespace: String,
    name: String,
    #[serde(default)]
    addresses: Vec<String>,
    enrol: bool,
    #[serde(default)]
    enrolled: bool,
    reason: Option<String>,
    since_unix_seconds: Option<u64>,
    waiting_seconds: Option<u64>,
    #[serde(default)]
    connections: BTreeMap<String, u64>,
    open_connections: Option<u64>,
    memory_bytes: Option<u64>,
    opened_before: Option<u64>,
}

impl Row {
    fn taken(&self) -> u64 {
        self.connections.get("taken").copied().unwrap_or(0)
    }

    /// Connections to Service ports of ours that went straight all the same: what is dialled elsewhere is not among them.
    fn missed(&self) -> impl Iterator<Item = (&String, u64)> {
        const OTHERS: [&str; 3] = ["taken", "unknown_destination", "own_mark"];
        let counts = self.connections.iter().map(|(reason, count)| (reason, *count));
        counts.filter(|(reason, count)| *count > 0 && !OTHERS.contains(&reason.as_str()))
    }

    /// Why it is not enrolled, or what its connections met that were not taken.
    fn why(&self) -> String {
        match &self.reason {
            Some(reason) => reason.clone(),
            None => self
                .missed()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }

    fn state(&self) -> Cell {
        match (self.enrolled, self.enrol) {
            (true, _) => Cell::painted("yes", Paint::Good),
            (false, true) => Cell::painted("waiting", Paint::Odd),
            (false, false) => Cell::painted("no", Paint::Faint),
        }
    }
}

/// Runs it.
pub(super) fn run(args: &PodsArgs) -> Result<ExitCode> {
    let mut told = session::run(session::ask(&args.reach, &[Ask::get("/pods").of_list()]))?;
    let namespace = match &args.reach.pod {
        Some(_) => None,
        None => args.namespace.chosen(told.namespace.as_deref()),
    };
    let wanted = |row: &Value| {
        let is = |key: &str, expected: &str| row[key] == expected;
        namespace.as_deref().is_none_or(|namespace| is("namespace", namespace))
            && args.enrolled.is_none_or(|enrolled| enrolled == (row["enrolled"] == true))
            && args
                .reach
                .pod
                .as_ref()
                .is_none_or(|pod| is("namespace", &pod.0.namespace) && is("name", &pod.0.name))
    };
    let rows = told.merged(0, wanted);
    if let Some(text) = args.output.for_programs(&rows) {
        return told.finish(&text);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let with_node = told.are_several() || args.output.is_wide();
    let table = table(&told.rows(&rows), namespace.is_none(), with_node, args.output.is_wide(), now);
    finish(&told, &table, &args.output, "pods", namespace.as_deref())
}

/// Prints a table, or that there is nothing to show.
pub(super) fn finish(
    told: &Told,
    table: &Table,
    output: &OutputArgs,
    what: &str,
    namespace: Option<&str>,
) -> Result<ExitCode> {
    if table.is_empty() && !told.nodes.is_empty() {
        // Where a script reads, there is nothing to read.
        say(&printable(&nothing(what, namespace)));
        return told.finish("");
    }
    match table.is_empty() {
        true => told.finish(""),
        false => told.finish(&output.table(table, Palette::of_stdout())),
    }
}

fn table(rows: &[Row], with_namespace: bool, with_node: bool, is_wide: bool, now: u64) -> Table {
    let mut columns = Vec::new();
    columns.extend(with_namespace.then_some("NAMESPACE"));
    columns.extend(["NAME", "ENROLLED", "SINCE", "OPEN", "TAKEN", "MISSED"]);
    columns.extend(with_node.then_some("NODE"));
    if is_wide {
        columns.extend(["ADDRESSES", "OPENED-BEFORE", "MEMORY"]);
    }
    columns.push("WHY");
    let mut table = Table::new(columns);
    for row in rows {
        let since = row.since_unix_seconds.map(|since| now.saturating_sub(since)).or(row.waiting_seconds);
        let number = |number: Option<u64>| Cell::from(number.map(|number| number.to_string()));
        let of_enrolled = |count: u64| number(row.enrolled.then_some(count));
        let mut cells = Vec::new();
        cells.extend(with_namespace.then(|| row.namespace.as_str().into()));
        cells.extend([
            row.name.as_str().into(),
            row.state(),
            since.map(age).into(),
            number(row.open_connections),
            of_enrolled(row.taken()),
            of_enrolled(row.missed().map(|(_, count)| count).sum()),
        ]);
        cells.extend(with_node.then(|| row.node.as_str().into()));
        if is_wide {
            cells.extend([
                row.addresses.join(",").into(),
                number(row.opened_before),
                row.memory_bytes.map(|bytes| format!("{}Ki", bytes / 1024)).into(),
            ]);
        }
        cells.push(row.why().into());
        table.push(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Vec<Row> {
        let rows = json!([
            {
                "node": "n1", "namespace": "shop", "name": "cart-1", "uid": "u", "addresses": ["10.0.0.1", "fd00::1"],
                "enrol": true, "enrolled": true, "on_enrol": "keep", "since_unix_seconds": 1_000,
                "connections": {"taken": 4, "unknown_destination": 90, "no_endpoint": 2, "own_mark": 8, "agent_silent": 1},
                "open_connections": 3, "memory_bytes": 65_536, "opened_before": 5,
            },
            {"node": "n1", "namespace": "shop", "name": "new", "enrol": true, "enrolled": false, "reason": "no process", "waiting_seconds": 3},
            {"node": "n2", "namespace": "other", "name": "x", "enrol": false, "reason": "the pod's label says no"},
        ]);
        serde_json::from_value(rows).unwrap()
    }

    #[test]
    fn a_pod_is_a_line_that_says_why() {
        let shown = table(&rows(), true, false, false, 1_060).render(true, Palette::Plain);
        let expected = "\
NAMESPACE   NAME     ENROLLED   SINCE    OPEN     TAKEN    MISSED   WHY
shop        cart-1   yes        60s      3        4        3        agent_silent 1, no_endpoint 2
shop        new      waiting    3s       <none>   <none>   <none>   no process
other       x        no         <none>   <none>   <none>   <none>   the pod's label says no
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn wide_has_more() {
        let shown = table(&rows(), false, true, true, 1_060).render(true, Palette::Plain);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "NAME     ENROLLED   SINCE    OPEN     TAKEN    MISSED   NODE   ADDRESSES          OPENED-BEFORE   MEMORY   WHY",
                "cart-1   yes        60s      3        4        3        n1     10.0.0.1,fd00::1   5               64Ki     agent_silent 1, no_endpoint 2",
            ]
        );
    }
}
