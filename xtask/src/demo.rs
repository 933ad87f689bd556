//! The demo: pods as network namespaces, real gRPC servers and a client, the agent built from this clone.

use anyhow::{Result, ensure};

use crate::process::{become_program, is_root, step};
use crate::workspace::Workspace;
use crate::{build, ebpf, setup};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for the demo itself
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// # Errors
/// If we are not root, something is missing, a build fails, or the demo does not go as it should.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "the demo makes network namespaces and cgroups and loads BPF programs: run it as root"
    );
    ebpf::build(workspace, &setup::everything()?)?;
    build::agent(workspace, false)?;
    step("running the demo");
    become_program(
        workspace
            .cargo()
            .env("EVENKEEL_BIN", workspace.agent(false))
            // With the same selection as `build`'s, so that nothing is built again.
            .args(["run", "--quiet", "--bin", "demo", "--"])
            .args(&options.arguments),
    )
}
