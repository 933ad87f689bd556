//! The agents of a cluster on which Evenkeel is installed, one a node.

use super::cluster::Cluster;
use super::install::RELEASE;
use super::running_pod::RunningPod;
use crate::agent::{FIRST_PORT, get};
use crate::deploy::NAMESPACE;
use crate::wait::eventually_answered;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::Ipv4Addr;

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
    /// The agents on that node that are not being deleted.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn agents_on(&self, node: &str) -> Result<Vec<AgentPod>> {
        let host = self.nodes.iter().find(|known| known.name == node).context("no such node")?;
        let pods = self.list("pods", NAMESPACE, &format!("app.kubernetes.io/name={RELEASE}"))?;
        let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
        let staying = here.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(staying.filter_map(|pod| Some(AgentPod { pod: RunningPod::of(pod, host).ok()? })).collect())
    }

    /// The one agent on that node, when it is ready.
    ///
    /// # Errors
    /// When there is none, or more than one stays.
    pub fn agent_on(&self, node: &str) -> Result<AgentPod> {
        eventually_answered(&format!("{node} has one agent, and it is ready"), || {
            let mut agents = self.agents_on(node)?;
            Ok(agents.pop().filter(|agent| agents.is_empty() && agent.is_ready()))
        })
    }
}
