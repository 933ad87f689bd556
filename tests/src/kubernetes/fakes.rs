//! Nodes and states of pods written by hand, on a control plane that has no kubelet.

use super::kubectl::Kubectl;
use anyhow::Result;
use serde_json::json;
use std::net::IpAddr;

impl Kubectl {
    /// A Node that is Ready, in that zone (none: no label says so).
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn fake_node(&self, name: &str, address: IpAddr, zone: Option<&str>) -> Result<()> {
        let mut labels = json!({"kubernetes.io/hostname": name});
        if let Some(zone) = zone {
            labels["topology.kubernetes.io/zone"] = json!(zone);
        }
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        });
        self.apply(&node.to_string())?;
        let status = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "Fake", "message": "written by hand"}],
            "addresses": [{"type": "InternalIP", "address": address}],
        }});
        self.patch_status(&format!("node/{name}"), "default", &status.to_string())
    }

    /// Says of a pod that it runs, has those addresses, and is ready or not.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn fake_running(&self, namespace: &str, pod: &str, addresses: &[IpAddr], ready: bool) -> Result<()> {
        let ready = if ready { "True" } else { "False" };
        let addresses: Vec<_> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let status = json!({"status": {
            "phase": "Running",
            "podIP": addresses.first().map(|address| &address["ip"]),
            "podIPs": addresses,
            "conditions": [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready}],
        }});
        self.patch_status(&format!("pod/{pod}"), namespace, &status.to_string())
    }

    /// Changes an object's status by a merge patch, as its controller or kubelet would.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn patch_status(&self, what: &str, namespace: &str, patch: &str) -> Result<()> {
        self.run(&["patch", what, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch])
            .map(drop)
    }
}
