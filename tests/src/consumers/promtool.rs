//! Prometheus' own checks.

use super::program;
use super::prometheus::{LINK, VARIABLE};
use anyhow::{Context, Result};
use std::io::Write;
use std::process::{Command, Output, Stdio};

/// What `promtool` says with these arguments and that input. Its exit status is not looked at: for `check metrics` a remark is a failure.
///
/// # Errors
/// When there is none, or it cannot be started.
pub fn promtool(arguments: &[&str], input: &str) -> Result<Output> {
    let mut command = Command::new(program(VARIABLE, LINK, "promtool")?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool")?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    // It says nothing before it has read everything, or has ended and reads no more.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    if output.status.success() {
        written?;
    }
    Ok(output)
}
