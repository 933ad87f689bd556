//! Evenkeel on a cluster, by its own chart and the real helm.

use super::cluster::Cluster;
use crate::deploy;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Names an archive with the agent's image.
const IMAGE_VARIABLE: &str = "EVENKEEL_IMAGE";
/// What the chart runs.
const AGENT_IMAGE: &str = concat!("evenkeel:", env!("CARGO_PKG_VERSION"));
/// The name of the release, of its DaemonSet and of its ServiceAccount.
pub const RELEASE: &str = "evenkeel";

impl Cluster {
    /// Lets the nodes pull the agent's image of this moment under the name that the chart gives it.
    ///
    /// # Errors
    /// When it was not made, with what to do.
    pub fn add_agent_image(&self) -> Result<()> {
        let archive = std::env::var_os(IMAGE_VARIABLE).with_context(|| {
            format!(
                "the agent's image: run this by `cargo xtask test` or `cargo xtask cluster`, or name what `cargo xtask image --debug` \
                 has made in {IMAGE_VARIABLE}"
            )
        })?;
        self.images.add_archive(Path::new(&archive)).map(drop)
    }

    /// Installs Evenkeel by its chart with these further arguments of helm's, and waits until it is ready on every node.
    ///
    /// # Errors
    /// With helm's own words, and the agents' last ones, when it does not become ready.
    pub fn install(&self, arguments: &[&str]) -> Result<()> {
        if !self.images.has(AGENT_IMAGE) {
            self.add_agent_image()?;
        }
        let chart = deploy::chart();
        let chart = chart.to_string_lossy();
        let install = ["upgrade", "--install", RELEASE, &chart, "--create-namespace"];
        self.helm(&[&install[..], arguments].concat())?;
        self.rolled_out(&format!("daemonset/{RELEASE}"), deploy::NAMESPACE)
            .with_context(|| self.agents_last_words())
    }

    /// Deletes the release, and waits until its pods have gone.
    ///
    /// # Errors
    /// With helm's own words.
    pub fn uninstall(&self) -> Result<()> {
        self.helm(&["uninstall", RELEASE, "--ignore-not-found", "--wait"])?;
        let gone = ["wait", "--for=delete", "pod", "--all", "-n", deploy::NAMESPACE, "--timeout=180s"];
        self.run(&gone).map(drop)
    }

    /// Runs helm on the cluster, in the namespace for Evenkeel; gives what it prints.
    ///
    /// # Errors
    /// With helm's own words.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let output = self.helm_command(arguments)?.output().context("helm")?;
        if !output.status.success() {
            bail!("helm {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn helm_command(&self, arguments: &[&str]) -> Result<Command> {
        let helm = deploy::tool("helm")?;
        let mut command = match self.netns() {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.path().display())).arg(helm.get_program());
                command
            }
            None => helm,
        };
        // What helm keeps is the cluster's, not the user's.
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.folder().join("helm"));
        }
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(["--namespace", deploy::NAMESPACE]);
        command.args(arguments);
        Ok(command)
    }

    /// What the agents last said, and what became of their pods.
    #[must_use]
    pub fn agents_last_words(&self) -> String {
        let namespace = deploy::NAMESPACE;
        let labels = format!("app.kubernetes.io/name={RELEASE}");
        let said = self.run(&["logs", "-n", namespace, "-l", &labels, "--tail=15", "--prefix"]);
        let pods = self.run(&["get", "pods,events", "-n", namespace, "-o", "wide"]);
        format!("{}\n{}", said.unwrap_or_default(), pods.unwrap_or_default())
    }
}
