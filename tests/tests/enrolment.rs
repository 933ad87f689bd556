//! Pods come under Evenkeel and leave it while they run.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::agent::{LISTENER_PORTS, Options};
use evenkeel_tests::host::privileged;
use evenkeel_tests::manifests::{NETNS_ANNOTATION, ON_ENROL_ANNOTATION};
use evenkeel_tests::process::signal_to;
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, Cluster, Outcome, Pod, Shop, eventually, pod};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Many enough to meet every per-pod cost, few enough for a small machine.
const MANY_PODS: usize = 200;

/// Waits until the pod is shown at the admin endpoint as said.
fn shown(agent: &Agent, pod: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = eventually_some(&format!("/pods says of {pod}: {what}"), || {
        last = agent.admin("/pods")?;
        let pods = last.as_array().into_iter().flatten();
        Ok(pods.filter(|row| row["name"] == pod).find(|row| is_so(row)).cloned())
    });
    found.with_context(|| last.to_string())
}

/// The ports of the agents' listeners that stand in the pod.
fn listener_ports(pod: &Pod) -> Result<BTreeSet<u16>> {
    // Not by a process of it, which may be dead.
    let listening = pod::listening_in(&pod.netns)?;
    Ok(listening.iter().map(SocketAddr::port).filter(|port| LISTENER_PORTS.contains(port)).collect())
}

/// How many routes to listeners stand in the pod.
fn listener_routes(pod: &Pod) -> Result<usize> {
    let routes = pod.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/ipv6_route"))??;
    Ok(routes.lines().filter(|line| line.starts_with("fd65766b656c")).count())
}

/// Waits until fresh connections of the client are spread, or not.
fn spreads(shop: &Shop, expected: bool) -> Outcome {
    let what = format!("calls of fresh connections are spread: {expected}");
    eventually(&what, || shop.spreads_calls_of(&shop.client).is_ok_and(|spread| spread == expected))
}

#[test]
fn enrolling_and_withdrawing_while_calls_run_fails_none() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let before = shop.client.load(&shop.v4(), &["--kind", "mixed"])?;
    for _ in 0..2 {
        shop.cluster.enrol_namespace(true);
        shop.cluster.publish()?;
        spreads(&shop, true)?;
        let mut during = shop.client.load(&shop.v4(), &["--kind", "mixed"])?;
        during.more_calls(50)?.is_even(&shop.names(), 0.2)?;
        shop.cluster.enrol_namespace(false);
        shop.cluster.publish()?;
        spreads(&shop, false)?;
        during.more_calls(50)?;
        during.stop()?.is_clean()?;
    }
    let tally = before.stop()?;
    tally.is_clean()?;
    ensure!(tally.calls.len() == 1, "connections from before the enrolment stay as they are: {tally:?}");
    Ok(())
}

#[test]
fn with_reconnect_a_running_client_is_spread_without_a_restart() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(3)?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &[])?;
    let before = load.more_calls(50)?;
    ensure!(before.calls.len() == 1, "{before:?}");
    let namespace = shop.cluster.enrol_namespace(true);
    namespace.annotations.insert(ON_ENROL_ANNOTATION.to_owned(), "reconnect".to_owned());
    shop.cluster.publish()?;
    let now = load.tally()?;
    load.until("all servers answer", &now, |tally| tally.calls.len() == 3)?;
    load.more_calls(300)?.is_even(&shop.names(), 0.1)?;
    let tally = load.stop()?;
    ensure!(tally.connections == 2, "one before, one after: {tally:?}");
    Ok(())
}

#[test]
fn a_pod_that_goes_takes_its_network_namespace_with_it() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let pod = shop.cluster.pod("short-lived")?;
    shop.cluster.publish()?;
    eventually("the pod is enrolled", || shop.spreads_calls_of(&pod).is_ok_and(|spread| spread))?;
    let link = pod.node_link.clone();
    let mut load = pod.load(&shop.v4(), &["--kind", "mixed"])?;
    load.more_calls(20)?.is_clean()?;
    // Its end as the kernel sees it, with connections open; the object goes later, as in a cluster.
    drop(pod);
    eventually("the pod's namespace is free", || !shop.cluster.node.has_link(&link))?;
    shop.cluster.pods.remove("short-lived");
    shop.cluster.publish()?;
    ensure!(shop.spreads_calls_of(&shop.client)?, "the others go on");
    Ok(())
}

#[test]
fn a_pod_that_comes_later_is_enrolled_without_a_restart() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let late = shop.cluster.pod("late")?;
    shop.cluster.publish()?;
    eventually("the late pod is enrolled", || shop.spreads_calls_of(&late).is_ok_and(|spread| spread))
}

#[test]
fn a_pod_is_found_by_the_network_namespace_that_it_names() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(2)?;
    shop.cluster.label_pod(&shop.client, true);
    let netns = shop.client.netns.path().display().to_string();
    if let Some(object) = shop.cluster.pods.get_mut("client") {
        // No process on this machine has this UID in its cgroup.
        object.uid = "00000000-0000-4000-8000-000000000000".to_owned();
        object.annotations.insert(NETNS_ANNOTATION.to_owned(), netns);
    }
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    spreads(&shop, true)
}

