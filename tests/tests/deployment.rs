//! The chart on a real node: what installing, removing and killing the agent leaves, and which privileges it needs.

use anyhow::{Context, ensure};
use evenkeel_tests::agent::LISTENER_PORTS;
use evenkeel_tests::deploy::{self, NAMESPACE};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kernel_objects::KernelObjects;
use evenkeel_tests::kubernetes::Cluster;
use evenkeel_tests::kubernetes::agents::AgentPod;
use evenkeel_tests::kubernetes::running_pod::RunningPod;
use evenkeel_tests::kubernetes::shop::{CLIENT, SERVICE_PORT, Shop};
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Outcome, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;

const NODE: &str = "node-1";
/// The agent's: the workspace has one.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A node with the agent on it.
fn installed() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(1)?;
    cluster.install(&[])?;
    Ok(cluster)
}

/// A namespace with two servers, and a client of theirs that is enrolled.
fn shop_with_client(cluster: &Cluster) -> anyhow::Result<(Shop<'_>, SocketAddr, RunningPod)> {
    let shop = Shop::enrolled(cluster, "shop")?;
    let to = shop.serve(2)?;
    let client = shop.client("client", NODE, to)?;
    shop.is_enrolled(&client)?;
    Ok((shop, to, client))
}

/// What an agent has put into the kernel and into pods.
struct Traces {
    held: KernelObjects,
    pods: Vec<RunningPod>,
}

impl Traces {
    fn of(agent: &AgentPod, pods: &[&RunningPod]) -> anyhow::Result<Self> {
        // Without links their absence would prove nothing.
        let held = eventually_some("the agent's programs are attached", || {
            let held = KernelObjects::held_by(&agent.pod.pids_of("evenkeel"))?;
            Ok((!held.links.is_empty() && !held.maps.is_empty()).then_some(held))
        })?;
        let traces = Self { held, pods: pods.iter().copied().cloned().collect() };
        for pod in &traces.pods {
            ensure!(!listeners(pod)?.is_empty(), "no listener in {}", pod.name);
            ensure!(!routes(pod)?.is_empty(), "no route in {}", pod.name);
        }
        Ok(traces)
    }

    /// Waits until the kernel has let go of everything: it does so after the processes' end.
    fn are_gone(&self) -> Outcome {
        let mut left = self.held.clone();
        eventually("the agent's BPF objects go", || {
            left = self.held.remaining().unwrap_or_else(|_| self.held.clone());
            left.is_empty()
        })
        .with_context(|| format!("{left:?}"))?;
        for pod in &self.pods {
            let (listeners, routes) = (listeners(pod)?, routes(pod)?);
            ensure!(listeners.is_empty() && routes.is_empty(), "{}: {listeners:?} {routes:?}", pod.name);
        }
        Ok(())
    }
}

fn listeners(pod: &RunningPod) -> anyhow::Result<Vec<SocketAddr>> {
    let mut listening = pod.listening_on()?;
    listening.retain(|address| LISTENER_PORTS.contains(&address.port()));
    Ok(listening)
}

/// Routes that neither the kernel nor the CNI has made.
fn routes(pod: &RunningPod) -> anyhow::Result<Vec<String>> {
    let netns = format!("--net=/proc/{}/ns/net", pod.sandbox_pid()?);
    let list = Command::new("nsenter")
        .arg(netns)
        .args(["ip", "-6", "route", "show", "table", "local", "proto", "static"])
        .output()?;
    ensure!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    Ok(String::from_utf8(list.stdout)?.lines().map(str::to_owned).collect())
}

#[test]
fn deleting_the_release_leaves_nothing_on_the_node_and_costs_no_call() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = installed()?;
    let (shop, _, client) = shop_with_client(&cluster)?;
    let before = client.more_calls(CLIENT, 20)?;
    let traces = Traces::of(&cluster.agent_on(NODE)?, &[&client])?;
    cluster.uninstall()?;
    traces.are_gone()?;
    let after = client.until(CLIENT, "calls after the release", &before, |tally| tally.completed() >= 100)?;
    shop.is_clean(&client, &after)?;
    client.was_never_restarted(CLIENT)?;
    let left = cluster.run(&["get", "all,serviceaccounts,events", "-n", NAMESPACE, "-o", "name"])?;
    let left: Vec<_> =
        left.lines().filter(|name| name.contains("evenkeel") && !name.starts_with("event")).collect();
    ensure!(left.is_empty(), "{left:?}");
    for kind in ["clusterrole", "clusterrolebinding"] {
        ensure!(cluster.run(&["get", kind, "evenkeel", "--ignore-not-found", "-o", "name"])?.is_empty());
    }
    Ok(())
}

