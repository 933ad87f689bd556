//! A shop whose objects are on a real API server: etcd and the API server run on the node's loopback, and the agent learns of
//! everything as on a cluster. Pods are network namespaces as ever, which their objects name.

use crate::agent::Options;
use crate::cluster::NODE_NAME;
use crate::deploy::Objects;
use crate::kubernetes::install::RELEASE;
use crate::kubernetes::{ControlPlane, control_plane};
use crate::manifests::{NETNS_ANNOTATION, Namespace, PodObject, Service};
use crate::{Agent, Shop, deploy};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

/// The Namespace and the name of the agent's ServiceAccount and ClusterRole.
pub const AGENT_NAMESPACE: &str = deploy::NAMESPACE;
/// See [`AGENT_NAMESPACE`].
pub const AGENT_NAME: &str = RELEASE;

/// What the agent may do to a resource: its API group, its name, the verbs.
pub type Right = (&'static str, &'static str, &'static [&'static str]);

/// All that the agent is allowed by what is installed: a rule for each resource.
pub static RIGHTS: LazyLock<Vec<Right>> = LazyLock::new(|| {
    let role = &INSTALLED[&("ClusterRole".to_owned(), AGENT_NAME.to_owned())];
    let words = |list: &'static Value| list.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        let verbs: &[&str] = words(&rule["verbs"]).collect::<Vec<_>>().leak();
        for group in words(&rule["apiGroups"]) {
            rights.extend(words(&rule["resources"]).map(|resource| (group, resource, verbs)));
        }
    }
    rights
});

/// What `kubectl apply -k deploy/kustomize/base` installs.
static INSTALLED: LazyLock<Objects> = LazyLock::new(|| {
    let yaml = std::fs::read_to_string(deploy::folder("kustomize/base/evenkeel.yaml"));
    deploy::objects(&yaml.expect("it is committed")).expect("lint checks it")
});

/// Has the agent heed [`NETNS_ANNOTATION`].
pub const NETNS_ARGUMENT: &str = "--netns-annotation";

/// A [`Shop`] on an API server.
#[derive(Debug)]
pub struct ApiShop {
    /// The pods, and the objects as they are to be: change, then [`Self::publish`].
    pub shop: Shop,
    /// The API server and its etcd.
    pub plane: ControlPlane,
    published: BTreeSet<String>,
}

impl ApiShop {
    /// An enrolled shop with so many servers, known to the API server.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn enrolled(servers: usize) -> Result<Self> {
        Self::enrolled_with(servers, &[])
    }

    /// As [`Self::enrolled`], with further arguments of the API server's.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn enrolled_with(servers: usize, api_server_arguments: &[&str]) -> Result<Self> {
        let mut shop = Shop::enrolled(servers)?;
        let options = control_plane::Options {
            api_server_arguments: api_server_arguments.iter().map(|&argument| argument.into()).collect(),
            ..control_plane::Options::default()
        };
        shop.cluster.enrol_namespace(true);
        let plane = ControlPlane::in_netns(Arc::clone(&shop.cluster.node), &options, true)?;
        plane.fake_node(NODE_NAME, "10.0.0.9".parse()?, Some("zone-a"))?;
        plane.apply(&account())?;
        let mut shop = Self { shop, plane, published: BTreeSet::new() };
        shop.publish()?;
        Ok(shop)
    }

    /// Makes the API server's objects, and the node's rules, as the shop's are.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn publish(&mut self) -> Result<()> {
        let cluster = &self.shop.cluster;
        cluster.publish()?;
        let namespaces: Vec<Value> = cluster.namespaces.values().map(Namespace::object).collect();
        let accounts = cluster.namespaces.keys().map(|namespace| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": "default"}})
        });
        let services = cluster.services.values().flat_map(Service::objects).map(single_stack);
        let pods: Vec<Value> = cluster.pods.values().map(|pod| self.pod(pod)).collect();
        let objects: Vec<Value> = accounts.chain(services).chain(pods).collect();
        let now: BTreeSet<String> = objects.iter().map(reference).collect();
        for gone in self.published.difference(&now) {
            let (namespace, what) = gone.split_once(' ').context("a reference has two parts")?;
            self.plane.run(&["delete", what, "-n", namespace, "--grace-period=0", "--force"])?;
        }
        self.plane.apply(&list(&namespaces))?;
        self.plane.apply(&list(&objects))?;
        for pod in cluster.pods.values().filter(|pod| !self.published.contains(&pod_reference(pod))) {
            let addresses: Vec<IpAddr> = pod.addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
            self.plane.fake_running(&pod.namespace, &pod.name, &addresses, true)?;
        }
        self.published = now;
        Ok(())
    }

    /// Makes exactly the servers at those positions the Service's endpoints.
    ///
    /// # Errors
    /// When it cannot be published.
    pub fn publish_servers(&mut self, positions: &[usize]) -> Result<()> {
        self.shop.publish_servers(positions)?;
        self.publish()
    }

    /// The options of an agent that learns of everything from the API server, by its own ServiceAccount.
    ///
    /// # Errors
    /// When it has none.
    pub fn options(&self) -> Result<Options> {
        let arguments = vec![NETNS_ARGUMENT.into()];
        Ok(Options { kubeconfig: Some(self.kubeconfig()?), arguments, ..Options::default() })
    }

    /// The kubeconfig of the agent's ServiceAccount.
    ///
    /// # Errors
    /// When there is none.
    pub fn kubeconfig(&self) -> Result<PathBuf> {
        self.plane.service_account_kubeconfig(AGENT_NAMESPACE, AGENT_NAME)
    }

    /// An agent that learns of everything from the API server, ready.
    ///
    /// # Errors
    /// With its last words when it ends instead.
    pub fn agent(&self) -> Result<Agent> {
        Agent::start_with(&self.shop.cluster, &self.options()?)
    }

    fn pod(&self, pod: &PodObject) -> Value {
        let mut object = pod.object();
        let netns =
            [&self.shop.client].into_iter().chain(&self.shop.servers).find(|known| known.name == pod.name);
        if let Some(known) = netns {
            object["metadata"]["annotations"][NETNS_ANNOTATION] = json!(known.netns.path());
        }
        object["spec"]["automountServiceAccountToken"] = json!(false);
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("uid");
        }
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        object
    }
}

