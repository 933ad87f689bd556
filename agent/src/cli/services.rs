//! `evenkeel services`: which Service ports are balanced, and why not the others?

use super::output::{Cell, NamespaceArgs, OutputArgs, Paint, Table};
use super::pods::finish;
use super::reach::{Ask, ReachArgs};
use super::session;
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::process::ExitCode;

/// What `evenkeel services` takes.
#[derive(Args, Debug)]
pub(super) struct ServicesArgs {
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// As much of a row of `/services` as is shown.
#[derive(Debug, Deserialize)]
struct Service {
    namespace: String,
    name: String,
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    picker: String,
    hash_on: Option<String>,
    ports: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Port {
    port: u16,
    name: String,
    captured: Vec<String>,
    straight: Vec<String>,
    endpoints: u64,
    unused: Vec<Value>,
}

impl Port {
    fn balanced(&self) -> Cell {
        match (self.captured.is_empty(), self.straight.is_empty()) {
            (false, true) => Cell::painted("yes", Paint::Good),
            (false, false) => Cell::painted("partly", Paint::Odd),
            (true, _) => Cell::painted("no", Paint::Faint),
        }
    }
}

/// Runs it.
pub(super) fn run(args: &ServicesArgs) -> Result<ExitCode> {
    let mut told = session::run(session::ask(&args.reach, &[Ask::get("/services").of_list()]))?;
    let namespace = args.namespace.chosen(told.namespace.as_deref());
    let rows =
        told.merged(0, |row| namespace.as_deref().is_none_or(|namespace| row["namespace"] == namespace));
    if let Some(text) = args.output.for_programs(&rows) {
        return told.finish(&text);
    }
    let services = told.rows(&rows);
    let table = table(&services, namespace.is_none(), told.nodes.len(), args.output.is_wide());
    finish(&told, &table, &args.output, "Services", namespace.as_deref())
}

/// Nodes see a Service alike, but for which endpoints are near: what is the same is one line, with the number of nodes that say so.
fn table(services: &[Service], with_namespace: bool, nodes: usize, is_wide: bool) -> Table {
    let mut columns = Vec::new();
    columns.extend(with_namespace.then_some("NAMESPACE"));
    columns.extend(["NAME", "PORT", "BALANCED", "PICKER", "ENDPOINTS", "UNUSED"]);
    columns.extend((nodes > 1).then_some("NODES"));
    columns.extend(is_wide.then_some("ADDRESSES"));
    columns.push("WHY");
    let mut lines: BTreeMap<Vec<String>, (Vec<Cell>, u64)> = BTreeMap::new();
    for service in services {
        for port in &service.ports {
            let picker = match &service.hash_on {
                Some(hash_on) => format!("{} ({hash_on})", service.picker),
                None => service.picker.clone(),
            };
            let name = match port.name.as_str() {
                "" => port.port.to_string(),
                name => format!("{}/{name}", port.port),
            };
            let key = vec![
                service.namespace.clone(),
                service.name.clone(),
                format!("{:05}", port.port),
                port.endpoints.to_string(),
                port.unused.len().to_string(),
                port.straight.join("; "),
                port.captured.join(","),
                picker.clone(),
            ];
            let vacant = match lines.entry(key) {
                Entry::Occupied(mut known) => {
                    known.get_mut().1 += 1;
                    continue;
                }
                Entry::Vacant(vacant) => vacant,
            };
            let mut cells = Vec::new();
            cells.extend(with_namespace.then(|| service.namespace.as_str().into()));
            cells.extend([
                service.name.as_str().into(),
                name.into(),
                port.balanced(),
                picker.into(),
                port.endpoints.into(),
                (port.unused.len() as u64).into(),
            ]);
            cells.extend((nodes > 1).then(Cell::default));
            cells.extend(is_wide.then(|| service.addresses.join(",").into()));
            cells.push(port.straight.join("; ").into());
            vacant.insert((cells, 1));
        }
    }
    let nodes_at = columns.iter().position(|column| *column == "NODES");
    let mut table = Table::new(columns);
    for (mut cells, count) in lines.into_values() {
        if let Some(at) = nodes_at {
            cells[at] = format!("{count}/{nodes}").into();
        }
        table.push(cells);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Palette;
    use serde_json::json;

    fn cart(endpoints: u64) -> Service {
        let cart = json!({
            "namespace": "shop", "name": "cart", "addresses": ["10.96.0.1"], "picker": "ring-hash", "hash_on": "header:x-user",
            "ports": [
                {"port": 50051, "name": "grpc", "captured": ["10.96.0.1:50051"], "endpoints": endpoints, "unused": [{}]},
                {"port": 80, "name": "", "captured": [], "straight": ["not gRPC: a", "b"], "endpoints": 0},
            ],
        });
        serde_json::from_value(cart).unwrap()
    }

    #[test]
    fn a_port_is_a_line_and_what_nodes_see_alike_is_one() {
        let shown = table(&[cart(3), cart(3), cart(2)], true, 3, false);
        let expected = "\
NAMESPACE   NAME   PORT         BALANCED   PICKER                      ENDPOINTS   UNUSED   NODES   WHY
shop        cart   80           no         ring-hash (header:x-user)   0           0        3/3     not gRPC: a; b
shop        cart   50051/grpc   yes        ring-hash (header:x-user)   2           1        1/3     <none>
shop        cart   50051/grpc   yes        ring-hash (header:x-user)   3           1        2/3     <none>
";
        assert_eq!(shown.render(true, Palette::Plain), expected);
        let of_one = table(&[cart(3)], false, 1, true).render(true, Palette::Plain);
        assert!(of_one.starts_with("NAME   PORT         BALANCED   PICKER "), "{of_one}");
        assert!(of_one.contains("10.96.0.1"), "{of_one}");
    }
}
