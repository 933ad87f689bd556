//! The harness without Evenkeel: what the other suites take for granted.

use anyhow::ensure;
use evenkeel_tests::cluster::{GREETER_TARGET_PORT, NAMESPACE};
use evenkeel_tests::host::privileged;
use evenkeel_tests::peer::{Dialled, Opening};
use evenkeel_tests::{Cluster, Outcome, Shop, Stack, eventually};

#[test]
fn without_evenkeel_all_calls_of_a_channel_land_on_one_server() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (one, two, client) = (cluster.pod("one")?, cluster.pod("two")?, cluster.pod("client")?);
    let _servers = [one.serve()?, two.serve()?];
    let service = cluster.service("greeter", &[&one, &two])?;
    for address in [service.v4(), service.v6()] {
        let tally = client.call(&address, 100, &["--kind", "mixed"])?;
        tally.is_clean()?;
        ensure!(tally.completed() == 100 && tally.calls.len() == 1, "{tally:?}");
    }
    Ok(())
}

#[test]
fn without_evenkeel_connections_land_on_both_servers() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (one, two, client) = (cluster.pod("one")?, cluster.pod("two")?, cluster.pod("client")?);
    let _servers = [one.serve()?, two.serve()?];
    let service = cluster.service("greeter", &[&one, &two])?;
    let tally = client.call(&service.v4(), 100, &["--connections", "50"])?;
    ensure!(tally.calls.len() == 2 && tally.connections == 50, "{tally:?}");
    Ok(())
}

#[test]
fn a_service_without_endpoints_refuses_connections() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let client = cluster.pod("client")?;
    let service = cluster.service("greeter", &[])?;
    for address in [service.v4(), service.v6()] {
        let dialled = client.dial(&address, &[])?;
        ensure!(matches!(&dialled, Dialled::Failed(why) if why.contains("refused")), "{dialled:?}");
    }
    Ok(())
}

#[test]
fn a_server_sees_the_pods_own_address() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _server = server.serve()?;
    let service = cluster.service("greeter", &[&server])?;
    let tally = client.call(&service.v4(), 1, &[])?;
    ensure!(tally.seen_as.contains_key(&client.ipv4.to_string()), "{tally:?}");
    Ok(())
}

#[test]
fn udp_to_a_service_is_answered() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _echo = server.echo(GREETER_TARGET_PORT, &["--udp"])?;
    cluster.service("dns", &[&server])?;
    if let Some(service) = cluster.services.get_mut("dns") {
        service.ports[0].protocol = "UDP";
    }
    cluster.publish()?;
    let dialled = client.dial(&cluster.services["dns"].v4(), &["--udp"])?;
    ensure!(matches!(&dialled, Dialled::Answered { reply, .. } if reply == "hello"), "{dialled:?}");
    Ok(())
}

#[test]
fn a_pods_namespace_goes_with_the_pod() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let pod = cluster.pod("short-lived")?;
    let link = pod.node_link.clone();
    ensure!(cluster.node.has_link(&link));
    let cgroup = cluster.kubepods.path().join(format!("besteffort/pod{}", pod.uid));
    ensure!(cgroup.is_dir());
    drop(pod);
    ensure!(!cgroup.exists());
    eventually("the veth pair goes with the namespace", || !cluster.node.has_link(&link))
}

#[test]
fn the_folder_holds_the_objects_of_the_cluster() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let pod = cluster.pod("server")?;
    cluster.service("greeter", &[&pod])?;
    let services = std::fs::read_to_string(cluster.folder().join("services.yaml"))?;
    for expected in ["kind: EndpointSlice", "addressType: IPv6", &pod.ipv4.to_string(), NAMESPACE] {
        ensure!(services.contains(expected), "{expected} is missing in\n{services}");
    }
    Ok(())
}

#[test]
fn every_stack_calls_and_is_answered() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::not_enrolled(1)?;
    for stack in [Stack::Go, Stack::Python, Stack::Node] {
        for to in [shop.v4(), shop.v6()] {
            let tally = shop.client.load_on(stack, &to, &["--calls", "50"])?.finish()?;
            tally.is_clean()?;
            ensure!(tally.calls.get("server-1") == Some(&50), "{stack:?} to {to}: {tally:?}");
        }
    }
    Ok(())
}

#[test]
fn a_go_server_names_itself_and_its_client() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(1)?;
    shop.greeters.clear();
    let _greeter = shop.servers[0].serve_on_go(&[])?;
    let tally = shop.client.load_on(Stack::Go, &shop.v4(), &["--calls", "5"])?.finish()?;
    ensure!(tally.calls.get("server-1") == Some(&5), "{tally:?}");
    ensure!(tally.seen_as.contains_key(&shop.client.ipv4.to_string()), "{tally:?}");
    Ok(())
}

#[test]
fn every_kind_of_socket_is_shown_the_services_address() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _echo = server.echo(GREETER_TARGET_PORT, &[])?;
    let service = cluster.service("echo", &[&server])?;
    let own = client.ipv4.to_string();
    let kinds: [(String, &[&str]); 8] = [
        (service.v4(), &[]),
        (service.v6(), &[]),
        (service.v4(), &["--family", "mapped"]),
        (service.v6(), &["--family", "v6only"]),
        (service.v4(), &["--bind", &own]),
        (service.v4(), &["--device", "eth0"]),
        (service.v4(), &["--mptcp"]),
        (service.v4(), &["--fastopen"]),
    ];
    for (to, options) in kinds {
        let dialled = client.dial(&to, options)?;
        let Dialled::Answered { peername, reply, .. } = &dialled else {
            anyhow::bail!("{to} {options:?}: {dialled:?}");
        };
        ensure!(reply == "hello", "{dialled:?}");
        ensure!(peername.ip().to_canonical() == to.parse::<std::net::SocketAddr>()?.ip(), "{dialled:?}");
    }
    Ok(())
}

#[test]
fn bytes_poured_into_an_echo_come_back() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    let _echo = server.echo(GREETER_TARGET_PORT, &["--greet"])?;
    let service = cluster.service("echo", &[&server])?;
    const BYTES: u64 = 1_000_003;
    let poured = client.pour(&service.v4(), Opening::Silent, BYTES)?;
    ensure!(poured.bytes == BYTES);
    Ok(())
}

#[test]
fn a_running_connection_to_a_service_is_seen_as_straight() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::not_enrolled(1)?;
    for to in [shop.v4(), shop.v6()] {
        let mut load = shop.client.load(&to, &[])?;
        load.more_calls(1)?;
        ensure!(shop.client.goes_straight_to(&to)?, "{:?}", shop.client.established_to()?);
    }
    Ok(())
}

#[test]
fn a_port_on_which_nothing_listens_is_refused() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::new()?;
    let (server, client) = (cluster.pod("server")?, cluster.pod("client")?);
    for to in [server.v4(GREETER_TARGET_PORT), server.v6(GREETER_TARGET_PORT)] {
        let dialled = client.dial(&to, &[])?;
        ensure!(matches!(&dialled, Dialled::Failed(why) if why.contains("refused")), "{to}: {dialled:?}");
    }
    Ok(())
}
