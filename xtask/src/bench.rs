//! What a call costs, beside other proxies: builds the agent as the image ships it, then runs `evenkeel-bench`.

use anyhow::Result;

use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for the benchmark: see `cargo xtask bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn start(_workspace: &Workspace, _options: &Options) -> Result<()> {
    anyhow::bail!("in work")
}
