//! `evenkeel check`.

use crate::kernel::check::{Probe, probe};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `evenkeel check` takes.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The cgroup2 folder that the agent would attach at; by default the root of cgroup2
    #[arg(long, env = "EVENKEEL_CGROUP", value_name = "DIR")]
    cgroup: Option<PathBuf>,
}

/// Prints what the node has and lacks; fails if something that the agent needs is missing.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let probes = probe(args.cgroup.as_deref());
    let width = probes.iter().map(|probe| probe.name.len()).max().unwrap_or(0);
    for probe in &probes {
        println!("{:<5}  {:<width$}  {}", verdict(probe), probe.name, probe.detail);
        if !probe.remedy.is_empty() {
            println!("{:<5}  {:<width$}  → {}", "", "", probe.remedy);
        }
    }
    match probes.iter().filter(|probe| !probe.ok && probe.needed).count() {
        0 => {
            println!("\nThe agent can run here.");
            ExitCode::SUCCESS
        }
        missing => {
            println!("\nThe agent cannot run here: {missing} of what it needs is missing.");
            ExitCode::FAILURE
        }
    }
}

fn verdict(Probe { ok, needed, .. }: &Probe) -> &'static str {
    match (ok, needed) {
        (true, _) => "ok",
        (false, true) => "LACKS",
        (false, false) => "note",
    }
}
