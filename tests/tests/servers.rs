//! Servers die, restart, send their clients away and come late: what can succeed does.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::host::{privileged, show};
use evenkeel_tests::manifests::{EJECTION_ANNOTATION, HEALTH_CHECK_ANNOTATION, RETRY_ANNOTATION};
use evenkeel_tests::{Agent, Load, Outcome, Server, Shop, Stack, Tally, eventually};
use std::time::Duration;

/// For machines with much else to do: calls that queue there would say nothing about servers.
const SLOW: &[&str] = &["--rate", "200", "--in-flight", "16"];

/// Clients on two stacks that make single calls all the while, each on connections of its own.
fn clients(shop: &Shop) -> Result<Vec<Load>> {
    let mut loads = vec![
        shop.client.load(&shop.v4(), &[SLOW, &["--connections", "4"]].concat())?,
        shop.client.load_on(Stack::Go, &shop.v4(), &["--rate", "50"])?,
    ];
    for load in &mut loads {
        load.more_calls(20)?.is_clean()?;
    }
    Ok(loads)
}

/// In which a client of a hundred calls a second completes some, if any can be completed.
const LONGER_THAN_A_CALL: Duration = Duration::from_millis(500);

fn only_unavailable(tally: &Tally) -> Outcome {
    ensure!(tally.errors.keys().all(|error| error.starts_with("Unavailable")), "{tally:?}");
    Ok(())
}

#[test]
fn a_server_killed_under_load_costs_only_calls_that_were_begun_on_it() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    let agent = Agent::start(&shop.cluster)?;
    let options = ["--rate", "600", "--in-flight", "64", "--hold-milliseconds", "50", "--connections", "4"];
    let mut load = shop.client.load(&shop.v4(), &options)?;
    load.more_calls(300)?.is_clean()?;
    let killed = shop.servers[0].v4(GREETER_TARGET_PORT);
    shop.greeters[0].process.kill()?;
    eventually("no call is with it any more", || {
        agent.endpoint(&killed).is_ok_and(|endpoint| endpoint["active"] == 0)
    })?;
    // Read now: later calls whose dial is refused are counted as well, and go elsewhere.
    let begun = agent.endpoint(&killed)?["calls"].as_u64().context("calls are counted")?;
    // And those that have failed are counted by the client.
    load.more_calls(600)?;
    load.more_calls(300)?.is_clean()?;
    let tally = load.stop()?;
    only_unavailable(&tally)?;
    let answered = tally.calls.get("server-1").copied().unwrap_or(0);
    let in_its_hands = begun.saturating_sub(answered);
    ensure!(tally.failed() <= in_its_hands, "{} failed of {in_its_hands}: {tally:?}", tally.failed());
    ensure!(tally.connections == 4, "the client's own connections stay: {tally:?}");
    Ok(())
}

/// Each server ends in order, as its own library does that, and comes again; nobody takes its endpoint away meanwhile.
fn a_rolling_restart(serve: impl Fn(&Shop, usize) -> Result<Server>) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    shop.greeters.clear();
    shop.greeters = (0..3).map(|server| serve(&shop, server)).collect::<Result<_>>()?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut loads = clients(&shop)?;
    for _ in 0..2 {
        for server in 0..3 {
            shop.greeters[server].process.stop()?;
            // Few, so that it is away for a dial or two: after five that were refused it would be ejected for half a minute.
            for load in &mut loads {
                load.more_calls(10)?;
            }
            shop.greeters[server] = serve(&shop, server)?;
            let name = shop.names()[server].to_owned();
            for load in &mut loads {
                let now = load.tally()?;
                load.until("it answers again", &now, |tally| tally.calls.contains_key(&name))?;
            }
        }
    }
    for load in loads {
        load.stop()?.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_rolling_restart_of_all_servers_on_tonic_fails_no_call() -> Outcome {
    a_rolling_restart(|shop, server| shop.servers[server].serve())
}

#[test]
fn a_rolling_restart_of_all_servers_on_grpc_go_fails_no_call() -> Outcome {
    a_rolling_restart(|shop, server| shop.servers[server].serve_on_go(&[]))
}

#[test]
fn servers_that_say_goaway_every_hundred_calls_fail_no_call() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    shop.greeters.clear();
    // At some 500 calls a second for both; and clients that notice no GOAWAY of the agent's own.
    let age = ["--max-connection-age", "400ms"];
    let _greeters = [shop.servers[0].serve_on_go(&age)?, shop.servers[1].serve_on_go(&age)?];
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &["--rate", "500", "--in-flight", "32"])?;
    load.more_calls(100)?.is_clean()?;
    let before = shop.client.connections_opened()?;
    let counted = load.tally()?;
    let opened = || anyhow::Ok(shop.client.connections_opened()? - before);
    eventually("each server has sent its clients away fifteen times", || {
        opened().is_ok_and(|opened| opened >= 30)
    })?;
    let opened = opened()?;
    let tally = load.stop()?;
    tally.is_clean()?;
    show(&format!("{opened} connections for {} calls", tally.since(&counted).completed()));
    ensure!(tally.connections == 1, "the client's own connection stays: {tally:?}");
    Ok(())
}

