//! The agents of a cluster: their pods are found by their labels, and reached through the API server's port-forward.
//!
//! Needed rights: `list` on `pods` in the agents' namespace (and in a pod's own for `--pod`); `create` on `pods/portforward`, and `get`,
//! which is what API servers before 1.35 ask for.

use super::agent::Agent;
use super::args::{PodName, ReachArgs};
use super::place::Agents;
use super::wire::AskError;
use crate::sources::kubernetes::{chain, client_of};
use anyhow::{Context as _, Result, anyhow, bail};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::client::UpgradeConnectionError;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use std::collections::BTreeMap;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// The port of the admin endpoint, if the agent's pod does not name another.
const ADMIN_PORT: u16 = 15_800;

/// Why a stream leads nowhere, in the node's words; `None`: it has ended, and nothing was said.
pub(super) type Refusal = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A cluster that can be asked.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

/// The pod of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentPod {
    pub(super) node: String,
    namespace: String,
    name: String,
    /// Where its admin endpoint is, within it.
    port: u16,
}

impl Cluster {
    /// As kubectl would: by the kubeconfig that is named, else by `KUBECONFIG` or `~/.kube/config`, else as a pod does.
    pub(super) async fn reach(args: &ReachArgs) -> Result<Self> {
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let kubeconfig = match &args.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(|error| anyhow!(chain(&error)));
                Some(kubeconfig.with_context(|| path.display().to_string())?)
            }
            None if is_in_a_pod() && std::env::var_os("KUBECONFIG").is_none() => None,
            None => Some(Kubeconfig::read().map_err(|error| {
                anyhow!("{}: --kubeconfig names one, or --address an agent", chain(&error))
            })?),
        };
        let config = match kubeconfig {
            None => Config::incluster().map_err(|error| anyhow!(chain(&error)))?,
            Some(kubeconfig) => {
                if crate::sources::kubernetes::names_a_proxy(&kubeconfig, args.context.as_deref()) {
                    bail!("the kubeconfig's proxy-url is not supported: take it out");
                }
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map_err(|error| anyhow!(chain(&error)))?
            }
        };
        let client = client_of(&config).map_err(|error| anyhow!(chain(&error)))?;
        Ok(Self { client, namespace: config.default_namespace })
    }

    /// The agents that are meant.
    pub(super) async fn agents(self, args: &ReachArgs) -> Result<Agents> {
        let mut nodes = args.node.clone();
        if let Some(pod) = &args.pod {
            nodes.push(self.node_of(pod).await?);
        }
        let namespace = &args.agent_namespace;
        let wanted = ListParams::default().labels(&args.agent_selector);
        let pods = Api::<Pod>::namespaced(self.client.clone(), namespace).list(&wanted).await;
        let pods = pods.map_err(|error| explained(&error, "list", "pods", namespace))?;
        let mut found = choose(pods.items);
        if !nodes.is_empty() {
            for node in &nodes {
                found.entry(node.clone()).or_insert_with(|| {
                    Err(format!(
                        "it has no agent in the namespace {namespace} with the labels {}",
                        args.agent_selector
                    ))
                });
            }
            found.retain(|node, _| nodes.contains(node));
        }
        let mut agents = Agents { agents: Vec::new(), missing: Vec::new(), namespace: Some(self.namespace) };
        for (node, pod) in found {
            match pod {
                Ok(pod) => agents.agents.push(Agent::forwarded(self.client.clone(), pod)),
                Err(why) => agents.missing.push((node, why)),
            }
        }
        Ok(agents)
    }

    async fn node_of(&self, PodName(pod): &PodName) -> Result<String> {
        let named = ListParams::default().fields(&format!("metadata.name={}", pod.name));
        let pods = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace).list(&named).await;
        let pods = pods.map_err(|error| explained(&error, "list", "pods", &pod.namespace))?;
        let Some(found) = pods.items.into_iter().next() else { bail!("there is no pod {pod}") };
        found.spec.and_then(|spec| spec.node_name).with_context(|| format!("the pod {pod} is on no node yet"))
    }
}

