//! Calls of every size, and of every number, over one connection of one client.

use anyhow::ensure;
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Outcome, Shop, eventually};

/// Calls of all four kinds with such a payload in each message, both ways.
fn messages_of(bytes: &str, calls: u64, rate: &str) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let options = ["--kind", "mixed", "--payload-bytes", bytes, "--reply-bytes", bytes, "--rate", rate];
    // A slow machine gets no more of them than it takes.
    let options = [&options[..], &["--in-flight", "4"]].concat();
    for to in [shop.v4(), shop.v6()] {
        let tally = shop.client.call(&to, calls, &options)?;
        tally.is_clean()?;
        ensure!(tally.completed() == calls && tally.connections == 1, "{tally:?}");
    }
    nothing_is_left(&agent)
}

fn nothing_is_left(agent: &Agent) -> Outcome {
    eventually("no call is left with a server", || agent.active_calls().is_ok_and(|calls| calls == 0))
}

#[test]
fn messages_of_one_byte_arrive_whole_both_ways() -> Outcome {
    messages_of("1", 400, "400")
}

#[test]
fn messages_of_four_mebibytes_arrive_whole_both_ways() -> Outcome {
    messages_of("4194304", 8, "8")
}

#[test]
fn ten_thousand_streams_in_a_row_on_one_connection_a_third_of_them_cancelled() -> Outcome {
    const STREAMS: u64 = 10_000;
    const CANCEL_EVERY: u64 = 3;
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let agent = Agent::start(&shop.cluster)?;
    let cancel = CANCEL_EVERY.to_string();
    let options = ["--kind", "mixed", "--rate", "1000", "--in-flight", "100", "--cancel-every", &cancel];
    let mut load =
        shop.client.load(&shop.v4(), &[&options[..], &["--calls", &STREAMS.to_string()]].concat())?;
    load.process.line("begun")?;
    let tally = load.finish()?;
    tally.is_clean()?;
    let cancelled = STREAMS.div_ceil(CANCEL_EVERY);
    ensure!(tally.cancelled == cancelled && tally.completed() == STREAMS - cancelled, "{tally:?}");
    ensure!(tally.connections == 1, "the client's connection stays: {tally:?}");
    nothing_is_left(&agent)
}

#[test]
fn a_thousand_streams_at_once_against_a_servers_limit_of_100_all_succeed() -> Outcome {
    const STREAMS: u64 = 1_000;
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(1)?;
    shop.greeters.clear();
    let _greeter = shop.servers[0].serve_with(GREETER_TARGET_PORT, &["--max-streams", "100"])?;
    let agent = Agent::start(&shop.cluster)?;
    let calls = STREAMS.to_string();
    let options = ["--calls", &calls, "--rate", "1000000", "--hold-milliseconds", "3000"];
    let load = shop.client.load(&shop.v4(), &options)?;
    // More connections are opened for what one does not take.
    let server = shop.servers[0].v4(GREETER_TARGET_PORT).parse()?;
    eventually("calls are on several connections", || {
        let connections = shop.client.established_to().unwrap_or_default();
        connections.iter().filter(|to| **to == server).count() >= 5
    })?;
    let tally = load.finish()?;
    tally.is_clean()?;
    ensure!(tally.completed() == STREAMS && tally.connections == 1, "{tally:?}");
    nothing_is_left(&agent)
}
