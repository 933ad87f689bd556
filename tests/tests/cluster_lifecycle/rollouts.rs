//! What people do on purpose: upgrades of the agents, of the servers, drains of nodes, the end of it all. No call fails.

use super::{STARTUP_TAINT, VALUES, cluster_alone};
use anyhow::{Context, Result, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::shop::{CLIENT, GREETER, SERVICE_PORT, client, server_container, service};
use evenkeel_tests::kubernetes::{Cluster, RunningPod, Shop};
use evenkeel_tests::{Outcome, Tally, deploy, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Greeters that the scheduler puts where it likes.
fn deployment(replicas: usize) -> Value {
    let labels = json!({"app": GREETER});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": GREETER},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 10, "containers": [server_container()]},
            },
        },
    })
}

/// Starts such greeters behind their Service, and waits until everybody knows them.
fn serve(cluster: &Cluster, shop: &Shop<'_>, replicas: usize) -> Result<SocketAddr> {
    shop.apply(&[deployment(replicas), service(GREETER)])?;
    cluster.rolled_out(&format!("deployment/{GREETER}"), &shop.namespace)?;
    let address = shop.address(GREETER)?;
    cluster.wait_until_reached(address)?;
    shop.captured(GREETER, SERVICE_PORT, replicas)?;
    Ok(address)
}

/// A client of calls of all kinds, streams among them.
fn client_of_all_kinds(shop: &Shop<'_>, name: &str, node: &str, to: SocketAddr) -> Result<RunningPod> {
    let pod = shop.client_with(name, node, to, &["--kind", "mixed"])?;
    pod.more_calls(CLIENT, 20)?;
    shop.is_enrolled(&pod)?;
    Ok(pod)
}

/// Of the calls since, none has failed and none has gone astray.
fn all_are_well(shop: &Shop<'_>, clients: &[RunningPod]) -> Result<()> {
    for client in clients {
        client.more_calls(CLIENT, 30)?;
        let tally = client.tally(CLIENT)?;
        shop.is_clean(client, &tally)?;
        client.was_never_restarted(CLIENT)?;
    }
    Ok(())
}

#[test]
fn a_rolling_upgrade_of_the_agents_fails_no_call() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "upgrade")?;
    let address = serve(&cluster, &shop, 3)?;
    let clients = [
        client_of_all_kinds(&shop, "client-1", "node-1", address)?,
        client_of_all_kinds(&shop, "client-2", "node-2", address)?,
    ];
    let old = [cluster.agent_on("node-1")?, cluster.agent_on("node-2")?];
    // Another value makes other pods of the DaemonSet, as another version does.
    cluster.install(&[&VALUES[..], &["--set", "podAnnotations.upgraded=yes"]].concat())?;
    eventually("the old agents have ended", || old.iter().all(|agent| agent.pod.pids().is_empty()))?;
    for (client, old) in clients.iter().zip(&old) {
        let agent = cluster.agent_on(&client.node)?;
        ensure!(agent.pod.uid != old.pod.uid);
        shop.is_enrolled(client)?;
        let now = client.tally(CLIENT)?;
        client.until(CLIENT, "all servers answer", &now, |tally| tally.calls.len() == 3)?;
        ensure!(!client.goes_straight_to(address)?, "the new agent has taken it over");
    }
    all_are_well(&shop, &clients)
}

/// The old one stays until the new one is ready.
#[test]
fn an_upgrade_to_an_agent_that_cannot_start_harms_nobody() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "bad-upgrade")?;
    let address = serve(&cluster, &shop, 2)?;
    let clients = [client_of_all_kinds(&shop, "client", "node-1", address)?];
    let old = cluster.agent_on("node-1")?;
    let chart = deploy::chart();
    let upgrade = ["upgrade", "evenkeel", &chart.to_string_lossy(), "--set-string"];
    let bad = ["extraEnv[0].name=EVENKEEL_WORKERS,extraEnv[0].value=none"];
    cluster.helm(&[&upgrade[..], &bad, &VALUES].concat())?;
    eventually("a new agent has ended with an error, and was started again", || {
        let pods = cluster.list("pods", deploy::NAMESPACE, "").unwrap_or_default();
        pods.iter().any(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64() >= Some(1))
    })?;
    ensure!(old.is_ready(), "the old agent serves on");
    all_are_well(&shop, &clients)
}

