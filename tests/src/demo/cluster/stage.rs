//! The cluster, the client's count, and what is typed.

use crate::demo::phase::Expected;
use crate::demo::play::Stage;
use crate::kubernetes::{Cluster, Image, install};
use crate::peers::Load;
use crate::wait::eventually_answered;
use crate::{Process, Tally, deploy, eventually, host};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::rc::Rc;

/// Where the servers are, and the client.
const SERVERS: &str = "grpc";
const CLIENT: &str = "test";
/// What the article's manifests name; here it is the peers' program, which the cluster's registry hands out under any name.
const IMAGE: &str = "quay.io/shrishs/grpc-plain-text-quickstart-jvm";
const SERVERS_YAML: &str = include_str!("servers.yaml");
const CLIENT_YAML: &str = include_str!("client.yaml");
/// Calls a second of the client, as its manifest says.
pub(super) const RATE: u64 = 200;
const DAEMON_SET: &str = "daemonset/evenkeel";

/// All that runs.
pub(super) struct ClusterStage {
    load: Load,
    /// `metadata.uid` of the client's pod at the start.
    client: String,
    /// The client's address.
    address: String,
    /// Names of the servers' pods that take part now.
    servers: Vec<String>,
    cluster: Rc<Cluster>,
}

impl ClusterStage {
    pub(super) fn set_up(cluster: Rc<Cluster>) -> Result<Self> {
        // What a demo that was interrupted has left on a cluster that stays.
        remove_all(&cluster)?;
        let peer = host::binaries()?.join("peer");
        let image = Image::of_program(&peer)?.arguments(&["serve", "--listen", "[::]:9000"]);
        cluster.images.add(IMAGE, &image)?;
        cluster.add_agent_image()?;
        typed("kubectl apply -f servers.yaml");
        cluster.apply(SERVERS_YAML)?;
        cluster.pods_ready(SERVERS, "app=grpc")?;
        cluster.wait_until("endpoints/grpc", SERVERS, |endpoints| {
            endpoints["subsets"][0]["addresses"].as_array().is_some_and(|addresses| addresses.len() == 3)
        })?;
        typed("kubectl apply -f client.yaml");
        cluster.apply(CLIENT_YAML)?;
        cluster.rolled_out("deployment/grpc-client", CLIENT)?;
        let pods = cluster.list("pods", CLIENT, "app=grpc")?;
        let pod = pods.first().context("the client has a pod")?;
        let (name, address) = (text(pod, "/metadata/name"), text(pod, "/status/podIP"));
        let log = cluster.command(&["logs", "--follow", "-n", CLIENT, &name]);
        let load = Load { process: Process::spawn("client", log, None)? };
        eventually("the client's first calls are answered", || {
            load.tally().is_ok_and(|tally| tally.completed() > 0)
        })?;
        let client = text(pod, "/metadata/uid");
        let mut stage = Self { load, client, address, servers: Vec::new(), cluster };
        stage.wait_for_servers(3)?;
        Ok(stage)
    }

    /// Names of the servers that take part now.
    pub(super) fn servers(&self) -> &[String] {
        &self.servers
    }

    pub(super) fn spread(&self) -> Expected {
        Expected::Spread { servers: self.servers.clone(), seen_as: self.address.clone() }
    }

    pub(super) fn install(&mut self) -> Result<()> {
        typed(&format!(
            "helm install {} deploy/helm/evenkeel --namespace {} --create-namespace",
            install::RELEASE,
            deploy::NAMESPACE
        ));
        self.cluster.install(&[])
    }

    pub(super) fn enrol(&mut self) -> Result<()> {
        // First, so that it holds for the connection that is open.
        self.kubectl(&["annotate", "namespace", CLIENT, "evenkeel.dev/on-enrol=reconnect"])?;
        self.kubectl(&["label", "namespace", CLIENT, "evenkeel.dev/enabled=true"])
    }

    pub(super) fn scale_to_six(&mut self) -> Result<()> {
        let deployments = ["deployment/grpc-v1", "deployment/grpc-v2", "deployment/grpc-v3"];
        self.kubectl(&[&["scale", "-n", SERVERS, "--replicas=2"], &deployments[..]].concat())?;
        self.wait_for_servers(6)?;
        let pods = self.server_pods()?;
        let mut nodes: Vec<String> = pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect();
        nodes.sort();
        nodes.dedup();
        ensure!(nodes.len() > 1, "all servers are on {nodes:?}: the demo is to show several nodes");
        Ok(())
    }

    pub(super) fn scale_to_two(&mut self) -> Result<()> {
        let (stay, go) = (["deployment/grpc-v1", "deployment/grpc-v2"], ["deployment/grpc-v3"]);
        self.kubectl(&[&["scale", "-n", SERVERS, "--replicas=1"], &stay[..]].concat())?;
        self.kubectl(&[&["scale", "-n", SERVERS, "--replicas=0"], &go[..]].concat())?;
        self.wait_for_servers(2)
    }

