//! The agent's place in its cluster, for `evenkeel agent` and `evenkeel check`.

use super::Source;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::path::PathBuf;

/// Where the API server is, and which node and pod we are.
#[derive(Args, Clone, Debug)]
pub struct ClusterArgs {
    /// How the API server is reached; by default by the pod's service account
    #[arg(long, env = "EVENKEEL_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The name of this node in its cluster (spec.nodeName)
    #[arg(long, env = "EVENKEEL_NODE_NAME", value_name = "NAME", value_parser = parse_name)]
    node_name: Option<String>,
    /// The UID of the agent's own pod (metadata.uid), which is never enrolled
    #[arg(long, env = "EVENKEEL_POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// Takes the taint with this key off this node once the agent is ready, as evenkeel.dev/agent-not-ready. Needs the verb
    /// patch on nodes
    #[arg(long, env = "EVENKEEL_STARTUP_TAINT", value_name = "KEY", value_parser = parse_key)]
    startup_taint: Option<String>,
    /// Labels each pod of this node that is to be enrolled with evenkeel.dev/status, for kubectl get pods -L. Needs the verb
    /// patch on pods
    #[arg(long, env = "EVENKEEL_LABEL_PODS")]
    label_pods: bool,
    /// Heeds evenkeel.dev/netns, a pod's own word on where its network namespace is. Only for a host without a kubelet whose pods are
    /// all trusted with it: the path leads to any namespace of the node
    #[arg(long, env = "EVENKEEL_NETNS_ANNOTATION")]
    netns_annotation: bool,
}

/// A checked [`ClusterArgs`].
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct ClusterConfig {
    /// How the API server is reached; `None`: by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// This node's name; `None`, which a folder alone allows: all pods are this node's.
    pub node_name: Option<String>,
    /// The agent's own pod.
    pub pod_uid: Option<String>,
    /// The taint to take off when ready.
    pub startup_taint: Option<String>,
    /// Whether pods are labelled with what became of them.
    pub label_pods: bool,
    /// Whether a pod's annotation says where its network namespace is: of a folder always, as who writes it rules the node.
    pub netns_annotation: bool,
}

impl ClusterArgs {
    /// As they are, for who can do with any of them.
    pub fn as_given(self) -> ClusterConfig {
        let Self { kubeconfig, node_name, pod_uid, startup_taint, label_pods, netns_annotation } = self;
        ClusterConfig { kubeconfig, node_name, pod_uid, startup_taint, label_pods, netns_annotation }
    }

    /// Checks them for what they are used with.
    ///
    /// # Errors
    /// What the source needs, or has no use for.
    pub fn check(self, source: &Source) -> Result<ClusterConfig, String> {
        let given = self.as_given();
        match source {
            Source::Kubernetes if given.node_name.is_none() => {
                Err("--node-name (EVENKEEL_NODE_NAME) is needed to know this node's pods: set it from spec.nodeName; without a \
                     cluster, say --source folder:DIR"
                    .into())
            }
            Source::Folder(_) if given.startup_taint.is_some() || given.label_pods => {
                Err("--startup-taint and --label-pods need a cluster: --source kubernetes".into())
            }
            Source::Folder(_) => Ok(ClusterConfig { netns_annotation: true, ..given }),
            Source::Kubernetes => Ok(given),
        }
    }
}

/// A node's name: a DNS subdomain (RFC 1123).
fn parse_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    match !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed) {
        true => Ok(text.into()),
        false => Err("expected the name of a node: lower-case letters, digits, '-' and '.'".into()),
    }
}

/// The key of a taint: a label's key.
fn parse_key(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    match !text.is_empty() && text.len() <= 253 + 1 + 63 && text.bytes().all(allowed) {
        true => Ok(text.into()),
        false => Err("expected the key of a taint, as evenkeel.dev/agent-not-ready".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        cluster: ClusterArgs,
    }

    fn check(arguments: &[&str], source: &Source) -> Result<ClusterConfig, String> {
        let line = Line::try_parse_from([&["x"], arguments].concat()).map_err(|error| error.to_string())?;
        line.cluster.check(source)
    }

    #[test]
    fn a_cluster_needs_a_node_and_a_folder_has_none_to_write_to() {
        let folder = Source::Folder("/x".into());
        assert!(check(&[], &Source::Kubernetes).unwrap_err().contains("--node-name"));
        assert!(check(&[], &folder).unwrap().node_name.is_none());
        let config = check(&["--node-name", "n1", "--startup-taint", "a.b/c"], &Source::Kubernetes).unwrap();
        assert_eq!(
            (config.node_name.as_deref(), config.startup_taint.as_deref()),
            (Some("n1"), Some("a.b/c"))
        );
        assert!(check(&[], &folder).unwrap().netns_annotation && !config.netns_annotation);
        assert!(check(&["--label-pods"], &folder).unwrap_err().contains("--source kubernetes"));
        for bad in [["--node-name", "a/b"], ["--node-name", ""], ["--startup-taint", "a b"]] {
            assert!(check(&bad, &Source::Kubernetes).is_err(), "{bad:?}");
        }
    }
}
