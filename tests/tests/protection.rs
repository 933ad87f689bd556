//! What a pod may cost its node: connections beyond its limit go straight, as if there were no agent.

use anyhow::ensure;
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Load, Outcome, Shop, eventually};
use serde_json::Value;

const LIMIT: u64 = 4;

fn number(row: &Value, path: &str) -> u64 {
    row.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

#[test]
fn beyond_its_connection_limit_a_pods_connections_go_straight_until_others_end() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let options =
        Options { arguments: vec!["--max-pod-connections".into(), LIMIT.to_string()], ..Options::default() };
    let agent = Agent::start_with(&shop.cluster, &options)?;
    let mut taken: Vec<Load> = Vec::new();
    for _ in 0..LIMIT {
        let mut load = shop.client.load(&shop.v4(), &["--rate", "20"])?;
        load.more_calls(5)?.is_clean()?;
        taken.push(load);
    }
    eventually("the kernel knows that the pod is at its limit", || {
        agent.pod("client").is_ok_and(|row| row.pointer("/at_connection_limit") == Some(&Value::Bool(true)))
    })?;
    let at_limit = agent.pod("client")?;
    ensure!(number(&at_limit, "/open_connections") == LIMIT, "{at_limit}");
    ensure!(number(&at_limit, "/connections/connection_limit") == 0, "{at_limit}");
    ensure!(number(&at_limit, "/memory_bytes") > 0, "{at_limit}");
    // The next one is served all the same, by one server alone.
    let mut straight = shop.client.load(&shop.v4(), &["--rate", "100"])?;
    let tally = straight.more_calls(30)?;
    tally.is_clean()?;
    ensure!(tally.calls.len() == 1, "it is not balanced: {tally:?}");
    let beyond = agent.pod("client")?;
    // Or an agent that got no time for a second: the kernel then says so first.
    let straight_for =
        ["/connections/connection_limit", "/connections/agent_silent"].map(|why| number(&beyond, why));
    ensure!(straight_for.iter().sum::<u64>() == 1, "{beyond}");
    ensure!(number(&beyond, "/open_connections") == LIMIT, "{beyond}");
    for load in taken {
        load.stop()?.is_clean()?;
    }
    eventually("there is room again, and a fresh connection is taken", || {
        shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread)
    })?;
    straight.stop()?.is_clean()
}