#[test]
fn an_agent_that_is_deleted_by_force_leaves_nothing_on_the_node() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = installed()?;
    let (shop, to, client) = shop_with_client(&cluster)?;
    let agent = cluster.agent_on(NODE)?;
    let traces = Traces::of(&agent, &[&client])?;
    // Else another agent comes at once, with routes and listeners of its own.
    let nowhere = json!({"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "at-all"}}}}});
    let hold = json!({"spec": {"updateStrategy": {"$retainKeys": ["type"], "type": "OnDelete"}}});
    for patch in [hold, nowhere] {
        cluster.run(&["patch", "daemonset/evenkeel", "-n", NAMESPACE, "-p", &patch.to_string()])?;
    }
    cluster.run(&["delete", "pod", &agent.pod.name, "-n", NAMESPACE, "--grace-period=0", "--force"])?;
    eventually("the agent's processes end", || agent.pod.pids().is_empty())?;
    traces.are_gone()?;
    ensure!(!shop.spreads(&client, (to.ip(), SERVICE_PORT).into())?, "something still balances");
    Ok(())
}

/// What the agent says without each of its capabilities.
const WITHOUT: [(&str, &str); 3] = [
    ("SYS_ADMIN", "loading the kernel programs"),
    ("NET_ADMIN", "the pod is not enrolled: opening a listener"),
    ("SYS_PTRACE", "Permission denied (os error 13): the agent needs CAP_SYS_PTRACE"),
];

#[test]
fn each_capability_is_needed() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = installed()?;
    let shop = Shop::enrolled(&cluster, "shop")?;
    let client = shop.idle("idle", NODE)?;
    shop.is_enrolled(&client)?;
    let daemonset = cluster.object("daemonset/evenkeel", NAMESPACE)?;
    let mut pod = daemonset["spec"]["template"].clone();
    let capabilities = "/spec/containers/0/securityContext/capabilities/add";
    let granted: Vec<Value> =
        pod.pointer(capabilities).and_then(Value::as_array).context("no capabilities")?.clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["labels"] = json!({"app": "agent-with-less"});
    pod["spec"]["nodeName"] = json!(NODE);
    let mut start = |name: &str, capabilities_of_it: &[&Value]| -> Outcome {
        pod["metadata"]["name"] = json!(name);
        *pod.pointer_mut(capabilities).context("no capabilities")? = json!(capabilities_of_it);
        cluster.run_with(&["create", "-n", NAMESPACE, "-f", "-"], &pod.to_string()).map(drop)
    };
    let said = |name: &str| {
        let log = |which: &[&str]| {
            cluster.run(&[&["logs", "-n", NAMESPACE, name], which].concat()).unwrap_or_default()
        };
        log(&[]) + &log(&["--previous"])
    };
    // The same agent with all of them is well, so that what each other lacks below is what was taken from it.
    start("with-all", &granted.iter().collect::<Vec<_>>())?;
    let object = cluster.wait_until("pod/with-all", NAMESPACE, |pod| {
        pod["status"]["containerStatuses"][0]["ready"] == true
    })?;
    let with_all = AgentPod { pod: RunningPod::of(&object, &cluster.nodes[0])? };
    ensure!(with_all.is_ready() && !said("with-all").contains("not enrolled"), "{}", said("with-all"));
    cluster.run(&["delete", "pod", "with-all", "-n", NAMESPACE, "--now"])?;

    let names: Vec<&str> = granted.iter().filter_map(Value::as_str).collect();
    ensure!(names == WITHOUT.map(|(capability, _)| capability), "{names:?}");
    for (taken, complaint) in WITHOUT {
        let name = format!("without-{}", taken.to_lowercase().replace('_', "-"));
        start(&name, &granted.iter().filter(|capability| *capability != taken).collect::<Vec<_>>())?;
        eventually(&format!("without {taken} it says {complaint:?}"), || said(&name).contains(complaint))
            .with_context(|| said(&name))?;
        cluster.run(&["delete", "pod", &name, "-n", NAMESPACE, "--now"])?;
    }
    Ok(())
}

#[test]
fn the_image_of_xtask_is_what_the_nodes_run() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::start(1)?;
    let names = cluster.images.add_archive(&deploy::image(cluster.folder())?)?;
    ensure!(names.iter().any(|name| name.ends_with(&format!("/evenkeel:{VERSION}"))), "{names:?}");
    let check = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "version"},
        "spec": {"restartPolicy": "Never", "containers": [{
            "name": "version", "image": format!("evenkeel:{VERSION}"), "args": ["--version"],
            "securityContext": {"readOnlyRootFilesystem": true},
        }]},
    });
    cluster.wait_for("serviceaccount/default", "default")?;
    cluster.run_with(&["create", "-f", "-"], &check.to_string())?;
    cluster.wait_until("pod/version", "default", |pod| pod["status"]["phase"] == "Succeeded")?;
    ensure!(cluster.run(&["logs", "version"])?.trim() == format!("evenkeel {VERSION}"));
    Ok(())
}
