//! What an app sees of its own sockets, and which of them Evenkeel leaves alone.

use anyhow::{bail, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Outcome, Shop};
use std::net::SocketAddr;

/// The addresses that a client's `connected PEER from LOCAL` line names.
fn ends_of_first_connection(
    shop: &Shop,
    to: &str,
    options: &[&str],
) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let mut load = shop.client.load(to, options)?;
    load.more_calls(10)?.is_clean()?;
    ensure!(!shop.client.goes_straight_to(to)?, "not taken: {:?}", shop.client.established_to()?);
    let line = load.process.line("connected ")?;
    let words: Vec<&str> = line.split(' ').collect();
    let ["connected", peer, "from", local] = words[..] else { bail!("{line}") };
    Ok((peer.parse()?, local.parse()?))
}

fn names_are_the_original_ones(options: &[&str], v6: bool) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let to = if v6 { shop.v6() } else { shop.v4() };
    let (peername, sockname) = ends_of_first_connection(&shop, &to, options)?;
    let expected: SocketAddr = to.parse()?;
    ensure!(peername.ip().to_canonical() == expected.ip(), "getpeername says {peername}");
    ensure!(peername.port() == expected.port(), "getpeername says {peername}");
    // The family of the socket stays what the app chose.
    ensure!(peername.is_ipv6() == (v6 || options.contains(&"mapped")), "getpeername says {peername}");
    let own = if v6 { shop.client.ipv6.into() } else { std::net::IpAddr::from(shop.client.ipv4) };
    ensure!(sockname.ip().to_canonical() == own, "getsockname says {sockname}, the pod is {own}");
    Ok(())
}

#[test]
fn an_ipv4_socket_sees_the_service_and_its_own_pod() -> Outcome {
    names_are_the_original_ones(&[], false)
}

#[test]
fn an_ipv6_socket_sees_the_service_and_its_own_pod() -> Outcome {
    names_are_the_original_ones(&[], true)
}

#[test]
fn a_mapped_socket_sees_the_service_and_its_own_pod() -> Outcome {
    names_are_the_original_ones(&["--family", "mapped"], false)
}

#[test]
fn an_ipv6_only_socket_sees_the_service_and_its_own_pod() -> Outcome {
    names_are_the_original_ones(&["--family", "v6only"], true)
}

#[test]
fn a_socket_bound_to_a_device_is_left_alone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    for to in [shop.v4(), shop.v6()] {
        let mut load = shop.client.load(&to, &["--device", "eth0"])?;
        let tally = load.more_calls(20)?;
        tally.is_clean()?;
        ensure!(tally.calls.len() == 1, "one connection, one server: {tally:?}");
        ensure!(shop.client.goes_straight_to(&to)?, "{:?}", shop.client.established_to()?);
    }
    Ok(())
}

#[test]
fn a_pod_whose_loopback_is_down_is_left_alone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    shop.client.netns.ip("link set lo down\n")?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), &[])?;
    load.more_calls(20)?.is_clean()?;
    ensure!(shop.client.goes_straight_to(&shop.v4())?, "{:?}", shop.client.established_to()?);
    Ok(())
}

#[test]
fn a_connection_to_an_endpoint_itself_is_left_alone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(2)?;
    let _agent = Agent::start(&shop.cluster)?;
    let to = shop.servers[0].v4(evenkeel_tests::cluster::GREETER_TARGET_PORT);
    let tally = shop.client.call(&to, 20, &[])?;
    tally.is_clean()?;
    ensure!(tally.calls.get("server-1") == Some(&20), "{tally:?}");
    Ok(())
}