#[test]
fn a_rolling_restart_of_the_servers_fails_no_call() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "servers")?;
    let address = serve(&cluster, &shop, 4)?;
    let clients = [
        client_of_all_kinds(&shop, "client-1", "node-1", address)?,
        client_of_all_kinds(&shop, "client-2", "node-2", address)?,
    ];
    let before: Vec<Tally> = clients.iter().map(|client| client.tally(CLIENT)).collect::<Result<_>>()?;
    shop.kubectl(&["rollout", "restart", "deployment", GREETER])?;
    cluster.rolled_out(&format!("deployment/{GREETER}"), &shop.namespace)?;
    for (client, before) in clients.iter().zip(&before) {
        let is_new = |server: &&String| !before.calls.contains_key(*server);
        client.until(CLIENT, "all new servers answer", before, |tally| {
            tally.calls.keys().filter(is_new).count() >= 4
        })?;
    }
    all_are_well(&shop, &clients)
}

#[test]
fn draining_a_node_fails_no_call() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "drain")?;
    let address = serve(&cluster, &shop, 4)?;
    let clients = [client_of_all_kinds(&shop, "client", "node-1", address)?];
    cluster.run(&[
        "drain",
        "node-2",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=90s",
    ])?;
    cluster.rolled_out(&format!("deployment/{GREETER}"), &shop.namespace)?;
    let pods = cluster.list("pods", &shop.namespace, &format!("app={GREETER}"))?;
    let staying = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    ensure!(staying.clone().all(|pod| pod["spec"]["nodeName"] == "node-1"), "{pods:?}");
    let names: Vec<&str> = staying.filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    ensure!(names.len() == 4, "{names:?}");
    let now = clients[0].tally(CLIENT)?;
    clients[0].until(CLIENT, "exactly the servers that stayed answer", &now, |tally| {
        names.iter().all(|name| tally.calls.contains_key(*name))
    })?;
    cluster.run(&["uncordon", "node-2"])?;
    all_are_well(&shop, &clients)
}

/// Deleting the chart is all that uninstalling takes; installing it again needs nothing else either.
#[test]
fn without_the_chart_calls_go_straight_as_before_and_no_call_fails() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "delete")?;
    let address = serve(&cluster, &shop, 3)?;
    let clients = [
        client_of_all_kinds(&shop, "client-1", "node-1", address)?,
        client_of_all_kinds(&shop, "client-2", "node-2", address)?,
    ];
    cluster.uninstall()?;
    for client in &clients {
        let now = client.more_calls(CLIENT, 1).and_then(|_| client.tally(CLIENT))?;
        let after = client.until(CLIENT, "calls go on", &now, |tally| tally.completed() >= 50)?;
        ensure!(after.calls.len() == 1 && client.goes_straight_to(address)?, "as before: {after:?}");
        let listening = client.listening_on()?;
        ensure!(listening.is_empty(), "nothing is left in the pod: {listening:?}");
    }
    all_are_well(&shop, &clients)?;
    let left = cluster.run(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    ensure!(!left.contains("evenkeel"), "{left}");
    cluster.install(&VALUES)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    shop.is_enrolled(&clients[0])?;
    ensure!(shop.spreads(&clients[0], address)?);
    Ok(())
}

/// A node joins with the taint; what tolerates nothing waits until calls are balanced there.
#[test]
fn the_start_up_taint_keeps_pods_off_until_the_agent_is_ready() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "taint")?;
    cluster.run(&["taint", "node", "node-2", &format!("{STARTUP_TAINT}=:NoSchedule")])?;
    let mut object = client("waits", "node-2", "127.0.0.1:1".parse()?);
    let spec = object["spec"].as_object_mut().context("a pod has a spec")?;
    spec.remove("nodeName");
    spec.insert("nodeSelector".to_owned(), json!({"kubernetes.io/hostname": "node-2"}));
    shop.apply(&[object])?;
    cluster.wait_until("pod/waits", &shop.namespace, |pod| {
        pod["status"]["conditions"][0]["reason"] == "Unschedulable"
    })?;
    cluster.install(&[&VALUES[..], &["--set", "startupTaint.enabled=true"]].concat())?;
    cluster.wait_until("node/node-2", "default", |node| {
        !node["spec"]["taints"].to_string().contains(STARTUP_TAINT)
    })?;
    shop.ready("waits").map(drop)
}
