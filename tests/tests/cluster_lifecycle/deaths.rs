//! What happens to agents and nodes. Calls go on, straight where nobody takes them.

use super::{VALUES, cluster_alone};
use anyhow::{Result, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::shop::{CLIENT, ENABLED, GREETER, ONE_IN_FLIGHT, SERVICE_PORT};
use evenkeel_tests::kubernetes::{Cluster, RunningPod, Shop};
use evenkeel_tests::manifests::ON_ENROL_ANNOTATION;
use evenkeel_tests::process::signal_to;
use evenkeel_tests::{Outcome, deploy, eventually};
use serde_json::json;

/// Waits until the pods' connections that go straight for want of an agent are taken again, of whose calls no more than so many fail.
fn is_spread_again(shop: &Shop<'_>, client: &RunningPod, servers: usize, may_fail: u64) -> Result<()> {
    let now = client.tally(CLIENT)?;
    let tally =
        client.until(CLIENT, "all servers answer again", &now, |tally| tally.calls.len() == servers)?;
    shop.is_enrolled(client)?;
    ensure!(tally.failed() <= may_fail, "{tally:?}");
    client.more_calls(CLIENT, 30)?.is_clean()?;
    client.was_never_restarted(CLIENT)
}

/// What was in flight when something died has ended, and nothing else is lost.
fn no_call_fails_any_more(client: &RunningPod) -> Result<()> {
    eventually("no call fails any more", || {
        client.more_calls(CLIENT, 30).is_ok_and(|tally| tally.failed() == 0)
    })
}

/// Container states of the agents: how often each has been started again, and why it ended last.
fn ends(cluster: &Cluster) -> Vec<(u64, String)> {
    let pods = cluster.list("pods", deploy::NAMESPACE, "").unwrap_or_default();
    let end = |pod: &serde_json::Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let states = [&status["state"], &status["lastState"]];
        let reason = states.iter().find_map(|state| state["terminated"]["reason"].as_str());
        (status["restartCount"].as_u64().unwrap_or(0), reason.unwrap_or_default().to_owned())
    };
    pods.iter().map(end).collect()
}

/// What went straight while no agent was there is what `reconnect-missed` is for.
#[test]
fn after_a_kill_of_an_agent_calls_go_on_and_are_taken_again() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let metadata = json!({
        "labels": {ENABLED: "true"},
        "annotations": {ON_ENROL_ANNOTATION: "reconnect-missed"},
    });
    let shop = Shop::open(&cluster, "kill", &metadata)?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    let client = shop.client_with("client", "node-1", address, &ONE_IN_FLIGHT)?;
    let bystander = shop.client("bystander", "node-2", address)?;
    is_spread_again(&shop, &client, 3, 0)?;

    let agent = cluster.agent_on("node-1")?;
    let now = client.tally(CLIENT)?;
    for process in agent.pod.pids_of("evenkeel") {
        signal_to(process, libc::SIGKILL);
    }
    client.until(CLIENT, "calls go on", &now, |tally| tally.completed() >= 20)?;
    no_call_fails_any_more(&client)?;
    eventually("the kubelet starts the agent again", || agent.is_ready())?;
    // The one that is under way when its connection is ended.
    is_spread_again(&shop, &client, 3, 1)?;
    ensure!(!client.goes_straight_to(address)?);
    bystander.tally(CLIENT)?.is_clean()
}

#[test]
fn while_agents_are_killed_for_their_memory_over_and_over_calls_go_straight() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "memory")?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    cluster.uninstall()?;
    let client = shop.client("client", "node-1", address)?;
    let chart = deploy::chart();
    let chart = chart.to_string_lossy();
    let install = ["install", "evenkeel", &chart, "--set", "resources.limits.memory=6Mi"];
    cluster.helm(&[&install[..], &["--set", "resources.requests.memory=6Mi"], &VALUES].concat())?;
    eventually("an agent was ended by the kernel twice", || {
        ends(&cluster).iter().any(|(times, reason)| *times >= 2 && reason == "OOMKilled")
    })?;
    client.more_calls(CLIENT, 50)?;
    let tally = client.tally(CLIENT)?;
    shop.is_clean(&client, &tally)?;
    ensure!(tally.connections == 1 && client.goes_straight_to(address)?, "{tally:?}");
    ensure!(!shop.spreads(&client, address)?, "so do fresh connections");
    // With memory, all is well.
    cluster.install(&VALUES)?;
    shop.is_enrolled(&client)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    ensure!(shop.spreads(&client, address)?);
    client.tally(CLIENT)?.is_clean()
}

#[test]
fn calls_leave_a_node_that_has_lost_its_power_and_come_back_with_it() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "power")?;
    let address = shop.serve(4)?;
    shop.captured(GREETER, SERVICE_PORT, 4)?;
    let client = shop.client("client", "node-1", address)?;
    is_spread_again(&shop, &client, 4, 0)?;
    let namespace = shop.leave();
    cluster.nodes[1].cut_power()?;
    let shop = Shop::left_open(&cluster, &namespace);
    let now = client.tally(CLIENT)?;
    client.until(CLIENT, "calls go on", &now, |tally| tally.completed() >= 50)?;
    shop.service_port("node-1", GREETER, SERVICE_PORT, |view| view["endpoints"] == 2)?;
    // What was under way to the lost servers has ended by now, or does with the connections' time-out.
    eventually("no call fails any more, and those on the node itself answer", || {
        client.more_calls(CLIENT, 100).is_ok_and(|tally| tally.failed() == 0 && tally.calls.len() == 2)
    })?;
    shop.leave();
    cluster.power_on(1)?;
    cluster.wait_until_ready(1)?;
    let shop = Shop::left_open(&cluster, &namespace);
    shop.captured(GREETER, SERVICE_PORT, 4)?;
    cluster.agent_on("node-2")?;
    is_spread_again(&shop, &client, 4, 0)?;
    ensure!(!client.goes_straight_to(address)?);
    Ok(())
}
