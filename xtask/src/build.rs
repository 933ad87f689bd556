//! The kernel programs, then the agent that carries them.

use anyhow::Result;

use crate::ebpf;
use crate::process::{run, step};
use crate::setup;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Optimise the agent as the image ships it
    #[arg(long)]
    release: bool,
    /// Build the kernel programs in another folder too and compare the objects
    #[arg(long)]
    verify_reproducible: bool,
}

/// # Errors
/// If something is missing, or a build fails.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    let toolchain = setup::ebpf()?;
    ebpf::build(workspace, &toolchain)?;
    if options.verify_reproducible {
        ebpf::reproducible::verify(workspace, &toolchain)?;
    }
    agent(workspace, options.release)
}

/// Builds the agent and, so that no later step resolves other features, all else that is built for this machine.
///
/// # Errors
/// If the build fails.
pub(crate) fn agent(workspace: &Workspace, release: bool) -> Result<()> {
    step("building the agent");
    let mut cargo = workspace.cargo();
    cargo.arg("build");
    if release {
        cargo.args(["--release", "--package", "evenkeel"]);
    }
    run(&mut cargo)?;
    step(&format!("{}", workspace.agent(release).display()));
    Ok(())
}