fn is_in_a_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// An error of the API server's, and where a right is missing, which.
fn explained(error: &kube::Error, verb: &str, resource: &str, namespace: &str) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 403 => anyhow!(
            "the account may not {verb} {resource} in the namespace {namespace}: it needs a role with the verb {verb} on {resource}"
        ),
        kube::Error::Api(status) if status.code == 401 => {
            anyhow!("the API server does not know the account: {}", status.message)
        }
        error => anyhow!(chain(error)),
    }
}

impl AgentPod {
    /// A stream to the pod's admin endpoint, and what is said, if anything is, when it leads nowhere.
    pub(super) async fn connect(
        &self,
        client: &Client,
    ) -> Result<(impl AsyncRead + AsyncWrite + Send + Unpin + 'static, Refusal), AskError> {
        let pods = Api::<Pod>::namespaced(client.clone(), &self.namespace);
        let forwarder = pods.portforward(&self.name, &[self.port]).await;
        let mut forwarder = forwarder.map_err(|error| AskError::Unreachable(self.not_forwarded(&error)))?;
        let stream = forwarder.take_stream(self.port);
        let refused = forwarder.take_error(self.port);
        let Self { namespace, name, port, .. } = self.clone();
        let refusal = Box::pin(async move {
            let why = refused?.await?;
            Some(format!("its pod {namespace}/{name} takes no connection at port {port}: {}", why.trim()))
        });
        // The task behind it goes on without its handle, until the stream ends.
        let stream =
            stream.ok_or_else(|| AskError::Unreachable("the API server forwards another port".into()))?;
        Ok((stream, refusal))
    }

    fn not_forwarded(&self, error: &kube::Error) -> String {
        let namespace = &self.namespace;
        let status = match error {
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status)) => Some(*status),
            kube::Error::Api(status) => StatusCode::from_u16(status.code).ok(),
            _ => None,
        };
        match status {
            Some(StatusCode::FORBIDDEN) => format!(
                "the account may not forward ports of pods in the namespace {namespace}: it needs a role with the verbs create and \
                 get on pods/portforward"
            ),
            Some(StatusCode::NOT_FOUND) => format!("its pod {namespace}/{} has gone", self.name),
            _ => format!("its pod {namespace}/{} cannot be reached: {}", self.name, chain(error)),
        }
    }
}

/// Of each node the agent to ask, or why there is none: while one takes over from another, the one that is ready, and of such the
/// younger one.
fn choose(pods: Vec<Pod>) -> BTreeMap<String, Result<AgentPod, String>> {
    let mut best: BTreeMap<String, (Rank, Pod)> = BTreeMap::new();
    for pod in pods {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
        let rank = rank(&pod);
        if best.get(&node).is_none_or(|(known, _)| *known < rank) {
            best.insert(node, (rank, pod));
        }
    }
    let usable = |(node, (rank, pod)): (String, (Rank, Pod))| {
        let agent = if rank.runs { agent_of(&node, &pod) } else { Err(not_running(&pod)) };
        (node, agent)
    };
    best.into_iter().map(usable).collect()
}

/// Which of two is the one to ask: the greater.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    runs: bool,
    ready: bool,
    stays: bool,
    /// RFC 3339, in UTC: sorts as times do.
    started: String,
}

fn rank(pod: &Pod) -> Rank {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let is_ready = |condition: &k8s_openapi::api::core::v1::PodCondition| {
        condition.type_ == "Ready" && condition.status == "True"
    };
    let started = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string());
    Rank {
        runs: status.and_then(|status| status.phase.as_deref()) == Some("Running"),
        ready: conditions.into_iter().any(is_ready),
        stays: pod.metadata.deletion_timestamp.is_none(),
        started: started.unwrap_or_default(),
    }
}

fn not_running(pod: &Pod) -> String {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("unknown");
    format!("its agent's pod {} does not run: {phase}", pod.metadata.name.as_deref().unwrap_or_default())
}

