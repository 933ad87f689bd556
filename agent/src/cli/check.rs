//! `evenkeel check`.

use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// What `evenkeel check` takes.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {}

/// Prints what the node has and lacks; fails if something that the agent needs is missing.
pub(super) fn run(_args: &CheckArgs) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
