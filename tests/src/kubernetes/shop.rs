//! A Namespace of its own with greeters behind Services, and clients that call them.

use super::agents::AgentPod;
use super::cluster::{Cluster, PEER_IMAGE};
use super::kubectl::WITHOUT_SCHEMAS;
use super::running_pod::RunningPod;
use crate::Tally;
use crate::manifests::{ENABLED_LABEL, PICKER_ANNOTATION};
use crate::wait::{eventually_answered, eventually_some};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;

/// Where the greeters' Service listens.
pub const SERVICE_PORT: u16 = 50_051;
/// Where the greeters themselves listen.
pub const TARGET_PORT: u16 = 9_000;
/// The greeters' Service, and their label `app`.
pub const GREETER: &str = "greeter";
/// The container of a client's pod.
pub const CLIENT: &str = "client";
/// The label by which a Namespace or pod is enrolled.
pub const ENABLED: &str = ENABLED_LABEL;
/// Calls a second of a client: enough to see soon where they go.
const CLIENT_RATE: &str = "30";
/// Options of a client that loses no more than one call with its connection, however slow the machine.
pub const ONE_IN_FLIGHT: [&str; 2] = ["--in-flight", "1"];
/// Calls that show whether they are spread, over more than one turn of each of the agent's workers.
const TELLING_CALLS: &str = "12";
/// Out of step with the other clients.
const TELLING_RATE: &str = "130";

/// A Namespace that goes with the value.
#[derive(Debug)]
pub struct Shop<'a> {
    cluster: &'a Cluster,
    /// The Namespace's name.
    pub namespace: String,
    agents: RefCell<HashMap<String, AgentPod>>,
    is_left: bool,
}

impl<'a> Shop<'a> {
    /// A Namespace with that metadata (labels, annotations), and nothing in it.
    ///
    /// # Errors
    /// When it is there already.
    pub fn open(cluster: &'a Cluster, namespace: &str, metadata: &Value) -> Result<Self> {
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        object["metadata"]["name"] = json!(namespace);
        cluster.run_with(&["create", WITHOUT_SCHEMAS, "-f", "-"], &object.to_string())?;
        let shop = Self::left_open(cluster, namespace);
        // Pods are refused before.
        cluster.wait_for("serviceaccount/default", namespace)?;
        Ok(shop)
    }

    /// The Namespace of that name that [`Self::leave`] left.
    #[must_use]
    pub fn left_open(cluster: &'a Cluster, namespace: &str) -> Self {
        Self { cluster, namespace: namespace.to_owned(), agents: RefCell::default(), is_left: false }
    }

    /// Leaves the Namespace as it is, for [`Self::left_open`], and gives its name.
    pub fn leave(mut self) -> String {
        self.is_left = true;
        self.namespace.clone()
    }

    /// A Namespace that is enrolled from its start.
    ///
    /// # Errors
    /// When it is there already.
    pub fn enrolled(cluster: &'a Cluster, namespace: &str) -> Result<Self> {
        Self::open(cluster, namespace, &json!({"labels": {ENABLED: "true"}}))
    }

