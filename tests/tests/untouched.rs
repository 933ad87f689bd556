//! What Evenkeel must not touch goes where it went without Evenkeel.

use anyhow::{bail, ensure};
use evenkeel_tests::cluster::GREETER_TARGET_PORT;
use evenkeel_tests::host::privileged;
use evenkeel_tests::peer::Dialled;
use evenkeel_tests::{Agent, Cluster, Outcome, Pod, Service, Shop, eventually};
use std::collections::BTreeSet;

/// A client of that pod runs straight to the Service, its calls on one server.
fn is_untouched(pod: &Pod, service: &Service) -> Outcome {
    for to in [service.v4(), service.v6()] {
        let mut load = pod.load(&to, &[])?;
        let tally = load.more_calls(30)?;
        tally.is_clean()?;
        ensure!(tally.calls.len() == 1, "one connection, one server: {tally:?}");
        ensure!(pod.goes_straight_to(&to)?, "{} goes to {:?}", pod.name, pod.established_to()?);
    }
    Ok(())
}

#[test]
fn a_pod_of_a_namespace_that_is_not_enrolled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::not_enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    is_untouched(&shop.client, &shop.greeter)
}

#[test]
fn a_pod_that_is_labelled_out_of_an_enrolled_namespace() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    shop.cluster.label_pod(&shop.client, false);
    let other = shop.cluster.pod("other")?;
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    is_untouched(&shop.client, &shop.greeter)?;
    ensure!(shop.spreads_calls_of(&other)?, "the other pods stay enrolled");
    Ok(())
}

#[test]
fn the_other_pods_of_a_namespace_in_which_one_is_labelled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(2)?;
    shop.cluster.label_pod(&shop.client, true);
    let other = shop.cluster.pod("other")?;
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?, "the labelled pod is enrolled");
    is_untouched(&other, &shop.greeter)
}

#[test]
fn a_pod_in_the_hosts_network() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    let pod = shop.cluster.host_network_pod("host-network")?;
    // Its own label must not help it in either: its namespace is the node's.
    shop.cluster.label_pod(&pod, true);
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    is_untouched(&pod, &shop.greeter)
}

#[test]
fn a_process_of_the_node_in_the_pods_network_namespace() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    // Such as a CNI's plugin or a probe: the namespace is the pod's, the cgroup is not.
    let service: std::net::SocketAddr = shop.v4().parse()?;
    let stream = shop.client.netns.enter(|| std::net::TcpStream::connect(service))??;
    ensure!(shop.client.goes_straight_to(&shop.v4())?, "{:?}", shop.client.established_to()?);
    drop(stream);
    Ok(())
}

fn a_port_is_untouched(change: impl FnOnce(&mut evenkeel_tests::ServicePort)) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    if let Some(service) = shop.cluster.services.get_mut("greeter") {
        change(&mut service.ports[0]);
    }
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    is_untouched(&shop.client, &shop.greeter)
}

#[test]
fn a_port_whose_name_does_not_say_grpc() -> Outcome {
    a_port_is_untouched(|port| port.name = "tcp-ledger".to_owned())
}

#[test]
fn a_port_named_grpc_web() -> Outcome {
    a_port_is_untouched(|port| port.app_protocol = Some("grpc-web".to_owned()))
}

#[test]
fn a_port_whose_app_protocol_overrules_its_name() -> Outcome {
    a_port_is_untouched(|port| port.app_protocol = Some("tcp".to_owned()))
}

#[test]
fn datagrams_to_the_address_and_port_of_a_grpc_service() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(1)?;
    let _echo = shop.servers[0].echo(GREETER_TARGET_PORT, &["--udp"])?;
    if let Some(service) = shop.cluster.services.get_mut("greeter") {
        let mut udp = service.ports[0].clone();
        udp.name = "quic".to_owned();
        udp.protocol = "UDP";
        service.ports.push(udp);
    }
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    for to in [shop.v4(), shop.v6()] {
        let dialled = shop.client.dial(&to, &["--udp"])?;
        let Dialled::Answered { peername, reply, .. } = &dialled else { bail!("{dialled:?}") };
        ensure!(reply == "hello" && peername.to_string() == to, "{dialled:?}");
    }
    Ok(())
}

#[test]
fn a_service_without_endpoints_refuses_as_before() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    cluster.enrol_namespace(true);
    let client = cluster.pod("client")?;
    let service = cluster.service("greeter", &[])?;
    let _agent = Agent::start(&cluster)?;
    for to in [service.v4(), service.v6()] {
        let dialled = client.dial(&to, &[])?;
        ensure!(matches!(&dialled, Dialled::Failed(why) if why.contains("refused")), "{dialled:?}");
    }
    Ok(())
}

#[test]
fn the_agents_own_sockets_do_not_come_back_to_it() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(1)?;
    // An endpoint that is itself the address of a captured Service: a loop, unless the agent's own dials are let through.
    let inner = shop.greeter.clone();
    let outer = shop.cluster.service("outer", &[&shop.servers[0]])?;
    if let Some(service) = shop.cluster.services.get_mut("outer") {
        service.endpoints[0].ipv4 = inner.ipv4;
        service.endpoints[0].ipv6 = inner.ipv6;
        service.ports[0].target_port = inner.ports[0].port;
    }
    // kube-proxy does not translate twice either, so the node is told the inner Service only.
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&outer.v4(), &[])?;
    let tally = load.more_calls(20)?;
    tally.is_clean()?;
    ensure!(
        shop.client.goes_straight_to(&shop.v4())?,
        "the upstream socket: {:?}",
        shop.client.established_to()?
    );
    Ok(())
}

#[test]
fn another_pod_cannot_reach_a_pods_listener() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?, "the listener works for its own pod");
    let ports: BTreeSet<u16> = shop.client.listening_on()?.iter().map(|listener| listener.port()).collect();
    ensure!(!ports.is_empty(), "the client pod itself listens nowhere, the agent in it does");
    let stranger = &shop.servers[0];
    for port in ports {
        for to in [shop.client.v4(port), shop.client.v6(port)] {
            // Refused, or not answered at all: a few times what an answer takes.
            let dialled = stranger.dial(&to, &["--connect-limit-seconds", "3"])?;
            ensure!(matches!(dialled, Dialled::Failed(_)), "{to}: {dialled:?}");
        }
    }
    Ok(())
}

#[test]
fn an_agent_that_stops_in_order_leaves_nothing_in_the_pods() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let mut agent = Agent::start(&shop.cluster)?;
    ensure!(shop.spreads_calls_of(&shop.client)?);
    agent.stop()?;
    eventually("the listeners have gone", || shop.client.listening_on().is_ok_and(|all| all.is_empty()))?;
    is_untouched(&shop.client, &shop.greeter)
}
