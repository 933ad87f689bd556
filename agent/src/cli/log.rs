//! `evenkeel log`: what the agents log, and a change of it while they run.

use super::output::{OutputArgs, Palette, Table};
use super::reach::{Ask, ReachArgs};
use super::session;
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// What `evenkeel log` takes.
#[derive(Args, Debug)]
pub(super) struct LogArgs {
    /// What is to be logged from now on: error, warn, info, debug or trace, also per module, as info,evenkeel::proxy=debug; without it,
    /// what is logged now is shown
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    reach: ReachArgs,
}

/// Runs it.
pub(super) fn run(args: &LogArgs) -> Result<ExitCode> {
    let ask = match &args.filter {
        None => Ask::get("/log").of_object(),
        Some(filter) => Ask::put("/log", filter.as_str()).of_object(),
    };
    let told = session::run(session::ask(&args.reach, &[ask]))?;
    let rows: serde_json::Value = told
        .nodes
        .iter()
        .filter_map(|node| Some(session::with_node(node.answer(0)?.clone(), &node.node)))
        .collect();
    if let Some(text) = args.output.for_programs(&rows) {
        return told.finish(&text);
    }
    let mut table = Table::new(["NODE", "FILTER", "AT-START"]);
    for row in rows.as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        table.push([text("node").into(), text("filter").into(), text("start_filter").into()]);
    }
    match table.is_empty() {
        true => told.finish(""),
        false => told.finish(&args.output.table(&table, Palette::of_stdout())),
    }
}