    /// Creates or changes objects in the Namespace.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.apply_with(&["-n", &self.namespace], &list.to_string())
    }

    /// kubectl in the Namespace.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.run(&[arguments, &["-n", &self.namespace]].concat())
    }

    /// Changes the Namespace's own labels or annotations: `label`, `evenkeel.dev/enabled=true`.
    ///
    /// # Errors
    /// With what kubectl says when it fails.
    pub fn mark(&self, verb: &str, what: &str) -> Result<()> {
        self.cluster.run(&[verb, "namespace", &self.namespace, "--overwrite", what]).map(drop)
    }

    /// Greeters on the nodes in turn behind the Service, all ready, and known to kube-proxy.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn serve(&self, greeters: usize) -> Result<SocketAddr> {
        let nodes = self.cluster.nodes.iter().map(|node| node.name.as_str()).cycle();
        let pods = (1..=greeters).zip(nodes).map(|(number, node)| server(&format!("server-{number}"), node));
        let objects: Vec<Value> = pods.chain([service(GREETER)]).collect();
        self.apply(&objects)?;
        self.all_ready(&format!("app={GREETER}"))?;
        let address = self.address(GREETER)?;
        self.cluster.wait_until_reached(address)?;
        Ok(address)
    }

    /// The ClusterIP and first port of a Service.
    ///
    /// # Errors
    /// When there is none.
    pub fn address(&self, service: &str) -> Result<SocketAddr> {
        let service = self.cluster.object(&format!("service/{service}"), &self.namespace)?;
        let address = service["spec"]["clusterIP"].as_str().context("it has a ClusterIP")?;
        let port = service["spec"]["ports"][0]["port"].as_u64().context("it has a port")?;
        Ok((address.parse::<std::net::IpAddr>()?, u16::try_from(port)?).into())
    }

    /// Starts a pod, and waits until it is Ready.
    ///
    /// # Errors
    /// When it does not become so.
    pub fn start(&self, pod: Value) -> Result<RunningPod> {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?.to_owned();
        self.apply(&[pod])?;
        self.ready(&name)
    }

    /// A client on that node that calls `to` until it is stopped, once its first calls are answered.
    ///
    /// # Errors
    /// When they are not.
    pub fn client(&self, name: &str, node: &str, to: SocketAddr) -> Result<RunningPod> {
        self.client_with(name, node, to, &[])
    }

    /// The same with these options.
    ///
    /// # Errors
    /// When its first calls are not answered.
    pub fn client_with(
        &self,
        name: &str,
        node: &str,
        to: SocketAddr,
        options: &[&str],
    ) -> Result<RunningPod> {
        let mut object = client(name, node, to);
        if let Some(arguments) = object["spec"]["containers"][0]["args"].as_array_mut() {
            arguments.extend(options.iter().map(|&option| json!(option)));
        }
        let pod = self.start(object)?;
        pod.more_calls(CLIENT, 5)?;
        Ok(pod)
    }

    /// A pod on that node that does nothing, for calls by [`Self::call`].
    ///
    /// # Errors
    /// When it does not become Ready.
    pub fn idle(&self, name: &str, node: &str) -> Result<RunningPod> {
        self.start(idle(name, node))
    }

    /// Waits until a pod is Ready.
    ///
    /// # Errors
    /// When it does not become so, with its events.
    pub fn ready(&self, pod: &str) -> Result<RunningPod> {
        self.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), LIMIT])
            .with_context(|| self.events())?;
        self.pod(pod)
    }

    /// Waits until all pods with those labels are Ready.
    ///
    /// # Errors
    /// When one does not become so, with the Namespace's events.
    pub fn all_ready(&self, labels: &str) -> Result<()> {
        self.kubectl(&["wait", "--for=condition=Ready", "pod", "-l", labels, LIMIT])
            .map(drop)
            .with_context(|| self.events())
    }

    /// The pods with those labels, which have their addresses.
    ///
    /// # Errors
    /// When one has none.
    pub fn pods(&self, labels: &str) -> Result<Vec<RunningPod>> {
        let objects = self.cluster.list("pods", &self.namespace, labels)?;
        objects.iter().map(|object| self.running(object)).collect()
    }

    /// A pod that has its address.
    ///
    /// # Errors
    /// When it has none.
    pub fn pod(&self, name: &str) -> Result<RunningPod> {
        self.running(&self.cluster.object(&format!("pod/{name}"), &self.namespace)?)
    }

    fn running(&self, object: &Value) -> Result<RunningPod> {
        let on = |node: &&super::Node| object["spec"]["nodeName"] == node.name;
        let node = self.cluster.nodes.iter().find(on);
        RunningPod::of(object, node.with_context(|| format!("it is on no node: {object}"))?)
    }

    /// Calls `to` from one fresh connection of a pod, inside its first container; failed calls are in the tally.
    ///
    /// # Errors
    /// When the client does not end well.
    pub fn call(&self, pod: &RunningPod, to: SocketAddr, options: &[&str]) -> Result<Tally> {
        let to = to.to_string();
        let load = ["/peer", "load", "--to", &to, "--calls", TELLING_CALLS, "--rate", TELLING_RATE];
        let said = self.kubectl_exec(pod, &[&load[..], options].concat())?;
        said.lines().rev().find_map(Tally::told).with_context(|| said.clone())
    }

    /// Whether the calls of one fresh connection of a pod are spread, rather than all on one server. A connection that went straight because
    /// the agent had got no time for a second, by the kernel's own count, tells neither: another is made.
    ///
    /// # Errors
    /// When a call fails.
    pub fn spreads(&self, pod: &RunningPod, to: SocketAddr) -> Result<bool> {
        eventually_some("a connection finds an agent that is not silent", || {
            let silences = self.silences(pod);
            let tally = self.call(pod, to, &[])?;
            tally.is_clean()?;
            let is_spread = tally.calls.len() > 1;
            Ok((is_spread || self.silences(pod) <= silences).then_some(is_spread))
        })
    }

    /// How many connections of a pod its node's agent was too silent for, as it shows them now; none where it does not.
    fn silences(&self, pod: &RunningPod) -> u64 {
        let agents = self.cluster.agents_on(&pod.node).unwrap_or_default();
        let pods = agents.iter().find_map(|agent| agent.admin("/pods").ok()).unwrap_or_default();
        let view = pods.as_array().into_iter().flatten().find(|view| view["uid"] == pod.uid.as_str());
        view.and_then(|view| view["connections"]["agent_silent"].as_u64()).unwrap_or(0)
    }

    fn kubectl_exec(&self, pod: &RunningPod, command: &[&str]) -> Result<String> {
        self.cluster.run(&[&["exec", "-n", &self.namespace, &pod.name, "--"], command].concat())
    }

    /// Waits until the agents of all nodes take connections to a port of a Service, and know so many endpoints of it.
    ///
    /// # Errors
    /// When they do not.
    pub fn captured(&self, service: &str, port: u16, endpoints: usize) -> Result<()> {
        for node in &self.cluster.nodes {
            self.service_port(&node.name, service, port, |view| {
                view["endpoints"] == endpoints && !view["captured"].as_array().is_none_or(Vec::is_empty)
            })?;
        }
        Ok(())
    }

    /// Waits until what the agent of a node shows of a port of a Service satisfies `condition`, and gives it.
    ///
    /// # Errors
    /// When it does not come so.
    pub fn service_port(
        &self,
        node: &str,
        service: &str,
        port: u16,
        condition: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("{service}:{port} is as expected on {node}");
        self.shown(node, "/services", &what, |services| {
            let services = services.as_array()?;
            let of = |view: &&Value| view["namespace"] == self.namespace.as_str() && view["name"] == service;
            let view = services.iter().find(of)?;
            let view = view["ports"].as_array()?.iter().find(|view| view["port"] == port)?;
            condition(view).then(|| view.clone())
        })
    }

    /// Waits until what the agent of its node shows of a pod satisfies `condition`, and gives it.
    ///
    /// # Errors
    /// When it does not come so.
    pub fn shown_of(&self, pod: &RunningPod, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let what = format!("{} is shown as expected", pod.name);
        self.shown(&pod.node, "/pods", &what, |pods| {
            let view = pods.as_array()?.iter().find(|view| view["uid"] == pod.uid.as_str())?;
            condition(view).then(|| view.clone())
        })
    }

    /// Waits until its node's agent has enrolled a pod, and gives what it shows of it.
    ///
    /// # Errors
    /// When it has not.
    pub fn is_enrolled(&self, pod: &RunningPod) -> Result<Value> {
        self.shown_of(pod, |view| view["enrolled"] == true)
    }

    /// Waits until its node's agent says that it leaves a pod alone, for a reason that has these words.
    ///
    /// # Errors
    /// When it does not say so.
    pub fn is_left_alone(&self, pod: &RunningPod, reason: &str) -> Result<Value> {
        self.shown_of(pod, |view| {
            view["enrolled"] != true && view["reason"].as_str().is_some_and(|why| why.contains(reason))
        })
    }

    /// Waits until a page of a node's agent has what `find` looks for.
    ///
    /// # Errors
    /// When it has not, with the page.
    pub fn shown<T>(
        &self,
        node: &str,
        page: &str,
        what: &str,
        find: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = Value::Null;
        let waited = eventually_answered(what, || {
            last = self.page(node, page)?;
            Ok(find(&last))
        });
        waited.with_context(|| format!("{page} of {node}: {last}"))
    }

    /// A page of a node's agent, also after another agent has come in its place.
    fn page(&self, node: &str, page: &str) -> Result<Value> {
        if let Some(agent) = self.agents.borrow().get(node)
            && let Ok(value) = agent.admin(page)
        {
            return Ok(value);
        }
        let agent = self.cluster.agent_on(node)?;
        let value = agent.admin(page);
        self.agents.borrow_mut().insert(node.to_owned(), agent);
        value
    }

    /// What happened in the Namespace.
    pub fn events(&self) -> String {
        self.kubectl(&["get", "pods,events", "-o", "wide"]).unwrap_or_default()
    }

    /// Checks that all calls of a client's have been answered, each from the pod's own address.
    ///
    /// # Errors
    /// With the whole tally.
    pub fn is_clean(&self, client: &RunningPod, tally: &Tally) -> Result<()> {
        tally.is_clean()?;
        let seen: Vec<&String> = tally.seen_as.keys().collect();
        ensure!(seen == [&client.address.to_string()], "servers see {}: {tally:?}", client.address);
        Ok(())
    }
}