/// `kubectl delete pod` of a static pod: the kubelet makes another mirror of it, and the pod itself runs on.
#[test]
fn a_static_pod_whose_mirror_is_made_anew_stays_enrolled_with_its_connections() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let pod = shop.cluster.static_pod("static")?;
    shop.cluster.publish()?;
    let agent = Agent::start(&shop.cluster)?;
    let first = shown(&agent, "static", "enrolled", |row| row["enrolled"] == true)?;
    let mut load = pod.load(&shop.v4(), &["--kind", "mixed"])?;
    load.more_calls(20)?;

    shop.cluster.pods.get_mut("static").context("it has an object")?.uid = "mirror-2".to_owned();
    shop.cluster.publish()?;
    let is_next = |row: &Value| row["uid"] == "mirror-2" && row["enrolled"] == true;
    let next = shown(&agent, "static", "the next mirror is enrolled", is_next)?;
    ensure!(next["listener_port"] == first["listener_port"], "by the same listener: {first}, {next}");
    ensure!(listener_ports(&pod)?.len() == 1, "{:?}", listener_ports(&pod)?);
    ensure!(next["open_connections"] != 0, "{next}");
    load.more_calls(20)?;
    load.stop()?.is_clean()?;
    // The end of the last connection that the first mirror's pod had is not the end of the second's.
    shown(&agent, "static", "its last connection has ended", |row| row["open_connections"] == 0)?;
    ensure!(shop.spreads_calls_of(&pod)?);
    Ok(())
}

/// What it holds counts on, under whatever UID.
#[test]
fn a_static_pod_at_its_connection_limit_is_there_still_when_its_mirror_is_made_anew() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let pod = shop.cluster.static_pod("static")?;
    shop.cluster.publish()?;
    let options =
        Options { arguments: vec!["--max-pod-connections".into(), "1".into()], ..Options::default() };
    let agent = Agent::start_with(&shop.cluster, &options)?;
    let mut load = pod.load(&shop.v4(), &[])?;
    load.more_calls(5)?;
    let at_limit = |row: &Value| row["enrolled"] == true && row["at_connection_limit"] == true;
    shown(&agent, "static", "at its limit", at_limit)?;
    shop.cluster.pods.get_mut("static").context("it has an object")?.uid = "mirror-2".to_owned();
    shop.cluster.publish()?;
    let is_next = |row: &Value| row["uid"] == "mirror-2" && at_limit(row);
    shown(&agent, "static", "the next mirror is at the limit", is_next)?;
    ensure!(!shop.spreads_calls_of(&pod)?, "a further connection goes straight");
    load.more_calls(5)?;
    load.stop()?.is_clean()?;
    eventually("and there is room again", || shop.spreads_calls_of(&pod).is_ok_and(|spread| spread))
}

#[test]
fn an_enrolment_that_fails_leaves_nothing_in_the_pod() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let options = Options { arguments: vec!["--max-pods".to_owned(), "3".to_owned()], ..Options::default() };
    let agent = Agent::start_with(&shop.cluster, &options)?;
    let late = shop.cluster.pod("late")?;
    shop.cluster.publish()?;
    shown(&agent, "late", "there is no room for it", |row| row["reason_name"] == "too_many_pods")?;
    // It is tried again and again: between two tries nothing stands.
    eventually("nothing is left in the pod", || {
        listener_ports(&late).is_ok_and(|ports| ports.is_empty())
            && listener_routes(&late).is_ok_and(|routes| routes == 0)
    })?;
    shop.cluster.label_pod(&shop.servers[0], false);
    shop.cluster.publish()?;
    shown(&agent, "late", "enrolled", |row| row["enrolled"] == true)?;
    ensure!(shop.spreads_calls_of(&late)?);
    Ok(())
}

#[test]
fn a_crash_of_the_worker_ends_no_connection_from_before_a_late_label() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(2)?;
    let mut agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &[])?;
    load.more_calls(10)?;
    let namespace = shop.cluster.enrol_namespace(true);
    namespace.annotations.insert(ON_ENROL_ANNOTATION.to_owned(), "reconnect-missed".to_owned());
    shop.cluster.publish()?;
    let is_counted = |row: &Value| row["opened_before"] == 1 && row["opened_before_cause"] == "not_enrolled";
    shown(&agent, "client", "its connection is from before its label", is_counted)?;
    agent.kill_worker_process()?;
    shown(&agent, "client", "and is still", is_counted)?;
    load.more_calls(10)?;
    let tally = load.stop()?;
    tally.is_clean()?;
    ensure!(tally.connections == 1, "{tally:?}");
    Ok(())
}

