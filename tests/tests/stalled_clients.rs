//! Clients that ask for much and stop reading, in every way that HTTP/2 and TCP know, cost others nothing: neither the same
//! pod's calls nor another's, which go to the same servers.

use anyhow::ensure;
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::privileged;
use evenkeel_tests::peer::Manner;
use evenkeel_tests::wait::eventually_some_within;
use evenkeel_tests::{Agent, Outcome, Process, Shop, eventually};
use std::time::Duration;

const CONNECTIONS: u32 = 8;
const STREAMS: u32 = 40;
const ALL: [Manner; 4] = [Manner::ZeroWindow, Manner::ByteByByte, Manner::Unread, Manner::Flips];

/// What others call meanwhile: small and large replies, all kinds.
const FAST: &[&str] = &[
    "--kind",
    "mixed",
    "--rate",
    "200",
    "--in-flight",
    "16",
    "--connections",
    "2",
    "--reply-bytes",
    "20000",
];
const FAST_CALLS: u64 = 600;

/// Starts clients of that manner, and waits until servers have all that they ask for.
fn stalled(shop: &Shop, agent: &Agent, manner: Manner) -> anyhow::Result<Process> {
    let before = agent.active_calls()?;
    let wanted = before + u64::from(CONNECTIONS * STREAMS);
    let stalled = shop.client.stall(&shop.v4(), manner, CONNECTIONS, STREAMS)?;
    eventually("their calls are with servers", || agent.active_calls().is_ok_and(|active| active >= wanted))?;
    Ok(stalled)
}

fn beside_clients_that_stall(manner: Manner) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let other = shop.cluster.pod("other")?;
    shop.cluster.publish()?;
    let agent = Agent::start(&shop.cluster)?;
    let mut loads = [shop.client.load(&shop.v4(), FAST)?, other.load(&shop.v4(), FAST)?];
    for load in &mut loads {
        load.more_calls(20)?.is_clean()?;
    }
    let stalled = stalled(&shop, &agent, manner)?;
    for load in &mut loads {
        load.more_calls(FAST_CALLS)?.is_clean()?;
    }
    // Connections that begin now are served, too.
    for pod in [&shop.client, &other] {
        pod.call(&shop.v4(), 40, FAST)?.is_clean()?;
    }
    ensure!(
        agent.active_calls()? >= u64::from(CONNECTIONS * STREAMS),
        "the others have stalled all the while"
    );
    drop(stalled);
    for load in loads {
        load.stop()?.is_clean()?;
    }
    eventually("calls of clients that went are taken from the servers", || {
        agent.active_calls().is_ok_and(|active| active == 0)
    })
}

#[test]
fn with_zero_windows_fail_no_call_of_others() -> Outcome {
    beside_clients_that_stall(Manner::ZeroWindow)
}

#[test]
fn that_read_byte_by_byte_fail_no_call_of_others() -> Outcome {
    beside_clients_that_stall(Manner::ByteByByte)
}

#[test]
fn that_do_not_read_the_socket_fail_no_call_of_others() -> Outcome {
    beside_clients_that_stall(Manner::Unread)
}

#[test]
fn whose_windows_flip_fail_no_call_of_others() -> Outcome {
    beside_clients_that_stall(Manner::Flips)
}

/// Connections to servers stay for 50 s without a call, and a busy machine takes longer.
const UNTIL_IDLE: Duration = Duration::from_secs(180);
/// Of what was there before.
const REMAINS: f64 = 1.10;

/// Has clients of all manners stall beside heavy load, and gives the agent's resident memory, in KiB, at its most and when they and
/// the connections to the servers have gone.
fn rush(shop: &Shop, agent: &Agent) -> anyhow::Result<(u64, u64)> {
    let heavy = ["--kind", "mixed", "--payload-bytes", "200000", "--reply-bytes", "200000"];
    let heavy = [&heavy[..], &["--rate", "20", "--in-flight", "8"]].concat();
    let many = ["--rate", "100000", "--hold-milliseconds", "500", "--reply-bytes", "10000"];
    let mut stalled_clients = Vec::new();
    for manner in ALL {
        stalled_clients.push(stalled(shop, agent, manner)?);
    }
    shop.client.call(&shop.v4(), 40, &heavy)?.is_clean()?;
    shop.client.call(&shop.v4(), 1_000, &many)?.is_clean()?;
    let peak = agent.resident_kib()?;
    drop(stalled_clients);
    eventually_some_within(UNTIL_IDLE, "no connection to a server is left", || {
        Ok((agent.admin("/workers")?["upstreams_open"] == 0).then_some(()))
    })?;
    Ok((peak, agent.resident_kib()?))
}

/// What a first rush leaves is the allocator's, which keeps some of what it once had; the next one leaves no more.
#[test]
fn and_heavy_load_leave_no_memory_held_when_they_are_gone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    // So that memory is used, and none of the pod's calls refused.
    let arguments = ["--pod-memory", "1Gi"].map(String::from).to_vec();
    let agent = Agent::start_with(&shop.cluster, &Options { arguments, ..Options::default() })?;
    let (first_peak, first) = rush(&shop, &agent)?;
    let (second_peak, second) = rush(&shop, &agent)?;
    eprintln!("KiB at most and behind: {first_peak} and {first}, then {second_peak} and {second}");
    ensure!(second as f64 <= first as f64 * REMAINS, "{first} KiB, then {second} KiB");
    ensure!(second < second_peak / 2, "{second_peak} KiB, then {second} KiB");
    Ok(())
}
