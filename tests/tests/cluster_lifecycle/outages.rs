//! What happens to the API server. What was known last serves on.

use super::cluster_alone;
use anyhow::{Context, Result, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::agents::AgentPod;
use evenkeel_tests::kubernetes::shop::{CLIENT, GREETER, SERVICE_PORT, server};
use evenkeel_tests::kubernetes::{Cluster, RunningPod, Shop};
use evenkeel_tests::process::{children, signal_to};
use evenkeel_tests::{Outcome, eventually};
use std::net::SocketAddr;

/// Several of the agent's attempts, which come at ever longer intervals. ([`super::api_silence`] has an API server that falls silent for
/// longer than any of the agent's time-outs.)
const OUTAGE_SECONDS: f64 = 10.0;

/// Waits until the agent itself says that it has heard of no kind for so long.
fn api_is_away(agent: &AgentPod) -> Result<()> {
    eventually("the agent shows how old its knowledge is", || {
        agent.admin("/source").is_ok_and(|kinds| {
            let ages =
                kinds.as_array().into_iter().flatten().map(|kind| kind["seconds_since_contact"].as_f64());
            ages.clone().count() > 0 && ages.clone().all(|age| age >= Some(OUTAGE_SECONDS))
        })
    })
    .with_context(|| format!("{:?}", agent.admin("/source")))
}

/// A namespace with three servers, and a client of theirs on the first node that is enrolled.
fn shop_with_client<'a>(cluster: &'a Cluster, namespace: &str) -> Result<(Shop<'a>, SocketAddr, RunningPod)> {
    let shop = Shop::enrolled(cluster, namespace)?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    let client = shop.client("client", "node-1", address)?;
    shop.is_enrolled(&client)?;
    Ok((shop, address, client))
}

#[test]
fn while_the_api_server_is_away_what_was_known_last_serves() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = cluster_alone()?;
    let (shop, address, client) = shop_with_client(&cluster, "outage")?;
    let agent = cluster.agent_on("node-1")?;
    let namespace = shop.leave();

    cluster.api_server.kill()?;
    api_is_away(&agent)?;
    ensure!(agent.is_ready(), "it serves, so it is ready");
    ensure!(client.more_calls(CLIENT, 60)?.calls.len() == 3);
    client.tally(CLIENT)?.is_clean()?;

    // Even another worker process knows what the last one knew.
    let keeper = keeper(&agent.pod.pids_of("evenkeel"))?;
    let worker = children(keeper);
    signal_to(worker[0], libc::SIGKILL);
    eventually("there is another worker process, and it is ready", || {
        let now = children(keeper);
        !now.is_empty() && now != worker && agent.is_ready()
    })?;
    let now = client.tally(CLIENT)?;
    client.until(CLIENT, "all servers answer", &now, |tally| tally.calls.len() == 3)?;
    ensure!(client.more_calls(CLIENT, 60)?.calls.len() == 3);
    ensure!(!client.goes_straight_to(address)?);

    // It comes back as another that has the right certificate, and what has changed meanwhile is learnt.
    cluster.rotate_serving_certificate()?;
    cluster.start_api_server()?;
    let shop = Shop::left_open(&cluster, &namespace);
    shop.start(server("server-4", "node-2"))?;
    shop.captured(GREETER, SERVICE_PORT, 4)?;
    let now = client.tally(CLIENT)?;
    client.until(CLIENT, "the new server answers too", &now, |tally| tally.calls.len() == 4)?.is_clean()
}

#[test]
fn an_agent_that_starts_without_an_api_server_waits_for_it_and_harms_nobody() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = cluster_alone()?;
    let (shop, address, client) = shop_with_client(&cluster, "start")?;
    let agent = cluster.agent_on("node-1")?;
    let namespace = shop.leave();

    cluster.api_server.kill()?;
    let before = agent.pod.pids_of("evenkeel");
    for &process in &before {
        signal_to(process, libc::SIGKILL);
    }
    eventually("the kubelet starts the agent again, which is alive", || {
        agent.pod.pids_of("evenkeel").iter().all(|process| !before.contains(process)) && agent.is_live()
    })?;
    let now = client.tally(CLIENT)?;
    let straight = client.until(CLIENT, "calls go on", &now, |tally| tally.completed() >= 100)?;
    ensure!(straight.calls.len() <= 2 && client.goes_straight_to(address)?, "{straight:?}");
    api_is_away(&agent)?;
    ensure!(agent.is_live() && !agent.is_ready(), "it is up, and not ready");
    client.more_calls(CLIENT, 50)?.is_clean()?;

    cluster.start_api_server()?;
    eventually("the agent is ready", || agent.is_ready())?;
    let shop = Shop::left_open(&cluster, &namespace);
    let shown = shop.is_enrolled(&client)?;
    ensure!(shown["opened_before"].as_u64() >= Some(1), "what went straight meanwhile is counted: {shown}");
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    ensure!(shop.spreads(&client, address)?);
    Ok(())
}

/// The process whose child is among them too.
fn keeper(processes: &[i32]) -> Result<i32> {
    let has_child = |process: &&i32| children(**process).iter().any(|child| processes.contains(child));
    let keeper = processes.iter().find(has_child);
    keeper.copied().ok_or_else(|| anyhow::anyhow!("none of {processes:?} is a keeper"))
}
