//! The Helm chart's checks, and what the kustomize base takes from it: [`tools`] builds helm and kustomize, [`base`] keeps
//! the base in step with the chart. What the chart renders is tested in `tests/tests/chart/`.

mod base;
mod tools;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process::{answer, step};
use crate::workspace::Workspace;
pub(crate) use tools::Tools;

/// Names the folder of helm and kustomize to the tests.
pub(crate) const TOOLS_VARIABLE: &str = "EVENKEEL_CHART_TOOLS";

#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Write what the kustomize base takes from the chart, instead of comparing it
    #[arg(long)]
    write: bool,
}

/// # Errors
/// If a tool is missing and cannot be built, the chart has a flaw, or the kustomize base is not the chart's.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    let tools = Tools::find_or_build(workspace)?;
    lint(workspace, &tools)?;
    if options.write { base::write(workspace, &tools) } else { base::compare(workspace, &tools) }
}

/// `helm lint`, with the default values and with each of the examples.
fn lint(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let chart = chart(workspace);
    let examples = chart.join("ci");
    let mut values = vec![chart.join("values.yaml")];
    for entry in fs::read_dir(&examples).with_context(|| format!("cannot read {}", examples.display()))? {
        values.push(entry?.path());
    }
    values.sort();
    for values in values {
        answer(tools.helm().args(["lint", "--strict", "--quiet"]).arg(&chart).arg("--values").arg(&values))
            .with_context(|| format!("the chart with {}", values.display()))?;
    }
    step("the chart has no flaw that helm finds");
    Ok(())
}

fn chart(workspace: &Workspace) -> PathBuf {
    workspace.root.join("deploy/helm/evenkeel")
}
