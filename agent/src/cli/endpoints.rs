//! `evenkeel endpoints`: where do my calls go?

use super::output::{Cell, NamespaceArgs, OutputArgs, Paint, Table};
use super::pods::finish;
use super::reach::{Ask, ReachArgs};
use super::session;
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// What `evenkeel endpoints` takes.
#[derive(Args, Debug)]
pub(super) struct EndpointsArgs {
    /// Of the Service of this name alone, or of one port of it, as cart or cart:50051
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// As much of a row of `/endpoints` as is shown.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    node: String,
    service_port: String,
    address: String,
    pod: Option<String>,
    zone: Option<String>,
    active: u64,
    calls: u64,
    failures: u64,
    #[serde(default)]
    ejected_by: u64,
    #[serde(default)]
    ejected: bool,
    #[serde(default)]
    ejections: u64,
    #[serde(default)]
    unhealthy: bool,
    latency_us: Option<u64>,
}

impl Row {
    /// Takes in what another node's agent says of the same endpoint.
    fn add(&mut self, other: &Self) {
        // Each node's average counts as much as its calls.
        let weighed =
            |row: &Self| row.latency_us.map(|latency| (latency as f64 * row.calls as f64, row.calls));
        self.latency_us = match (weighed(self), weighed(other)) {
            (Some((one, calls)), Some((two, more))) if calls + more > 0 => {
                Some(((one + two) / (calls + more) as f64) as u64)
            }
            _ => self.latency_us.or(other.latency_us),
        };
        self.active += other.active;
        self.calls += other.calls;
        self.failures += other.failures;
        self.ejected_by += other.ejected_by;
        self.ejections += other.ejections;
        self.ejected |= other.ejected;
        self.unhealthy |= other.unhealthy;
    }

    fn state(&self) -> Cell {
        match self {
            Self { unhealthy: true, .. } => Cell::painted("unhealthy", Paint::Bad),
            Self { ejected: true, .. } => Cell::painted("ejected", Paint::Bad),
            Self { ejected_by: 1.., .. } => {
                Cell::painted(format!("ejected by {}", self.ejected_by), Paint::Odd)
            }
            _ => Cell::painted("ok", Paint::Good),
        }
    }
}

