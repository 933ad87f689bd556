//! Which agents a person means.

use super::address::Address;
use super::agent::Agent;
use super::args::ReachArgs;
use super::cluster::Cluster;
use super::wire::Ask;
use anyhow::{Context as _, Result, bail};
use std::time::Duration;
use tokio::time::timeout;

/// Where an agent's admin endpoint is on its node, if nobody has said otherwise.
const HERE: &str = "127.0.0.1:15800";

/// How long this node's may take to show that it is there: it is asked for a page that it has at hand, but the node may be busy. Where nothing
/// listens, that is known at once.
const HERE_LIMIT: Duration = Duration::from_secs(5);

/// The agents that are meant.
pub(in crate::cli) struct Agents {
    /// Each can be asked, though it may not answer.
    pub(in crate::cli) agents: Vec<Agent>,
    /// Nodes whose agent cannot even be asked, and why.
    pub(in crate::cli) missing: Vec<(String, String)>,
    /// The namespace that a person works in, by the kubeconfig; `None` for an address, which has no such thing.
    pub(in crate::cli) namespace: Option<String>,
}

/// Finds the agents that are meant.
///
/// # Errors
/// When there is none, or the cluster does not say, with what to do.
pub(in crate::cli) async fn find(args: &ReachArgs) -> Result<Agents> {
    if let Some(address) = &args.address {
        return Ok(alone(Agent::at(address.clone())));
    }
    if !args.names_a_cluster()
        && let Some(agent) = here().await
    {
        return Ok(alone(agent));
    }
    let cluster = Cluster::reach(args).await.with_context(|| match args.names_a_cluster() {
        true => "the cluster cannot be asked".to_owned(),
        false => format!("no agent answers at {HERE}, and the cluster cannot be asked"),
    })?;
    let found = timeout(args.limit(), cluster.agents(args)).await;
    let found = found
        .with_context(|| format!("the API server does not answer within {} s", args.limit().as_secs()))??;
    if found.agents.is_empty() && found.missing.is_empty() {
        bail!(
            "no agent in the namespace {} with the labels {}: --agent-namespace and --agent-selector name others",
            args.agent_namespace,
            args.agent_selector
        );
    }
    Ok(found)
}

fn alone(agent: Agent) -> Agents {
    Agents { agents: vec![agent], missing: Vec::new(), namespace: None }
}

/// The agent of this node, if one answers as an agent does.
async fn here() -> Option<Agent> {
    let mut agent = Agent::at(Address::Tcp(HERE.to_owned()));
    let answers = timeout(HERE_LIMIT, agent.ask(&[Ask::get("/config")])).await.ok()?.ok()?;
    let config = answers.into_iter().next()?.ok()?;
    config.get("listener_ports")?;
    if let Some(node) = config["node_name"].as_str() {
        node.clone_into(&mut agent.node);
    }
    Some(agent)
}
