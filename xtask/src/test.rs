//! Every test: units, the suites that need a kernel, and those with the peers.

use std::env;

use anyhow::{Result, ensure};

use crate::process::{is_root, run, step};
use crate::workspace::Workspace;
use crate::{build, ebpf, setup};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for `cargo test`: a filter, `-p PACKAGE`, `--test SUITE`, `-- …`; without any, everything runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// # Errors
/// If we are not root, something is missing, a build fails, or a test does.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "the kernel suites make network namespaces and cgroups and load BPF programs: run them as root, \
         or run `cargo test -p evenkeel` for what needs none of it"
    );
    let toolchain = setup::everything()?;
    ebpf::build(workspace, &toolchain)?;
    build::agent(workspace, false)?;
    // Slow, and nothing that a person changes by chance: in full runs only.
    if options.arguments.is_empty() && env::var_os("CI").is_some() {
        ebpf::reproducible::verify(workspace, &toolchain)?;
    }
    step("running the tests");
    run(workspace
        .cargo()
        .env("EVENKEEL_BIN", workspace.agent(false))
        .args(["test", "--no-fail-fast"])
        .args(&options.arguments))
}