    pub(super) fn roll_servers(&mut self) -> Result<()> {
        let before = self.servers.clone();
        self.kubectl(&["rollout", "restart", "deployment", "-n", SERVERS])?;
        for version in ["grpc-v1", "grpc-v2"] {
            self.cluster.rolled_out(&format!("deployment/{version}"), SERVERS)?;
        }
        self.wait_for_servers(2)?;
        ensure!(self.servers.iter().all(|server| !before.contains(server)), "a server was not replaced");
        Ok(())
    }

    pub(super) fn roll_agents(&mut self) -> Result<()> {
        let before = self.agents()?;
        self.kubectl(&["rollout", "restart", DAEMON_SET, "-n", deploy::NAMESPACE])?;
        self.cluster.rolled_out(DAEMON_SET, deploy::NAMESPACE)?;
        // The old ones drain.
        let now = eventually_answered("one agent a node is left", || {
            let agents = self.agents()?;
            Ok((agents.len() == self.cluster.nodes.len()).then_some(agents))
        })?;
        ensure!(now.iter().all(|agent| !before.contains(agent)), "an agent was not replaced");
        Ok(())
    }

    pub(super) fn kill_agents(&mut self) -> Result<()> {
        for node in &self.cluster.nodes {
            println!("    {}# kill -9 $(pidof evenkeel)", node.name);
            node.run(&["sh", "-c", "kill -9 $(pidof evenkeel)"])?;
        }
        Ok(())
    }

    pub(super) fn uninstall(&mut self) -> Result<()> {
        typed(&format!("helm uninstall {} --namespace {}", install::RELEASE, deploy::NAMESPACE));
        self.cluster.uninstall()
    }

    /// # Errors
    /// When a pod of the servers or the client is not the one that it was, or a container was started again.
    pub(super) fn check_that_no_pod_was_restarted(&self) -> Result<()> {
        let client = self.cluster.list("pods", CLIENT, "app=grpc")?;
        ensure!(client.len() == 1 && text(&client[0], "/metadata/uid") == self.client, "another client pod");
        for pod in client.iter().chain(&self.server_pods()?) {
            let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
            ensure!(restarts == Some(&Value::from(0)), "{} was restarted", text(pod, "/metadata/name"));
        }
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        typed(&format!("kubectl {}", arguments.join(" ")));
        self.cluster.run(arguments).map(drop)
    }

    /// Waits until so many servers are ready and none is ending.
    fn wait_for_servers(&mut self, count: usize) -> Result<()> {
        let what = format!("{count} servers are ready, and no other is left");
        self.servers = eventually_answered(&what, || {
            let pods = self.server_pods()?;
            let ready = pods.iter().all(|pod| pod["status"]["containerStatuses"][0]["ready"] == true);
            Ok((pods.len() == count && ready)
                .then(|| pods.iter().map(|pod| text(pod, "/metadata/name")).collect()))
        })?;
        self.servers.sort();
        Ok(())
    }

    fn server_pods(&self) -> Result<Vec<Value>> {
        self.cluster.list("pods", SERVERS, "app=grpc")
    }

    /// UIDs of the agents' pods.
    fn agents(&self) -> Result<Vec<String>> {
        let labels = format!("app.kubernetes.io/name={}", install::RELEASE);
        let pods = self.cluster.list("pods", deploy::NAMESPACE, &labels)?;
        Ok(pods.iter().map(|pod| text(pod, "/metadata/uid")).collect())
    }
}

impl Stage for ClusterStage {
    fn tally(&mut self) -> Result<Tally> {
        self.load.runs()?;
        self.load.tally()
    }
}

/// Removes what the demo has put into a cluster.
pub(super) fn remove_all(cluster: &Cluster) -> Result<()> {
    cluster.uninstall().ok();
    let namespaces = [SERVERS, CLIENT, deploy::NAMESPACE];
    cluster
        .run(&[&["delete", "namespace", "--ignore-not-found", "--timeout=90s"], &namespaces[..]].concat())
        .map(drop)
}

/// Shows a command as a user types it.
fn typed(command: &str) {
    println!("    $ {command}");
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::phase::in_flight_max;

    #[test]
    fn the_rate_and_the_calls_in_flight_are_those_of_the_clients_manifest() {
        assert!(CLIENT_YAML.contains(&format!("--rate, '{RATE}'")), "{CLIENT_YAML}");
        let in_flight = in_flight_max(RATE);
        assert!(CLIENT_YAML.contains(&format!("--in-flight, '{in_flight}'")), "{CLIENT_YAML}");
    }
}
