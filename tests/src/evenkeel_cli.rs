//! The commands that look at agents, run as a person runs them.

use crate::host;
use crate::kubernetes::Cluster as Kubernetes;
use crate::netns::Netns;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a command came to.
#[derive(Debug)]
pub struct Said {
    /// Its exit status is 0.
    pub success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// What it printed, if all went well and nothing was to be complained of.
    ///
    /// # Errors
    /// If not.
    pub fn clean(self) -> Result<String> {
        ensure!(self.success && self.stderr.is_empty(), "{self:?}");
        Ok(self.stdout)
    }

    /// The same as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(self) -> Result<Value> {
        let text = self.clean()?;
        serde_json::from_str(&text).with_context(|| text)
    }
}

/// The line of a table that begins with these words, as its words.
pub fn line<'a>(table: &'a str, first: &[&str]) -> Option<Vec<&'a str>> {
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.into_iter().find(|words| words.starts_with(first))
}

/// The command line in that network namespace, with nobody's kubeconfig.
///
/// # Errors
/// When the binary has not been built.
pub fn command(netns: &Netns, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", netns.path().display())).arg(host::evenkeel_binary()?).args(arguments);
    command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").env("HOME", "/nonexistent");
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs it.
///
/// # Errors
/// When it cannot be started.
pub fn run(netns: &Netns, arguments: &[&str]) -> Result<Said> {
    Ok(Said::of(&command(netns, arguments)?.output().context("evenkeel")?))
}

/// Runs it where the cluster's API server can be reached.
///
/// # Errors
/// When it cannot be started.
pub fn run_on(cluster: &Kubernetes, kubeconfig: &Path, arguments: &[&str]) -> Result<Said> {
    let netns = cluster.netns().context("a cluster has a network namespace")?;
    let kubeconfig = kubeconfig.to_string_lossy();
    run(netns, &[arguments, &["--kubeconfig", &kubeconfig]].concat())
}
