//! What a user says: labels on Namespaces and pods, live, both ways.

use super::cluster;
use anyhow::{Context, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::Shop;
use evenkeel_tests::kubernetes::shop::{CLIENT, ENABLED, GREETER, ONE_IN_FLIGHT, SERVICE_PORT, idle};
use evenkeel_tests::process::signal_to;
use evenkeel_tests::{Outcome, eventually};
use serde_json::{Value, json};

const ON_ENROL: &str = "evenkeel.dev/on-enrol";

/// Labelling is all that a user does; the client is the same process before and after.
#[test]
fn with_reconnect_a_label_spreads_the_calls_of_a_client_that_runs() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::open(&cluster, "reconnect", &json!({"annotations": {ON_ENROL: "reconnect"}}))?;
    let address = shop.serve(4)?;
    let client = shop.client_with("client", "node-1", address, &ONE_IN_FLIGHT)?;
    let before = client.more_calls(CLIENT, 30)?;
    ensure!(before.calls.len() == 1 && client.goes_straight_to(address)?, "{before:?}");

    let now = client.tally(CLIENT)?;
    shop.mark("label", &format!("{ENABLED}=true"))?;
    client.until(CLIENT, "all servers answer", &now, |tally| tally.calls.len() == 4)?;
    // Two servers are on the client's own node, two on the other.
    let spread = client.more_calls(CLIENT, 80)?;
    ensure!(spread.calls.len() == 4, "{spread:?}");
    let tally = client.tally(CLIENT)?;
    // A call that begins as its connection ends fails: that is why nobody is reconnected unasked.
    ensure!(tally.failed() <= 1, "{tally:?}");
    ensure!(tally.seen_as.keys().eq([&client.address.to_string()]), "{tally:?}");
    ensure!(tally.connections == 2, "one redial: {tally:?}");
    ensure!(!client.goes_straight_to(address)?);
    client.was_never_restarted(CLIENT)
}

#[test]
fn without_reconnect_old_connections_stay_and_are_counted() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::open(&cluster, "keep", &json!({}))?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let client = shop.client("client", "node-1", address)?;
    shop.mark("label", &format!("{ENABLED}=true"))?;
    let shown = shop.is_enrolled(&client)?;
    ensure!(shown["opened_before"] == 1, "{shown}");
    let after = client.more_calls(CLIENT, 60)?;
    ensure!(after.calls.len() == 1 && client.goes_straight_to(address)?, "{after:?}");
    ensure!(shop.spreads(&client, address)?, "a fresh connection of the same pod is taken");
    let tally = client.tally(CLIENT)?;
    shop.is_clean(&client, &tally)?;
    ensure!(tally.connections == 1, "{tally:?}");
    Ok(())
}

#[test]
fn without_its_label_a_namespace_is_as_before_and_no_call_fails() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "unlabel")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let client = shop.client("client", "node-2", address)?;
    let port = shop.is_enrolled(&client)?["listener_port"].as_u64().context("it has a listener")?;
    ensure!(shop.spreads(&client, address)?);

    shop.mark("label", &format!("{ENABLED}-"))?;
    shop.is_left_alone(&client, "namespace is not labelled")?;
    ensure!(!shop.spreads(&client, address)?, "a fresh connection goes straight");
    client.more_calls(CLIENT, 50)?;
    shop.is_clean(&client, &client.tally(CLIENT)?)?;

    // The listener goes with the last connection that was taken.
    for pid in client.pids_of("peer") {
        signal_to(pid, libc::SIGKILL);
    }
    eventually("nothing of the agent's is left in the pod", || {
        client.listening_on().is_ok_and(|all| all.iter().all(|listening| u64::from(listening.port()) != port))
    })
}

#[test]
fn a_pods_own_label_wins_over_its_namespaces() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "own-label")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let labelled = |name: &str, value: &str| {
        let mut pod = idle(name, "node-1");
        pod["metadata"]["labels"][ENABLED] = json!(value);
        pod
    };
    let out = shop.start(labelled("out", "false"))?;
    shop.is_left_alone(&out, "the pod's label says no")?;
    ensure!(!shop.spreads(&out, address)?);
    // Live, both ways.
    shop.kubectl(&["label", "pod/out", "--overwrite", &format!("{ENABLED}=true")])?;
    shop.is_enrolled(&out)?;
    ensure!(shop.spreads(&out, address)?);

    // A person's slip is no enrolment, and is named.
    let yes = shop.start(labelled("yes", "yes"))?;
    shop.is_left_alone(&yes, "the pod's label is \"yes\"")?;
    ensure!(!shop.spreads(&yes, address)?);
    shop.shown("node-1", "/problems", "the label is named among the problems", |problems| {
        problem_of(problems, "own-label/yes")
    })?;
    Ok(())
}

#[test]
fn a_single_pod_opts_in_where_its_namespace_does_not() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::open(&cluster, "opt-in", &json!({}))?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let mut object = idle("in", "node-2");
    object["metadata"]["labels"][ENABLED] = json!("true");
    let one = shop.start(object)?;
    let other = shop.idle("other", "node-2")?;
    shop.is_enrolled(&one)?;
    shop.is_left_alone(&other, "namespace is not labelled")?;
    ensure!(shop.spreads(&one, address)?);
    ensure!(!shop.spreads(&other, address)?);
    Ok(())
}

#[test]
fn a_label_of_a_namespace_that_is_neither_true_nor_false_is_named() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::open(&cluster, "slip", &json!({"labels": {ENABLED: "yes"}}))?;
    let pod = shop.idle("pod", "node-1")?;
    shop.is_left_alone(&pod, "the namespace's label is \"yes\"")?;
    shop.shown("node-1", "/problems", "the Namespace is named among the problems", |problems| {
        problem_of(problems, "Namespace slip")
    })?;
    Ok(())
}

/// The problem of that object with its label "yes".
fn problem_of(problems: &Value, object: &str) -> Option<()> {
    let is_of = |problem: &Value| {
        problem["object"].as_str().is_some_and(|named| named.contains(object))
            && problem["cause"].as_str().is_some_and(|cause| cause.contains("\"yes\""))
    };
    problems.as_array()?.iter().any(is_of).then_some(())
}