#[test]
fn a_pod_that_has_an_address_and_no_process_is_named() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let mut ghost = shop.cluster.pods.get("client").context("the client has an object")?.clone();
    ghost.name = "ghost".to_owned();
    ghost.uid = "00000000-0000-4000-8000-000000000001".to_owned();
    ghost.addresses = vec!["10.244.255.1".parse()?];
    shop.cluster.pods.insert(ghost.name.clone(), ghost);
    shop.cluster.publish()?;
    let agent = Agent::launch(&shop.cluster, &Options::default())?;
    let is_named = |problem: &Value| {
        problem["object"].as_str().is_some_and(|object| object.ends_with("/ghost"))
            && problem["cause"].as_str().is_some_and(|cause| cause.starts_with("no_process"))
    };
    eventually("the pod is among what is wrong", || {
        agent.admin("/problems").is_ok_and(|all| all.as_array().is_some_and(|all| all.iter().any(is_named)))
    })?;
    eventually("and in the log", || agent.process.stderr().iter().any(|line| line.contains("ghost")))
}

/// Where no sandbox process holds a pod together (CRI-O), its namespace outlives its last process.
#[test]
fn a_pod_without_processes_keeps_nothing_of_the_agent() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let pod = shop.cluster.pod("restarting")?;
    shop.cluster.publish()?;
    let agent = Agent::start(&shop.cluster)?;
    shown(&agent, "restarting", "enrolled", |row| row["enrolled"] == true)?;
    ensure!(listener_routes(&pod)? == 1 && listener_ports(&pod)?.len() == 1);
    signal_to(pod.sandbox_pid(), libc::SIGKILL);
    eventually("nothing is left in the namespace", || {
        listener_ports(&pod).is_ok_and(|ports| ports.is_empty())
            && listener_routes(&pod).is_ok_and(|routes| routes == 0)
    })
}

#[test]
fn two_hundred_pods_are_enrolled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let pods = (0..MANY_PODS)
        .map(|number| shop.cluster.pod(&format!("pod-{number}")))
        .collect::<anyhow::Result<Vec<Pod>>>()?;
    shop.cluster.publish()?;
    let mut agent = Agent::start(&shop.cluster)?;
    for pod in pods.iter().step_by(20) {
        ensure!(shop.spreads_calls_of(pod)?, "{} is not enrolled", pod.name);
    }
    // And all of them again by a new worker process.
    agent.kill_worker_process()?;
    for pod in pods.iter().skip(7).step_by(40) {
        ensure!(shop.spreads_calls_of(pod)?, "{} is not enrolled", pod.name);
    }
    agent.stop()
}

#[test]
fn a_port_that_the_pod_declares_or_uses_is_never_taken() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    const DECLARED: u16 = 15_810;
    const IN_USE: u16 = 15_811;
    const LEFT: u16 = 15_812;
    let range = format!("{DECLARED}-{LEFT}");
    if let Some(object) = shop.cluster.pods.get_mut("client") {
        object.container_ports.push(DECLARED);
    }
    shop.cluster.publish()?;
    let _in_use = shop.client.echo(IN_USE, &[])?;
    let options = Options { arguments: vec!["--listener-ports".to_owned(), range], ..Options::default() };
    let _agent = Agent::start_with(&shop.cluster, &options)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    let listening = shop.client.listening_on()?;
    ensure!(listening.iter().any(|listener| listener.port() == LEFT), "{listening:?}");
    // The app binds the port that it declared only now.
    let _declared = shop.client.echo(DECLARED, &[])?;
    Ok(())
}

#[test]
fn a_pod_without_a_free_port_goes_straight_and_the_others_are_enrolled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    const ONLY: u16 = 15_810;
    let other = shop.cluster.pod("other")?;
    shop.cluster.publish()?;
    let _in_use = shop.client.echo(ONLY, &[])?;
    let options = Options {
        arguments: vec!["--listener-ports".to_owned(), format!("{ONLY}-{ONLY}")],
        ..Options::default()
    };
    // Not all pods can be enrolled, so the agent may not call itself ready.
    let _agent = Agent::launch(&shop.cluster, &options)?;
    eventually("the other pod is enrolled", || shop.spreads_calls_of(&other).is_ok_and(|spread| spread))?;
    ensure!(!shop.spreads_calls_of(&shop.client)?);
    Ok(())
}

#[test]
fn the_agent_finds_the_pods_common_cgroup_by_itself() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let options = Options { finds_cgroup: true, ..Options::default() };
    let _agent = Agent::start_with(&shop.cluster, &options)?;
    spreads(&shop, true)
}

#[test]
fn where_only_cgroup2_is_mounted_pods_are_enrolled_too() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let options = Options { pure_cgroup2: true, ..Options::default() };
    let _agent = Agent::start_with(&shop.cluster, &options)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    Ok(())
}

#[test]
fn the_admin_endpoint_names_pods_services_and_calls() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let agent = Agent::start(&shop.cluster)?;
    shop.client.call(&shop.v4(), 40, &[])?.is_clean()?;
    let expected = [
        ("/pods", "client".to_owned()),
        ("/services", "greeter".to_owned()),
        ("/endpoints", shop.servers[1].ipv4.to_string()),
    ];
    for (path, name) in expected {
        let page = agent.admin(path)?.to_string();
        ensure!(page.contains(&name), "{path} does not name {name}: {page}");
    }
    Ok(())
}

/// An empty node is no error.
#[test]
fn an_agent_on_a_node_without_pods_is_ready() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::new()?;
    let mut agent = Agent::start(&cluster)?;
    agent.stop()
}
