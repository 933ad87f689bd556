//! A browser on the agent's page: Debian's Chromium, driven by Playwright from `tests/page/`.
//!
//! Its packages are brought on first use, and again when their list changes; the browser itself is Debian's, as it keeps that up to date.

use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::process::{Place, Process};
use crate::stacks::{once_for, workshop};
use crate::{Agent, Cluster, host};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Where Debian's package `chromium` puts it.
const CHROMIUM: &str = "/usr/bin/chromium";

/// The steps and Playwright, ready to run on a cluster's node.
#[derive(Debug)]
pub struct Browser {
    folder: PathBuf,
    node: Arc<Netns>,
    // With all of a browser's processes it ends.
    cgroup: Cgroup,
}

impl Browser {
    /// Brings what is needed.
    ///
    /// # Errors
    /// When there is no Chromium or no npm, with what to do.
    pub fn new(cluster: &Cluster) -> Result<Self> {
        host::existing(Path::new(CHROMIUM), "`cargo xtask setup` installs Debian's package chromium")?;
        let (workshop, _lock) = workshop()?;
        let folder = workshop.join("page");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
        fs::create_dir_all(&folder)?;
        for file in ["package.json", "package-lock.json", "browser.mjs", "steps.mjs"] {
            fs::copy(sources.join(file), folder.join(file))?;
        }
        once_for(&sources.join("package-lock.json"), &folder, || {
            let prefix = folder.to_string_lossy();
            host::run("npm", &["ci", "--silent", "--ignore-scripts", "--prefix", &prefix], "")
                .context("what the page's tests need")
        })?;
        Ok(Self { folder, node: Arc::clone(&cluster.node), cgroup: cluster.system_cgroup("browser")? })
    }

    /// Runs a step on the agent's page to its end.
    ///
    /// # Errors
    /// With what the step found.
    pub fn step(&self, agent: &Agent, step: &str, given: &Value) -> Result<()> {
        let mut process = self.begin(agent, step, given)?;
        let status = process.wait()?;
        ensure!(status.success(), "{step}: {status}\n{}", process.stderr().join("\n"));
        Ok(())
    }

    /// Begins a step on the agent's page.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin(&self, agent: &Agent, step: &str, given: &Value) -> Result<Process> {
        let mut command = Command::new("node");
        command.arg(self.folder.join("steps.mjs")).arg(step).arg(agent.admin_url("/ui/"));
        command.arg(given.to_string());
        let place = Place::new(self.cgroup.path(), Some(self.node.open()?))?;
        Process::spawn(&format!("page-{step}"), command, Some(place))
    }
}
