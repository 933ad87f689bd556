//! What a pod may cost its node: connections beyond its limit go straight, as if there were no agent.

use anyhow::{Result, ensure};
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Load, Outcome, Shop, eventually};
use serde_json::Value;

const LIMIT: u64 = 4;

/// The client's row at `/pods`.
fn row(agent: &Agent) -> Result<Value> {
    let pods = agent.admin("/pods")?;
    let rows = pods.as_array().cloned().unwrap_or_default();
    Ok(rows.into_iter().find(|row| row.to_string().contains("client")).unwrap_or_default())
}

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
        row(&agent).is_ok_and(|row| row.pointer("/at_connection_limit") == Some(&Value::Bool(true)))
    })?;
    let at_limit = row(&agent)?;
    ensure!(number(&at_limit, "/open_connections") == LIMIT, "{at_limit}");
    ensure!(number(&at_limit, "/connections/connection_limit") == 0, "{at_limit}");
    ensure!(number(&at_limit, "/memory_bytes") > 0, "{at_limit}");
    // The next one is served all the same, by one server alone.
    let mut straight = shop.client.load(&shop.v4(), &["--rate", "100"])?;
    let tally = straight.more_calls(30)?;
    tally.is_clean()?;
    ensure!(tally.calls.len() == 1, "it is not balanced: {tally:?}");
    let beyond = row(&agent)?;
    ensure!(number(&beyond, "/connections/connection_limit") == 1, "{beyond}");
    ensure!(number(&beyond, "/open_connections") == LIMIT, "{beyond}");
    for load in taken {
        load.stop()?.is_clean()?;
    }
    eventually("there is room again, and a fresh connection is taken", || {
        shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread)
    })?;
    straight.stop()?.is_clean()
}
