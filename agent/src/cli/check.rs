//! `evenkeel check`.

use super::output::print;
use crate::admin::table::printable;
use crate::config::{ClusterArgs, ClusterConfig};
use crate::kernel::check::probe;
use crate::sources::kubernetes::Access;
use crate::sources::kubernetes::permissions::{Finding, check};
use crate::sources::kubernetes::write_back::Wishes;
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `evenkeel check` takes.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// The cgroup2 folder that the agent would attach at; by default the root of cgroup2
    #[arg(long, env = "EVENKEEL_CGROUP", value_name = "DIR")]
    cgroup: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A line of the answer.
struct Line {
    name: String,
    ok: bool,
    needed: bool,
    detail: String,
    remedy: String,
}

/// Prints what the node has and lacks; fails if something that the agent needs is missing.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn run(args: CheckArgs) -> Result<ExitCode> {
    let mut lines: Vec<Line> = probe(args.cgroup.as_deref())
        .into_iter()
        .map(|probe| Line {
            name: probe.name.into(),
            ok: probe.ok,
            needed: probe.needed,
            detail: probe.detail,
            remedy: probe.remedy.into(),
        })
        .collect();
    lines.extend(of_cluster(args.cluster.as_given()));
    let width = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        let (name, detail) = (&line.name, printable(&line.detail));
        text.push_str(&format!("{:<5}  {name:<width$}  {detail}\n", verdict(line)));
        if !line.remedy.is_empty() {
            text.push_str(&format!("{:<5}  {:<width$}  → {}\n", "", "", printable(&line.remedy)));
        }
    }
    let missing = lines.iter().filter(|line| !line.ok && line.needed).count();
    text.push_str(&match missing {
        0 => "\nThe agent can run here.\n".to_owned(),
        missing => format!("\nThe agent cannot run here: {missing} of what it needs is missing.\n"),
    });
    print(&text)?;
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the API server says, where there is one to ask: in a pod, or with a kubeconfig.
fn of_cluster(config: ClusterConfig) -> Vec<Line> {
    if config.kubeconfig.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
        return vec![Line {
            name: "API server".into(),
            ok: true,
            needed: false,
            detail: "not asked: neither in a pod nor with --kubeconfig".into(),
            remedy: String::new(),
        }];
    }
    let ClusterConfig { kubeconfig, node_name, startup_taint, label_pods, .. } = config;
    let wishes = Wishes { startup_taint, label_pods };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let findings = match runtime {
        Ok(runtime) => runtime.block_on(check(&Access { kubeconfig }, node_name.as_deref(), &wishes)),
        Err(error) => vec![Finding {
            what: "API server",
            needed: true,
            outcome: Err(format!("can't be asked: {error}")),
            remedy: String::new(),
        }],
    };
    let line = |Finding { what, needed, outcome, remedy }| {
        let ok = outcome.is_ok();
        Line { name: String::from(what), ok, needed, detail: outcome.unwrap_or_else(|lacks| lacks), remedy }
    };
    findings.into_iter().map(line).collect()
}

fn verdict(Line { ok, needed, .. }: &Line) -> &'static str {
    match (ok, needed) {
        (true, _) => "ok",
        (false, true) => "LACKS",
        (false, false) => "note",
    }
}