/// How a kind of objects stands, by the agent's own word.
///
/// # Errors
/// When it does not answer, or knows no such kind.
pub fn kind(agent: &Agent, name: &str) -> Result<Value> {
    let kinds = agent.admin("/source")?;
    let kind = kinds.as_array().into_iter().flatten().find(|kind| kind["kind"] == name);
    kind.cloned().context("no such kind")
}

/// What is wrong, by the agent's own word, as JSON; nothing where it does not answer.
pub fn problems(agent: &Agent) -> String {
    agent.admin("/problems").map(|problems| problems.to_string()).unwrap_or_default()
}

/// The agent's ServiceAccount and what binds it to its ClusterRole, as they are installed.
fn account() -> String {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENT_NAMESPACE}});
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"];
    let installed = kinds.map(|kind| INSTALLED[&(kind.to_owned(), AGENT_NAME.to_owned())].clone());
    list(&[&[namespace][..], &installed].concat())
}

/// The agent's ClusterRole with these rights.
pub fn role(rights: &[Right]) -> String {
    let rules: Vec<Value> = rights
        .iter()
        .map(
            |(group, resource, verbs)| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs}),
        )
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": AGENT_NAME},
        "rules": rules,
    })
    .to_string()
}

fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// The API server of the tests has one family of ClusterIPs.
fn single_stack(mut object: Value) -> Value {
    if object["kind"] == "Service" {
        object["spec"]["clusterIPs"] = json!([object["spec"]["clusterIP"]]);
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
    }
    object
}

fn reference(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!(
        "{} {}/{}",
        text(&metadata["namespace"]),
        text(&object["kind"]).to_lowercase(),
        text(&metadata["name"])
    )
}

fn pod_reference(pod: &PodObject) -> String {
    format!("{} pod/{}", pod.namespace, pod.name)
}

/// A call of etcd's own, past the API server: what it says.
///
/// # Errors
/// With what curl says when it fails.
pub fn etcd(plane: &ControlPlane, call: &str, body: &Value) -> Result<Value> {
    let netns = plane.netns().context("a control plane in a network namespace")?;
    let url = format!("{}/v3/{call}", plane.url_of_etcd());
    let namespace = format!("--net={}", netns.path().display());
    let said = crate::host::run("nsenter", &[&namespace, "curl", "-sf", &url, "-d", &body.to_string()], "")?;
    serde_json::from_str(&said).context(said)
}