/// The namespace of `namespace/name:port`.
fn namespace_of(service_port: &str) -> &str {
    service_port.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Whether a Service port is the one of this name, as `name`, `name:port` or with its namespace before it.
pub(super) fn is_of(service_port: &str, wanted: &str) -> bool {
    let own = match wanted.contains('/') {
        true => service_port,
        false => service_port.split_once('/').map_or(service_port, |(_, name)| name),
    };
    own == wanted || !wanted.contains(':') && own.rsplit_once(':').is_some_and(|(name, _)| name == wanted)
}

/// Runs it.
pub(super) fn run(args: &EndpointsArgs) -> Result<ExitCode> {
    let mut told = session::run(session::ask(&args.reach, &[Ask::get("/endpoints").of_list()]))?;
    let names_namespace = args.service.as_deref().is_some_and(|service| service.contains('/'));
    let namespace = args.namespace.chosen(told.namespace.as_deref()).filter(|_| !names_namespace);
    let rows = told.merged(0, |row| {
        let service_port = row["service_port"].as_str().unwrap_or_default();
        namespace.as_deref().is_none_or(|namespace| namespace_of(service_port) == namespace)
            && args.service.as_deref().is_none_or(|service| is_of(service_port, service))
    });
    if let Some(text) = args.output.for_programs(&rows) {
        return told.finish(&text);
    }
    let by_node = args.output.is_wide();
    let table = table(told.rows(&rows), namespace.is_none(), by_node);
    finish(&told, &table, &args.output, "endpoints of captured Service ports", namespace.as_deref())
}

/// An endpoint is a line, with what all nodes' agents count of it together; `by_node`, a line for each node.
fn table(rows: Vec<Row>, with_namespace: bool, by_node: bool) -> Table {
    let mut columns = Vec::new();
    columns.extend(with_namespace.then_some("NAMESPACE"));
    columns.extend(["SERVICE", "ENDPOINT", "POD", "STATE", "ACTIVE", "CALLS", "SHARE", "FAILED", "LATENCY"]);
    if by_node {
        columns.extend(["ZONE", "EJECTIONS", "NODE"]);
    }
    let mut found: BTreeMap<(String, String, String), Row> = BTreeMap::new();
    let mut all_calls: BTreeMap<(String, String), u64> = BTreeMap::new();
    for row in rows {
        let node = if by_node { row.node.clone() } else { String::new() };
        *all_calls.entry((row.service_port.clone(), node.clone())).or_default() += row.calls;
        found
            .entry((row.service_port.clone(), node, row.address.clone()))
            .and_modify(|known| known.add(&row))
            .or_insert(row);
    }
    let mut table = Table::new(columns);
    for ((service_port, node, address), row) in found {
        let all = all_calls.get(&(service_port.clone(), node.clone())).copied().unwrap_or(0);
        let (namespace, name) = service_port.split_once('/').unwrap_or(("", &service_port));
        let mut cells = Vec::new();
        cells.extend(with_namespace.then(|| namespace.into()));
        cells.extend([
            name.into(),
            address.into(),
            // Nearly always of the Service's own namespace.
            row.pod
                .as_deref()
                .map(|pod| pod.strip_prefix(&format!("{namespace}/")).unwrap_or(pod).to_owned())
                .into(),
            row.state(),
            row.active.into(),
            row.calls.into(),
            share(row.calls, all).into(),
            if row.failures > 0 { Cell::painted(row.failures.to_string(), Paint::Bad) } else { 0.into() },
            row.latency_us.map(latency).into(),
        ]);
        if by_node {
            cells.extend([row.zone.clone().into(), row.ejections.into(), node.into()]);
        }
        table.push(cells);
    }
    table
}

/// A part of the whole, in percent; nothing of nothing.
pub(super) fn share(part: u64, of: u64) -> Option<String> {
    (of > 0).then(|| format!("{:.1}%", part as f64 * 100.0 / of as f64))
}

/// A latency for people.
pub(super) fn latency(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..100_000 => format!("{:.1}ms", us as f64 / 1e3),
        100_000..10_000_000 => format!("{}ms", us / 1_000),
        _ => format!("{}s", us / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Palette;
    use serde_json::json;

    fn rows() -> Vec<Row> {
        let row = |node: &str, address: &str, calls: u64, failures: u64, latency: Option<u64>| {
            json!({
                "node": node, "service_port": "shop/cart:80", "address": address, "pod": "shop/cart-1", "active": 1,
                "calls": calls, "failures": failures, "latency_us": latency,
            })
        };
        let mut ejected = row("n2", "10.0.0.2:80", 0, 9, Some(20_000_000));
        ejected["ejected_by"] = 1.into();
        let rows = json!([
            row("n1", "10.0.0.1:80", 30, 0, Some(1_000)),
            row("n2", "10.0.0.1:80", 10, 2, Some(5_000)),
            ejected,
            row("n1", "10.0.0.2:80", 40, 0, None),
        ]);
        serde_json::from_value(rows).unwrap()
    }

    #[test]
    fn an_endpoint_is_a_line_with_what_all_nodes_count_of_it() {
        let shown = table(rows(), true, false).render(true, Palette::Plain);
        let expected = "\
NAMESPACE   SERVICE   ENDPOINT      POD      STATE          ACTIVE   CALLS   SHARE   FAILED   LATENCY
shop        cart:80   10.0.0.1:80   cart-1   ok             2        40      50.0%   2        2.0ms
shop        cart:80   10.0.0.2:80   cart-1   ejected by 1   2        40      50.0%   9        20s
";
        assert_eq!(shown, expected);
        let by_node = table(rows(), false, true).render(true, Palette::Plain);
        assert_eq!(by_node.lines().count(), 5, "{by_node}");
        assert!(by_node.contains("100.0%"), "of what that node calls: {by_node}");
    }

    #[test]
    fn a_service_is_found_by_its_name_with_or_without_namespace_and_port() {
        for (wanted, expected) in [
            ("cart", true),
            ("cart:80", true),
            ("shop/cart", true),
            ("shop/cart:80", true),
            ("car", false),
            ("cart:81", false),
            ("other/cart", false),
            ("shop", false),
        ] {
            assert_eq!(is_of("shop/cart:80", wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn latencies_have_the_unit_that_fits() {
        for (us, expected) in [
            (7, "7µs"),
            (999, "999µs"),
            (1_500, "1.5ms"),
            (99_900, "99.9ms"),
            (250_000, "250ms"),
            (12_000_000, "12s"),
        ] {
            assert_eq!(latency(us), expected);
        }
    }
}
