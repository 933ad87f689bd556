//! The cluster changes under load: no call fails, none goes to the wrong Service.

use anyhow::ensure;
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Load, Outcome, Shop};

const MIXED: &[&str] = &["--kind", "mixed", "--rate", "300"];

/// Some clients, each with its own channels, that call all the while.
fn clients(shop: &Shop) -> anyhow::Result<Vec<Load>> {
    let options = [MIXED, &["--connections", "4"]].concat();
    let mut loads = vec![
        shop.client.load(&shop.v4(), &options)?,
        shop.client.load(&shop.v6(), &options)?,
        shop.client.load_on(evenkeel_tests::Stack::Go, &shop.v4(), &["--rate", "100"])?,
    ];
    for load in &mut loads {
        load.more_calls(20)?.is_clean()?;
    }
    Ok(loads)
}

#[test]
fn endpoints_come_and_go_and_no_call_fails() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(4)?;
    shop.publish_servers(&[0, 1])?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut loads = clients(&shop)?;
    let choices: [&[usize]; 6] = [&[0, 1, 2], &[1, 2, 3], &[3], &[0, 1, 2, 3], &[0, 2], &[1, 3]];
    for positions in choices {
        shop.publish_servers(positions)?;
        let expected: Vec<&str> = positions.iter().map(|&position| shop.names()[position]).collect();
        for load in &mut loads {
            // Calls begun before the change may still end elsewhere: wait for a window in which only the new ones answer.
            evenkeel_tests::eventually(&format!("calls go to {expected:?}"), || {
                load.more_calls(60).is_ok_and(|tally| tally.calls.keys().eq(&expected))
            })?;
        }
    }
    for load in loads {
        load.stop()?.is_clean()?;
    }
    Ok(())
}

#[test]
fn an_added_endpoint_gets_its_share_of_a_running_connection() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &["--rate", "500"])?;
    load.more_calls(200)?.is_even(&shop.names(), 0.1)?;
    shop.add_server()?;
    shop.publish_servers(&[0, 1, 2])?;
    let now = load.tally()?;
    load.until("the third server answers", &now, |tally| tally.calls.contains_key("server-3"))?;
    load.more_calls(600)?.is_even(&shop.names(), 0.1)?;
    let tally = load.stop()?;
    tally.is_clean()?;
    ensure!(tally.connections == 1, "{tally:?}");
    Ok(())
}

#[test]
fn two_agents_overlap_and_no_call_fails() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let mut agent = Agent::start(&shop.cluster)?;
    let mut loads = clients(&shop)?;
    for number in 1..=2 {
        let next = Agent::start_with(&shop.cluster, &Options { number, ..Options::default() })?;
        for load in &mut loads {
            load.more_calls(50)?;
        }
        agent.stop()?;
        for load in &mut loads {
            load.more_calls(150)?.is_even(&shop.names(), 0.2)?;
        }
        agent = next;
    }
    ensure!(!shop.client.goes_straight_to(&shop.v4())?, "all clients are with the last agent");
    for load in loads {
        load.stop()?.is_clean()?;
    }
    Ok(())
}

#[test]
fn a_connection_to_a_service_that_was_replaced_never_reaches_another() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    shop.publish_servers(&[0])?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &["--rate", "100"])?;
    load.more_calls(20)?.is_clean()?;
    let removed = shop.cluster.services.remove("greeter");
    shop.cluster.publish()?;
    // Services that come after would get the id of the one that went, if ids were given out again at once.
    for number in 0..20 {
        let name = format!("other-{number}");
        let other = shop.cluster.service(&name, &[&shop.servers[1]])?;
        evenkeel_tests::eventually("the other Service is served", || {
            shop.client.call(&other.v4(), 1, &[]).is_ok_and(|tally| tally.calls.contains_key("server-2"))
        })?;
    }
    let tally = load.stop()?;
    ensure!(!tally.calls.contains_key("server-2"), "calls to the removed Service reached another: {tally:?}");
    ensure!(removed.is_some());
    Ok(())
}

#[test]
fn a_broken_file_keeps_the_last_good_state_and_is_named() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &[])?;
    load.more_calls(50)?.is_clean()?;
    shop.cluster.write("services.yaml", "apiVersion: v1\nkind: Service\nmetadata: [\n")?;
    evenkeel_tests::eventually("the log names the file and the line", || {
        agent.process.stderr().iter().any(|line| line.contains("services.yaml") && line.contains(':'))
    })?;
    load.more_calls(50)?.is_even(&shop.names(), 0.2)?;
    let spread = shop.spreads_calls_of(&shop.client)?;
    ensure!(spread, "fresh connections are taken as before: {}", agent.admin("/pods")?);
    shop.add_server()?;
    shop.publish_servers(&[0, 1, 2])?;
    let now = load.tally()?;
    load.until("the mended file counts", &now, |tally| tally.calls.contains_key("server-3"))?;
    load.stop()?.is_clean()
}
