//! A thousand clients of one pod that stop reading, in every way that there is, while the kernel lets the agent have little memory.
//!
//! Alone in its suite: it measures how long others' calls take.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::{privileged, show};
use evenkeel_tests::latencies::Latencies;
use evenkeel_tests::peer::Manner;
use evenkeel_tests::wait::eventually_some_within;
use evenkeel_tests::{Agent, Load, Outcome, Process, Shop, Tally, eventually};
use std::time::Duration;

const CLIENTS: u32 = 1_000;
/// Calls of each, of which each asks for some megabytes.
const STREAMS: u32 = 4;
/// Few flips and single bytes a second of each: what so many of them do must not be all that two cores have time for.
const UNHURRIED: [&str; 2] = ["--pause-milliseconds", "100"];

/// Twice a pod's budget: what the pod may hold, and as much for all else.
const MEMORY_LIMIT: u64 = 256 << 20;
/// How much of what the crowd took may be left when it has gone: the allocator keeps some of what it once had.
const REMAINS: f64 = 0.5;
/// Connections to servers stay for 50 s without a call, and a busy machine takes longer.
const UNTIL_LESS: Duration = Duration::from_secs(180);

/// What others call meanwhile: small and large replies, all kinds.
const FAST: [&str; 10] =
    ["--kind", "mixed", "--rate", "100", "--in-flight", "16", "--connections", "2", "--reply-bytes", "20000"];
const FAST_CALLS: u64 = 300;
/// By how much these may take longer, on two cores that all share.
const SLOWER: f64 = 12.0;
/// How often they are looked at: what else the machine does may fall into one measurement, but not into each.
const MEASUREMENTS: u32 = 5;

/// The next [`FAST_CALLS`] of each, none of which may fail.
fn calls_of(loads: &mut [Load]) -> Result<Vec<Latencies>> {
    let now: Vec<Tally> = loads.iter().map(Load::tally).collect::<Result<_>>()?;
    let counted = loads.iter_mut().zip(&now).map(|(load, now)| {
        let tally = load.until("fast calls", now, |tally| tally.completed() >= FAST_CALLS)?;
        tally.is_clean()?;
        Ok(tally.latencies)
    });
    counted.collect()
}

/// Connections of the client's pod that the agent has open.
fn open_connections(agent: &Agent) -> Result<u64> {
    agent.pod("client")?["open_connections"].as_u64().context("they are counted")
}

#[test]
fn a_thousand_that_stall_under_a_memory_limit_cost_others_no_call_and_the_agent_not_its_life() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let other = shop.cluster.pod("other")?;
    shop.cluster.publish()?;
    let options = Options { memory_limit: Some(MEMORY_LIMIT), ..Options::default() };
    let agent = Agent::start_with(&shop.cluster, &options)?;
    let memory = agent.memory.as_ref().context("it has a limit")?;
    let worker = agent.worker_process()?;
    let mut loads = [shop.client.load(&shop.v4(), &FAST)?, other.load(&shop.v4(), &FAST)?];
    let before = calls_of(&mut loads)?;
    let charged_before = memory.bytes()?;

    let manners = Manner::value_variants();
    let each = CLIENTS / manners.len() as u32;
    let stall = |manner: &Manner| shop.client.stall_with(&shop.v4(), *manner, each, STREAMS, &UNHURRIED);
    let crowd: Vec<Process> = manners.iter().map(stall).collect::<Result<_>>()?;
    eventually("all of them are with the agent", || {
        open_connections(&agent).is_ok_and(|open| open >= u64::from(CLIENTS))
    })?;
    let is_slower = |beside: &[Latencies]| {
        let mut ratios = beside.iter().zip(&before).map(|(beside, before)| beside.ratio_to(before));
        ratios.any(|ratio| ratio.is_none_or(|ratio| ratio >= SLOWER))
    };
    let mut beside = calls_of(&mut loads)?;
    for _ in 1..MEASUREMENTS {
        if !is_slower(&beside) {
            break;
        }
        show(&format!("once more: beside {beside:?}, before {before:?}"));
        beside = calls_of(&mut loads)?;
    }
    // Connections that begin now are served, too.
    for pod in [&shop.client, &other] {
        pod.call(&shop.v4(), 40, &FAST)?.is_clean()?;
    }
    // Who of them still stalls when the pod's memory is used up loses the connection: there is room for the others.
    let open = open_connections(&agent)?;
    let ended = agent.admin("/workers")?["stalled_clients"].as_u64().context("they are counted")?;
    ensure!(open + ended >= u64::from(CLIENTS), "all have stalled: {open} are open, and {ended} were ended");
    let charged_beside = memory.bytes()?;
    let held = agent.pod("client")?["memory_bytes"].clone();
    drop(crowd);

    let kept = ((charged_beside.saturating_sub(charged_before)) as f64 * REMAINS) as u64;
    let behind = eventually_some_within(UNTIL_LESS, "the memory falls again", || {
        let now = memory.bytes()?;
        Ok((now <= charged_before + kept).then_some(now))
    })
    .with_context(|| format!("{charged_before}, then {charged_beside}, now {:?}", memory.bytes()))?;
    let after = calls_of(&mut loads)?;
    for load in loads {
        load.stop()?.is_clean()?;
    }
    show(&format!(
        "{CLIENTS} that stall, under {} MiB ({}): {} MiB before, {} beside (the pod's: {held} bytes), {} behind",
        MEMORY_LIMIT >> 20,
        memory.hierarchy(),
        charged_before >> 20,
        charged_beside >> 20,
        behind >> 20,
    ));
    for (whose, place) in [("the same", 0), ("another", 1)] {
        let (before, beside, after) = (&before[place], &beside[place], &after[place]);
        let to_before = beside.ratio_to(before).context("calls were made")?;
        let to_after = beside.ratio_to(after).context("calls were made")?;
        show(&format!(
            "calls of {whose} pod: {beside:?}; {to_before:.2} × of before ({before:?}), {to_after:.2} × of after ({after:?})"
        ));
        // Something else may have begun on this machine meanwhile, or ended.
        ensure!(to_before.min(to_after) < SLOWER, "calls of {whose} pod took {to_before} × as long");
    }
    ensure!(memory.kills()? == 0, "the kernel has ended the agent for want of memory");
    ensure!(agent.worker_process()? == worker, "the agent is the same");
    eventually("calls of clients that went are taken from the servers", || {
        agent.active_calls().is_ok_and(|active| active == 0)
    })
}
