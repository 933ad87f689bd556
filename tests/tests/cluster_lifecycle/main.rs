//! The agents' lives on a real cluster of two nodes: upgrades, drains, deaths, outages. The pods' calls go on.
//!
//! [`rollouts`]: what people do on purpose; [`deaths`]: what happens to agents and nodes; [`outages`]: what happens to the API server, and
//! [`api_silence`]: the worst of it, without the cluster.

mod api_silence;
mod deaths;
mod outages;
mod rollouts;

use anyhow::Result;
use evenkeel_tests::kubernetes::shared::Exclusive;
use evenkeel_tests::kubernetes::{Cluster, SharedCluster};

static CLUSTER: SharedCluster = SharedCluster::new();

/// Values of the chart: calls of these tests are short, so that old agents need not wait for them.
const VALUES: [&str; 2] = ["--set", "agent.drainSeconds=5"];

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(2)?;
    cluster.install(&VALUES)?;
    Ok(cluster)
}

/// Keeps pods off a node until its agent is ready.
const STARTUP_TAINT: &str = "evenkeel.dev/agent-not-ready";

/// The cluster, with Evenkeel installed, for one test alone: as it was at its start, whatever the last one has left.
fn cluster_alone() -> Result<Exclusive> {
    let mut cluster = CLUSTER.get_alone(start)?;
    if !cluster.api_server.is_running() {
        cluster.start_api_server()?;
    }
    for node in 0..cluster.nodes.len() {
        if !cluster.nodes[node].processes.is_running() {
            cluster.power_on(node)?;
        }
        cluster.wait_until_ready(node)?;
        let name = cluster.nodes[node].name.clone();
        cluster.run(&["uncordon", &name])?;
        if cluster.object(&format!("node/{name}"), "default")?["spec"]["taints"]
            .to_string()
            .contains(STARTUP_TAINT)
        {
            cluster.run(&["taint", "node", &name, &format!("{STARTUP_TAINT}-")])?;
        }
    }
    cluster.install(&VALUES)?;
    Ok(cluster)
}
