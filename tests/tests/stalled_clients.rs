//! Clients that ask for much and stop reading, in every way that HTTP/2 and TCP know, cost others nothing: neither the same
//! pod's calls nor another's, which go to the same servers. (`stalled_crowd.rs`: a thousand of them.)

use anyhow::{Context, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::{privileged, show};
use evenkeel_tests::peer::Manner;
use evenkeel_tests::wait::{eventually_some, eventually_some_within};
use evenkeel_tests::{Agent, Load, Outcome, Process, Shop, Tally, eventually};
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
const FAST_CALLS: u64 = 400;

/// By how much others' calls may take longer: on a machine of two cores, which servers, clients and all that stalls share with the agent. A
/// call that waited for a client that stalls would take thousands of times as long.
const SLOWER: f64 = 5.0;
/// How often they are looked at: what else the machine does may fall into one measurement, but not into each.
const MEASUREMENTS: u32 = 5;

/// Starts clients of that manner beside so many that stall already, and waits until servers have all that they ask for.
fn stalled(shop: &Shop, agent: &Agent, manner: Manner, already: u64) -> anyhow::Result<Process> {
    let wanted = already + u64::from(CONNECTIONS * STREAMS);
    let stalled = shop.client.stall(&shop.v4(), manner, CONNECTIONS, STREAMS)?;
    eventually("their calls are with servers", || agent.active_calls().is_ok_and(|active| active >= wanted))?;
    Ok(stalled)
}

/// The next [`FAST_CALLS`] of each, none of which may fail.
fn calls_of(loads: &mut [Load]) -> anyhow::Result<Vec<Tally>> {
    let now: Vec<Tally> = loads.iter().map(Load::tally).collect::<anyhow::Result<_>>()?;
    let counted = loads.iter_mut().zip(&now).map(|(load, now)| {
        let tally = load.until("fast calls", now, |tally| tally.completed() >= FAST_CALLS)?;
        tally.is_clean()?;
        Ok(tally)
    });
    counted.collect()
}

/// Shows how long calls took beside clients that stall, of the same pod and of another, and whether that is much longer than without.
fn are_slower(manner: Manner, without: &[Tally], beside: &[Tally], when: &str) -> anyhow::Result<bool> {
    let mut are_slower = false;
    for (whose, (without, beside)) in ["the same", "another"].iter().zip(without.iter().zip(beside)) {
        let (without, beside) = (&without.latencies, &beside.latencies);
        let ratio = beside.ratio_to(without).context("calls were made")?;
        show(&format!("beside {manner:?} of {whose} pod: {beside:?}, {ratio:.2} × of {when} ({without:?})"));
        are_slower |= ratio >= SLOWER;
    }
    Ok(are_slower)
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
    let before = calls_of(&mut loads)?;
    let stalled = stalled(&shop, &agent, manner, 0)?;
    let mut beside = calls_of(&mut loads)?;
    let mut is_slower = are_slower(manner, &before, &beside, "before")?;
    for _ in 1..MEASUREMENTS {
        if !is_slower {
            break;
        }
        beside = calls_of(&mut loads)?;
        is_slower = are_slower(manner, &before, &beside, "before")?;
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
    if is_slower {
        // Something else may have begun on this machine meanwhile.
        let after = calls_of(&mut loads)?;
        ensure!(!are_slower(manner, &after, &beside, "after")?, "others' calls are slower: {beside:?}");
    }
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

/// Has clients of all manners stall beside heavy load, and gives the agent's resident memory at its most, in KiB, when they and
/// the connections to the servers have gone.
fn rush(shop: &Shop, agent: &Agent) -> anyhow::Result<u64> {
    let heavy = ["--kind", "mixed", "--payload-bytes", "200000", "--reply-bytes", "200000"];
    let heavy = [&heavy[..], &["--rate", "20", "--in-flight", "8"]].concat();
    let many = ["--rate", "100000", "--hold-milliseconds", "500", "--reply-bytes", "10000"];
    let mut stalled_clients = Vec::new();
    for manner in ALL {
        let already = stalled_clients.len() as u64 * u64::from(CONNECTIONS * STREAMS);
        stalled_clients.push(stalled(shop, agent, manner, already)?);
    }
    shop.client.call(&shop.v4(), 40, &heavy)?.is_clean()?;
    shop.client.call(&shop.v4(), 1_000, &many)?.is_clean()?;
    let peak = agent.resident_kib()?;
    drop(stalled_clients);
    eventually_some_within(UNTIL_IDLE, "no connection to a server is left", || {
        Ok((agent.admin("/workers")?["upstreams_open"] == 0).then_some(()))
    })?;
    Ok(peak)
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
    shop.client.call(&shop.v4(), 600, &["--kind", "mixed"])?.is_clean()?;
    let before = agent.resident_kib()?;
    for _ in 0..2 {
        let peak = rush(&shop, &agent)?;
        let behind = eventually_some("what was taken for it is given back", || {
            let now = agent.resident_kib()?;
            Ok((now as f64 <= before as f64 * REMAINS).then_some(now))
        })
        .with_context(|| format!("{before} KiB before, {peak} at most, {:?} now", agent.resident_kib()))?;
        show(&format!("{before} KiB before, {peak} at most, {behind} behind"));
        ensure!(behind < peak / 2, "{peak} KiB, then {behind} KiB");
    }
    Ok(())
}
