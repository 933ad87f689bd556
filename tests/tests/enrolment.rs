//! Pods come under Evenkeel and leave it while they run.

use anyhow::ensure;
use evenkeel_tests::agent::Options;
use evenkeel_tests::host::privileged;
use evenkeel_tests::manifests::{NETNS_ANNOTATION, ON_ENROL_ANNOTATION};
use evenkeel_tests::{Agent, Cluster, Outcome, Pod, Shop, eventually};

/// Many enough to meet every per-pod cost, few enough for a small machine.
const MANY_PODS: usize = 200;

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
