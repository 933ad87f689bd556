//! Pods of the peers' image, as YAML, and what their programs said.

use super::cluster::{Cluster, PEER_IMAGE};
use super::kubectl::Kubectl;
use crate::Tally;
use crate::wait::eventually_answered;
use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The port on which servers' containers listen.
pub const SERVER_PORT: u16 = 9000;

/// The container of a gRPC server, ready when it listens.
pub fn server_container() -> Value {
    json!({
        "name": "server",
        "image": PEER_IMAGE,
        "args": ["serve", "--listen", format!("[::]:{SERVER_PORT}")],
        "ports": [{"name": "grpc", "containerPort": SERVER_PORT}],
        "readinessProbe": {"tcpSocket": {"port": SERVER_PORT}, "periodSeconds": 1},
    })
}

/// The container of a gRPC client that calls `to` until it is stopped.
pub fn client_container(to: &str, rate: u32) -> Value {
    json!({
        "name": "client",
        "image": PEER_IMAGE,
        "args": ["load", "--to", to, "--rate", rate.to_string()],
    })
}

/// A pod, on that node if one is named.
pub fn pod(namespace: &str, name: &str, node: Option<&str>, container: Value) -> Value {
    let containers = Value::Array(vec![container]);
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": containers},
    });
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// A Service over the pods with that label `app`, with one gRPC port.
pub fn service(namespace: &str, name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "selector": {"app": app},
            "ports": [{"name": "grpc", "port": SERVER_PORT, "targetPort": SERVER_PORT}],
        },
    })
}

impl Kubectl {
    /// Creates or changes an object.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn apply_object(&self, object: &Value) -> Result<()> {
        self.apply(&object.to_string())
    }

    /// Waits until there are pods with those labels, and all of them are Ready.
    ///
    /// # Errors
    /// When they are not, with the pods and events of the namespace.
    pub fn pods_ready(&self, namespace: &str, labels: &str) -> Result<()> {
        // kubectl's own wait ends with an error where nothing matches, as in the moment after a Deployment is made.
        eventually_answered(labels, || Ok(self.list("pods", namespace, labels)?.pop()))?;
        let wait = ["wait", "--for=condition=Ready", "pod", "-n", namespace, "-l", labels, "--timeout=180s"];
        self.run(&wait)
            .map(drop)
            .with_context(|| self.run(&["get", "pods,events", "-n", namespace]).unwrap_or_default())
    }

    /// Makes so many calls from one channel in a pod of the peers' image, and waits for their end.
    ///
    /// # Errors
    /// When the client does not end well; failed calls are in the tally.
    pub fn call_from(&self, namespace: &str, pod: &str, to: &str, calls: u32) -> Result<Tally> {
        let calls = calls.to_string();
        let said =
            self.run(&["exec", "-n", namespace, pod, "--", "/peer", "load", "--to", to, "--calls", &calls])?;
        said.lines().rev().find_map(Tally::told).with_context(|| said.clone())
    }
}

impl Cluster {
    /// A pod's first address.
    ///
    /// # Errors
    /// When it has none yet.
    pub fn pod_address(&self, namespace: &str, pod: &str) -> Result<String> {
        let object = self.object(&format!("pod/{pod}"), namespace)?;
        object["status"]["podIP"].as_str().map(str::to_owned).with_context(|| object.to_string())
    }
}