#[test]
fn servers_that_say_goaway_with_each_hundredth_call_fail_none_of_many_thousand() -> Outcome {
    const CALLS: u64 = 20_000;
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    shop.greeters.clear();
    let portions = ["--calls-per-connection", "100"];
    let _greeters = [
        shop.servers[0].serve_with(GREETER_TARGET_PORT, &portions)?,
        shop.servers[1].serve_with(GREETER_TARGET_PORT, &portions)?,
    ];
    let _agent = Agent::start(&shop.cluster)?;
    let before = shop.client.connections_opened()?;
    let options = ["--rate", "2000", "--in-flight", "64", "--kind", "mixed"];
    let tally = shop.client.call(&shop.v4(), CALLS, &options)?;
    tally.is_clean()?;
    ensure!(tally.completed() == CALLS && tally.connections == 1, "{tally:?}");
    let opened = shop.client.connections_opened()? - before;
    // One more or less for each of both that is under way.
    ensure!((CALLS / 200..CALLS / 50).contains(&opened), "{opened} connections for {CALLS} calls");
    Ok(())
}

#[test]
fn calls_whose_first_attempts_fail_succeed_where_the_service_asks_for_retries() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    shop.greeters.clear();
    let fails = ["--fail-attempts", "2"];
    let _greeters =
        (0..3).map(|server| shop.servers[server].serve_on_go(&fails)).collect::<Result<Vec<_>>>()?;
    // All endpoints fail two of three attempts: nobody is to be ejected for it here.
    shop.cluster.annotate("greeter", EJECTION_ANNOTATION, "off")?;
    let _agent = Agent::start(&shop.cluster)?;
    let tally = shop.client.call(&shop.v4(), 20, SLOW)?;
    only_unavailable(&tally)?;
    ensure!(tally.failed() == 20, "nobody has asked for retries: {tally:?}");
    let policy = "attempts=3 on=unavailable backoff=2ms..10ms budget=100%";
    shop.cluster.annotate("greeter", RETRY_ANNOTATION, policy)?;
    eventually("the policy is known", || {
        let before = shop.client.call(&shop.v4(), 5, SLOW);
        before.is_ok_and(|tally| tally.failed() == 0)
    })?;
    let tally = shop.client.call(&shop.v4(), 400, SLOW)?;
    tally.is_clean()?;
    ensure!(tally.completed() == 400 && tally.calls.len() == 3, "{tally:?}");
    shop.cluster.annotate("greeter", RETRY_ANNOTATION, "attempts=2 on=unavailable backoff=2ms..10ms")?;
    eventually("two attempts are not enough", || {
        shop.client.call(&shop.v4(), 5, SLOW).is_ok_and(|tally| tally.failed() == 5)
    })
}