impl Drop for Shop<'_> {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let deleted = self.cluster.run(&["delete", "namespace", &self.namespace, "--wait=false"]);
        if let Err(error) = deleted {
            eprintln!("{error:#}");
        }
    }
}

/// How long kubectl waits.
const LIMIT: &str = "--timeout=180s";

/// A greeter's pod.
pub fn server(name: &str, node: &str) -> Value {
    pod(name, node, GREETER, &server_container())
}

/// A greeter that is called as its pod is.
pub fn server_container() -> Value {
    json!({
        "name": "server", "image": PEER_IMAGE, "imagePullPolicy": "IfNotPresent",
        "args": ["serve", "--listen", format!("[::]:{TARGET_PORT}")],
        "ports": [{"name": "grpc", "containerPort": TARGET_PORT}],
        "readinessProbe": {"tcpSocket": {"port": "grpc"}, "periodSeconds": 1},
    })
}

/// The Service of the greeters.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        // By latency a server that was slow a moment ago, as all are on a machine of two cores, may get none of a few calls.
        "metadata": {"name": name, "annotations": {PICKER_ANNOTATION: "round-robin"}},
        "spec": {
            "selector": {"app": GREETER},
            "ports": [{"name": "grpc", "port": SERVICE_PORT, "targetPort": "grpc"}],
        },
    })
}

/// A client's pod.
pub fn client(name: &str, node: &str, to: SocketAddr) -> Value {
    pod(name, node, CLIENT, &client_container(CLIENT, to))
}

/// A client that calls until it is stopped.
pub fn client_container(name: &str, to: SocketAddr) -> Value {
    json!({
        "name": name, "image": PEER_IMAGE, "imagePullPolicy": "IfNotPresent",
        "args": ["load", "--to", to.to_string(), "--rate", CLIENT_RATE],
    })
}

/// A client that ends after some calls on one connection.
pub fn short_client_container(name: &str, to: SocketAddr) -> Value {
    json!({
        "name": name, "image": PEER_IMAGE, "imagePullPolicy": "IfNotPresent",
        "args": ["load", "--to", to.to_string(), "--rate", TELLING_RATE, "--calls", TELLING_CALLS],
    })
}

/// A pod that waits for somebody to call it.
pub fn idle(name: &str, node: &str) -> Value {
    let container = json!({"name": CLIENT, "image": PEER_IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["echo", "--listen", "[::]:7"]});
    pod(name, node, "idle", &container)
}

/// A pod on that node.
pub fn pod(name: &str, node: &str, app: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 2,
            "containers": [container],
        },
    })
}
