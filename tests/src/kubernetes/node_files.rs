//! The files that a node's programs read.

use super::cluster::{
    API_ADDRESS, DNS_ADDRESS, PAUSE_IMAGE, POD_RANGE, POD_RANGE_V6, pod_range_of, pod_range_v6_of,
};
use super::registry::REGISTRY_PORT;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A node's folder, and what is where in it.
#[derive(Clone, Debug)]
pub(super) struct NodeFolder {
    pub(super) path: PathBuf,
}

/// What the files say that differs from node to node.
pub(super) struct Particulars<'a> {
    pub(super) name: &'a str,
    pub(super) number: u8,
    pub(super) dual_stack: bool,
    pub(super) programs: &'a Path,
    pub(super) runc: &'a Path,
    pub(super) client_ca: &'a Path,
    pub(super) kube_proxy_kubeconfig: &'a Path,
}

impl NodeFolder {
    /// Folders that the node sees as `/var/lib/kubelet`, `/var/lib/containerd` and `/var/log`, and that outlive a power cut.
    pub(super) const STATE: [(&'static str, &'static str); 3] =
        [("kubelet", "/var/lib/kubelet"), ("containerd", "/var/lib/containerd"), ("var-log", "/var/log")];

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where the kubelet finds pods of its own.
    pub(super) fn static_pods(&self) -> PathBuf {
        self.file("static-pods")
    }

    /// Writes everything.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self, particulars: &Particulars<'_>) -> Result<()> {
        for folder in Self::STATE.map(|(name, _)| name).iter().chain(&["log", "cni", "static-pods"]) {
            fs::create_dir_all(self.file(folder))?;
        }
        fs::create_dir_all(self.file("registries/_default"))?;
        let files = [
            ("containerd.toml", self.containerd(particulars)),
            ("registries/_default/hosts.toml", registry()),
            ("cni/10-pods.conflist", network(particulars).to_string()),
            // Every JSON document is a YAML document.
            ("kubelet.yaml", self.kubelet(particulars).to_string()),
            ("kube-proxy.yaml", kube_proxy(particulars).to_string()),
            // The machine's own servers are out of reach.
            ("resolv.conf", String::new()),
        ];
        for (name, text) in files {
            fs::write(self.file(name), text).with_context(|| name.to_owned())?;
        }
        Ok(())
    }

    fn containerd(&self, particulars: &Particulars<'_>) -> String {
        let (registries, networks) = (self.file("registries"), self.file("cni"));
        let plugins = particulars.programs.join("cni");
        format!(
            "version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
imports = []
disabled_plugins = ['io.containerd.nri.v1.nri']
[grpc]
  address = '/run/containerd/containerd.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = '{}'
[plugins.'io.containerd.cri.v1.runtime']
  disable_apparmor = true
  # Root without CAP_SYS_RESOURCE cannot lower a score, and every sandbox asks for that.
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  conf_dir = '{}'
  bin_dirs = ['{}']
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '{}'
  SystemdCgroup = false
",
            registries.display(),
            networks.display(),
            plugins.display(),
            particulars.runc.display()
        )
    }

    fn kubelet(&self, particulars: &Particulars<'_>) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": particulars.client_ca},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            // The pods' UIDs stand in their cgroups' names only with it.
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": [],
            "failCgroupV1": false,
            "failSwapOn": false,
            // What is short on this machine is none of the cluster's business.
            "localStorageCapacityIsolation": false,
            "evictionHard": {
                "memory.available": "0%", "nodefs.available": "0%",
                "nodefs.inodesFree": "0%", "imagefs.available": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": self.file("resolv.conf"),
            "staticPodPath": self.static_pods(),
            // A lost node is noticed while a test waits.
            "nodeStatusUpdateFrequency": "4s",
            "syncFrequency": "10s",
            "makeIPTablesUtilChains": false,
        })
    }
}

/// Pulls of images from anywhere go to the cluster's own registry.
fn registry() -> String {
    let url = format!("http://{API_ADDRESS}:{REGISTRY_PORT}");
    format!("server = '{url}'\n[host.'{url}']\n  capabilities = ['pull', 'resolve']\n")
}

/// A bridge a node; the other nodes' ranges are routed.
fn network(particulars: &Particulars<'_>) -> Value {
    let mut ranges = vec![json!([{"subnet": pod_range_of(particulars.number)}])];
    if particulars.dual_stack {
        ranges.push(json!([{"subnet": pod_range_v6_of(particulars.number)}]));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
                "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": ranges,
                },
            },
            {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kube_proxy(particulars: &Particulars<'_>) -> Value {
    let pods =
        if particulars.dual_stack { format!("{POD_RANGE},{POD_RANGE_V6}") } else { POD_RANGE.to_owned() };
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": particulars.name,
        "clientConnection": {"kubeconfig": particulars.kube_proxy_kubeconfig},
        "clusterCIDR": pods,
        "metricsBindAddress": "127.0.0.1:10249",
        // The machine's limit is not a node's to change.
        "conntrack": {"maxPerCore": 0},
    })
}
