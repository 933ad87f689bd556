//! What a person says about which agents to ask.

use super::address::Address;
use crate::mesh::ObjectName;
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Which agents to ask, and how they are reached.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Which agents")]
pub(in crate::cli) struct ReachArgs {
    /// The agent at this address, HOST:PORT or unix:/PATH; by default this node's, else all of the cluster's
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["node", "kubeconfig", "context"])]
    pub(in crate::cli) address: Option<Address>,
    /// The agent of this node of the cluster; may be there several times
    #[arg(long, value_name = "NODE")]
    pub(in crate::cli) node: Vec<String>,
    /// The agent of the node that this pod runs on
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(in crate::cli) pod: Option<PodName>,
    /// How the cluster is reached; by default as kubectl does
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) context: Option<String>,
    /// The namespace of the agents' own pods
    #[arg(
        long,
        env = "EVENKEEL_AGENT_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "evenkeel-system"
    )]
    pub(in crate::cli) agent_namespace: String,
    /// The labels of the agents' own pods
    #[arg(
        long,
        env = "EVENKEEL_AGENT_SELECTOR",
        value_name = "LABELS",
        default_value = "app.kubernetes.io/name=evenkeel"
    )]
    pub(in crate::cli) agent_selector: String,
    /// How long an agent, and the API server, may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
}

impl ReachArgs {
    /// How long an agent, and the API server, may take to answer.
    pub(in crate::cli) fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout.into())
    }

    /// Whether the cluster is meant, whatever answers on this node.
    pub(super) fn names_a_cluster(&self) -> bool {
        !self.node.is_empty() || self.kubeconfig.is_some() || self.context.is_some()
    }
}

/// A pod as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct PodName(pub(in crate::cli) ObjectName);

impl FromStr for PodName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let is_name = |name: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
            !name.is_empty() && name.bytes().all(allowed)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self(ObjectName::new(namespace, name)))
            }
            _ => Err("expected namespace/name, as shop/cart-6d5f"),
        }
    }
}
