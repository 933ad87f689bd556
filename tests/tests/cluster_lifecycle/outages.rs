//! What happens to the API server. What was known last serves on.

use super::cluster_alone;
use anyhow::{Result, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::Shop;
use evenkeel_tests::kubernetes::shop::{CLIENT, GREETER, SERVICE_PORT, server};
use evenkeel_tests::process::{children, signal_to};
use evenkeel_tests::{Outcome, eventually};
use std::time::Duration;

/// Longer than any time-out after which an agent might let go of what it knows from an API that is silent.
const OUTAGE: Duration = Duration::from_secs(20);

#[test]
fn while_the_api_server_is_away_what_was_known_last_serves() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = cluster_alone()?;
    let shop = Shop::enrolled(&cluster, "outage")?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    let client = shop.client("client", "node-1", address)?;
    shop.is_enrolled(&client)?;
    let agent = cluster.agent_on("node-1")?;
    let namespace = shop.leave();

    cluster.api_server.kill()?;
    std::thread::sleep(OUTAGE);
    ensure!(agent.is_ready(), "it serves, so it is ready");
    let stale = agent.admin("/source")?;
    let contact = stale[0]["seconds_since_contact"].as_f64().unwrap_or_default();
    ensure!(
        contact >= OUTAGE.as_secs_f64() / 2.0,
        "the admin endpoint shows how old its knowledge is: {stale}"
    );
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
    let shop = Shop::enrolled(&cluster, "start")?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    let client = shop.client("client", "node-1", address)?;
    shop.is_enrolled(&client)?;
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
    std::thread::sleep(OUTAGE);
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