#[test]
fn a_server_whose_health_check_says_that_it_does_not_serve_gets_no_calls_where_the_service_asks_for_that()
-> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    shop.greeters.clear();
    // SERVING is 1, NOT_SERVING 2; the third one knows nothing of it.
    let _greeters = (0..3)
        .map(|server| shop.servers[server].serve_on_go(&["--serving-status", ["2", "1", "0"][server]]))
        .collect::<Result<Vec<_>>>()?;
    let agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), SLOW)?;
    load.more_calls(300)?.is_even(&shop.names(), 0.2)?;
    shop.cluster.annotate("greeter", HEALTH_CHECK_ANNOTATION, "grpc")?;
    let sick = shop.servers[0].v4(GREETER_TARGET_PORT);
    eventually("the agent has heard it", || {
        agent.endpoint(&sick).is_ok_and(|endpoint| endpoint["unhealthy"] == true)
    })?;
    eventually("its calls go to the others", || {
        load.more_calls(100).is_ok_and(|tally| tally.calls.keys().eq(&["server-2", "server-3"]))
    })?;
    load.stop()?.is_clean()
}

#[test]
fn connection_resets_cost_the_calls_on_those_connections_and_nothing_hangs() -> Outcome {
    const CALLS: u64 = 2_000;
    const IN_FLIGHT: u64 = 8;
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let _agent = Agent::start(&shop.cluster)?;
    // One packet to the servers of a hundred is answered with a TCP reset instead.
    shop.cluster.node.nft(&format!(
        "table ip resets {{ chain forward {{ type filter hook forward priority 0;\n\
         tcp dport {GREETER_TARGET_PORT} numgen random mod 100 0 counter reject with tcp reset\n}}\n}}\n"
    ))?;
    let in_flight = IN_FLIGHT.to_string();
    let options = ["--rate", "400", "--in-flight", &in_flight, "--kind", "mixed"];
    let tally = shop.client.call(&shop.v4(), CALLS, &options)?;
    let resets = shop.cluster.node.nft_counter("ip resets")?;
    shop.cluster.node.nft("delete table ip resets\n")?;
    only_unavailable(&tally)?;
    ensure!(tally.completed() + tally.failed() == CALLS, "each call ends once: {tally:?}");
    ensure!(tally.failed() > 0, "no connection with calls was reset: {tally:?}");
    // A connection ends once, with all calls in flight at the most.
    ensure!(tally.failed() <= resets * IN_FLIGHT, "{} failed of {resets} resets: {tally:?}", tally.failed());
    ensure!(tally.connections == 1, "the client's own connection stays: {tally:?}");
    let mut load = shop.client.load(&shop.v4(), SLOW)?;
    let now = load.tally()?;
    load.until("all servers answer again", &now, |tally| tally.calls.len() == 3)?;
    load.more_calls(300)?;
    load.stop()?.is_clean()
}

#[test]
fn calls_that_wait_for_ready_get_the_servers_that_come_after_their_client() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    shop.publish_servers(&[])?;
    let agent = Agent::start(&shop.cluster)?;
    let options = ["--wait-for-ready", "--calls", "50", "--rate", "200"];
    let load = shop.client.load_on(Stack::Go, &shop.v4(), &options)?;
    eventually("the client finds no server", || {
        agent.pod("client").is_ok_and(|client| client["connections"]["no_endpoint"].as_u64() > Some(0))
    })?;
    shop.publish_servers(&[0, 1])?;
    let tally = load.finish()?;
    tally.is_clean()?;
    ensure!(tally.completed() == 50, "{tally:?}");
    Ok(())
}

#[test]
fn calls_that_wait_for_ready_outlive_a_time_without_any_server() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load_on(Stack::Go, &shop.v4(), &["--wait-for-ready", "--rate", "100"])?;
    load.more_calls(50)?.is_clean()?;
    // Known to be gone before they go: as servers that are refused, they are errors that no call waits for.
    shop.publish_servers(&[])?;
    eventually("the agent knows of no server", || {
        agent.admin("/endpoints").is_ok_and(|rows| rows.as_array().is_some_and(Vec::is_empty))
    })?;
    // Workers hear of it a moment later: until then calls go on, and a server that went would take them with it.
    let mut before = load.tally()?;
    eventually("calls wait", || {
        std::thread::sleep(LONGER_THAN_A_CALL);
        let now = load.tally().unwrap_or_default();
        std::mem::replace(&mut before, now.clone()).completed() == now.completed()
    })?;
    shop.greeters.clear();
    shop.greeters = shop.servers.iter().map(|pod| pod.serve()).collect::<Result<_>>()?;
    shop.publish_servers(&[0, 1])?;
    load.more_calls(100)?.is_clean()?;
    load.stop()?.is_clean()
}
