//! Evenkeel on a cluster: its chart, installed by helm as a user does it, and its agents, one a node.

use super::cluster::Cluster;
use super::images::Image;
use super::running_pod::RunningPod;
use crate::agent::{FIRST_PORT, get};
use crate::deploy::{NAMESPACE, chart, tool};
use crate::host::{self, run};
use crate::wait::{eventually, eventually_some};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::Ipv4Addr;

/// The DaemonSet, and what helm calls the release.
const RELEASE: &str = "evenkeel";
/// The image that the chart asks for.
const IMAGE: &str = concat!("evenkeel:", env!("CARGO_PKG_VERSION"));
/// The same agent under the name of another version.
pub const OTHER_TAG: &str = "another";

/// An agent's pod.
#[derive(Clone, Debug)]
pub struct AgentPod {
    /// The pod.
    pub pod: RunningPod,
}

impl AgentPod {
    /// The admin endpoint's JSON at a path such as `/pods`.
    ///
    /// # Errors
    /// When it does not answer 200 with JSON.
    pub fn admin(&self, path: &str) -> Result<Value> {
        let (status, body) = self.get(FIRST_PORT, path)?;
        ensure!(status == 200, "{path}: {status} {body}");
        serde_json::from_str(&body).with_context(|| body)
    }

    /// Whether `/readyz` says 200 now.
    pub fn is_ready(&self) -> bool {
        self.get(FIRST_PORT + 1, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Whether `/livez` says 200 now.
    pub fn is_live(&self) -> bool {
        self.get(FIRST_PORT + 1, "/livez").is_ok_and(|(status, _)| status == 200)
    }

    /// What the metrics' endpoint says.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.get(FIRST_PORT + 2, "/metrics")?.1)
    }

    fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        self.pod.enter(|| get((Ipv4Addr::LOCALHOST, port).into(), path))?
    }
}

impl Cluster {
    /// Installs the chart with those further arguments of helm, and waits until there is a ready agent on each node.
    ///
    /// # Errors
    /// When it cannot be installed, or an agent does not become ready.
    pub fn install_evenkeel(&self, arguments: &[&str]) -> Result<()> {
        self.add_evenkeel_images()?;
        let chart = chart();
        let install = ["install", RELEASE, &chart.to_string_lossy(), "--create-namespace"];
        self.helm(&[&install[..], arguments].concat())?;
        self.evenkeel_rolled_out()
    }

    /// Changes values of the release, and does not wait.
    ///
    /// # Errors
    /// With helm's own words.
    pub fn upgrade_evenkeel(&self, arguments: &[&str]) -> Result<()> {
        let chart = chart();
        let upgrade = ["upgrade", RELEASE, &chart.to_string_lossy(), "--reuse-values"];
        self.helm(&[&upgrade[..], arguments].concat()).map(drop)
    }

    /// Deletes the release, and waits until no agent is left.
    ///
    /// # Errors
    /// With helm's own words.
    pub fn uninstall_evenkeel(&self) -> Result<()> {
        self.helm(&["uninstall", RELEASE])?;
        eventually("the agents end", || self.list("pods", NAMESPACE, "").is_ok_and(|pods| pods.is_empty()))
    }

    /// Waits until all agents are of the newest version of the DaemonSet, and ready.
    ///
    /// # Errors
    /// When they are not.
    pub fn evenkeel_rolled_out(&self) -> Result<()> {
        self.rolled_out(&format!("daemonset/{RELEASE}"), NAMESPACE)
    }

    /// The agents on that node that are not being deleted.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn agents_on(&self, node: &str) -> Result<Vec<AgentPod>> {
        let host = self.nodes.iter().find(|known| known.name == node).context("no such node")?;
        let pods = self.list("pods", NAMESPACE, "app.kubernetes.io/name=evenkeel")?;
        let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
        let staying = here.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(staying.filter_map(|pod| Some(AgentPod { pod: RunningPod::of(pod, host).ok()? })).collect())
    }

    /// The one agent on that node, when it is ready.
    ///
    /// # Errors
    /// When there is none, or more than one stays.
    pub fn agent_on(&self, node: &str) -> Result<AgentPod> {
        eventually_some(&format!("{node} has one agent, and it is ready"), || {
            let mut agents = self.agents_on(node)?;
            Ok(agents.pop().filter(|agent| agents.is_empty() && agent.is_ready()))
        })
    }

    /// helm on this cluster, as an administrator types it.
    fn helm(&self, arguments: &[&str]) -> Result<String> {
        let helm = tool("helm")?;
        let program = helm.get_program().to_string_lossy().into_owned();
        let netns = self.netns().context("a cluster of nodes has a network")?;
        let netns = format!("--net={}", netns.path().display());
        let home = self.folder().join("helm");
        let home = ["CACHE", "CONFIG", "DATA"].map(|kind| format!("HELM_{kind}_HOME={}", home.display()));
        let kubeconfig = self.kubeconfig();
        let kubeconfig = kubeconfig.to_string_lossy();
        let mut words = vec![netns.as_str(), "env"];
        words.extend(home.iter().map(String::as_str));
        words.extend([&program, "--kubeconfig", &kubeconfig, "--namespace", NAMESPACE]);
        words.extend(arguments);
        run("nsenter", &words, "")
    }

    /// Two images of the agent of this build, without what only a debugger reads.
    fn add_evenkeel_images(&self) -> Result<()> {
        let stripped = self.folder().join("evenkeel");
        let (from, to) = (host::evenkeel_binary()?, stripped.to_string_lossy());
        run("strip", &["--strip-debug", "-o", &to, &from.to_string_lossy()], "")?;
        let image = Image::of_program(&stripped)?;
        self.images.add(IMAGE, &image)?;
        self.images.add(&format!("evenkeel:{OTHER_TAG}"), &image)
    }
}