fn agent_of(node: &str, pod: &Pod) -> Result<AgentPod, String> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    Ok(AgentPod {
        node: node.to_owned(),
        namespace: of(&pod.metadata.namespace),
        name: of(&pod.metadata.name),
        port: admin_port(pod)?,
    })
}

/// The port that the pod's own arguments or environment give its admin endpoint.
fn admin_port(pod: &Pod) -> Result<u16, String> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut told = None;
    for container in containers {
        let arguments = container.command.iter().chain(&container.args).flatten();
        let mut arguments = arguments.map(String::as_str).peekable();
        while let Some(argument) = arguments.next() {
            match argument.strip_prefix("--admin") {
                Some("") => told = arguments.peek().map(|next| (*next).to_owned()).or(told),
                Some(value) => told = value.strip_prefix('=').map(str::to_owned).or(told),
                None => {}
            }
        }
        if told.is_none() {
            let variables = container.env.iter().flatten();
            let admin = variables.filter(|variable| variable.name == "EVENKEEL_ADMIN");
            told = admin.filter_map(|variable| variable.value.clone()).next_back();
        }
    }
    match told.as_deref() {
        None => Ok(ADMIN_PORT),
        Some(address) => address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or_else(|| {
            format!(
                "its admin endpoint is at {address}, where no port-forward leads: \
                     kubectl exec -n {} {} -- evenkeel status --address {address}",
                pod.metadata.namespace.as_deref().unwrap_or_default(),
                pod.metadata.name.as_deref().unwrap_or_default(),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, node: &str, phase: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "evenkeel-system", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": node, "containers": [{"name": "agent", "args": ["agent", "--log=info"]}]},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn of_a_nodes_agents_the_one_is_asked_that_is_ready_and_stays() {
        let as_it_is = |_: &mut Value| ();
        let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = json!("False");
        let leaving = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        let younger = |pod: &mut Value| pod["metadata"]["creationTimestamp"] = json!("2026-01-02T00:00:00Z");
        for (pods, expected) in [
            (vec![pod("old", "n", "Running", as_it_is), pod("new", "n", "Running", younger)], Ok("new")),
            (vec![pod("old", "n", "Running", as_it_is), pod("new", "n", "Running", unready)], Ok("old")),
            (vec![pod("old", "n", "Running", leaving), pod("new", "n", "Running", as_it_is)], Ok("new")),
            (vec![pod("new", "n", "Pending", younger), pod("old", "n", "Running", unready)], Ok("old")),
            (vec![pod("new", "n", "Pending", as_it_is)], Err("its agent's pod new does not run: Pending")),
        ] {
            for pods in [pods.clone(), pods.into_iter().rev().collect()] {
                let chosen = choose(pods).remove("n").unwrap();
                assert_eq!(chosen.as_ref().map(|agent| &*agent.name).map_err(|why| &**why), expected);
            }
        }
        let of_two_nodes =
            choose(vec![pod("a", "n1", "Running", as_it_is), pod("b", "n2", "Running", as_it_is)]);
        assert_eq!(of_two_nodes.len(), 2);
    }

    #[test]
    fn the_admin_port_is_what_the_pod_says() {
        let args = |args: Value| pod("a", "n", "Running", |pod| pod["spec"]["containers"][0]["args"] = args);
        let by_env = pod("a", "n", "Running", |pod| {
            pod["spec"]["containers"][0]["env"] =
                json!([{"name": "EVENKEEL_ADMIN", "value": "127.0.0.1:16000"}]);
        });
        for (pod, expected) in [
            (args(json!(["agent"])), Ok(15_800)),
            (args(json!(["agent", "--admin=127.0.0.1:16800"])), Ok(16_800)),
            (args(json!(["agent", "--admin", "[::1]:16801"])), Ok(16_801)),
            (by_env, Ok(16_000)),
        ] {
            assert_eq!(admin_port(&pod), expected);
        }
        assert!(admin_port(&args(json!(["agent", "--admin=unix:/run/x.sock"]))).is_err());
    }
}
