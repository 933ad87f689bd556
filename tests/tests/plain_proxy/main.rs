//! `evenkeel proxy`: the same call path without eBPF, on a plain host.

mod h2spec;

use anyhow::ensure;
use evenkeel_tests::cluster::{GREETER_PORT, GREETER_TARGET_PORT};
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::peer::Opening;
use evenkeel_tests::{Outcome, Pod, Process, Shop, Stack, eventually};
use std::process::Command;

const LISTEN: u16 = 9000;
const RATE: &[&str] = &["--rate", "1000"];

/// A proxy in that pod, once it listens.
fn proxy(pod: &Pod, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(host::evenkeel_binary()?);
    command.args(["proxy", "--workers", "2"]).args(arguments);
    let mut process = pod.spawn("proxy", command)?;
    eventually("the proxy listens", || {
        let listening = pod.listening_on().unwrap_or_default();
        listening.iter().any(|address| address.port() == LISTEN)
            || process.ended().is_ok_and(|ended| ended.is_some())
    })?;
    ensure!(process.ended()?.is_none(), "the proxy ended: {:#?}", process.stderr());
    Ok(process)
}

fn addresses(shop: &Shop) -> String {
    let addresses: Vec<String> = shop.servers.iter().map(|pod| pod.v4(GREETER_TARGET_PORT)).collect();
    addresses.join(",")
}

#[test]
fn over_listed_endpoints_each_gets_its_share() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(3)?;
    let host = shop.cluster.pod("host")?;
    let listen = host.v4(LISTEN);
    let _proxy = proxy(&host, &["--listen", &listen, "--to", &addresses(&shop), "--picker", "round-robin"])?;
    let tally = shop.client.call(&listen, 600, &[RATE, &["--kind", "mixed"]].concat())?;
    tally.is_clean()?;
    ensure!(tally.connections == 1, "{tally:?}");
    tally.is_even(&shop.names(), 0.1)?;
    for stack in [Stack::Go, Stack::Python, Stack::Node] {
        let tally = shop.client.load_on(stack, &listen, &["--calls", "300", "--rate", "600"])?.finish()?;
        tally.is_clean()?;
        tally.is_even(&shop.names(), 0.1)?;
    }
    Ok(())
}

#[test]
fn over_a_service_of_a_folder_changes_are_followed() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(2)?;
    let host = shop.cluster.pod("host")?;
    let source = format!("folder:{}", shop.cluster.folder().display());
    let address = host.v4(LISTEN);
    let listen = format!("{address}=shop/greeter:{GREETER_PORT}");
    let _proxy = proxy(&host, &["--source", &source, "--listen", &listen])?;
    let mut load = shop.client.load(&address, &["--rate", "500"])?;
    load.more_calls(300)?.is_even(&shop.names(), 0.1)?;
    shop.add_server()?;
    shop.publish_servers(&[0, 1, 2])?;
    let now = load.tally()?;
    load.until("the third server answers", &now, |tally| tally.calls.contains_key("server-3"))?;
    load.more_calls(600)?.is_even(&shop.names(), 0.1)?;
    load.stop()?.is_clean()
}

#[test]
fn what_is_not_http_2_is_relayed() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(1)?;
    let host = shop.cluster.pod("host")?;
    const ECHO_PORT: u16 = 7777;
    let _echo = shop.servers[0].echo(ECHO_PORT, &["--greet"])?;
    let listen = host.v4(LISTEN);
    let _proxy = proxy(&host, &["--listen", &listen, "--to", &shop.servers[0].v4(ECHO_PORT)])?;
    let poured = shop.client.pour(&listen, Opening::Silent, 1_000_003)?;
    ensure!(poured.bytes == 1_000_003);
    Ok(())
}

#[test]
fn a_server_that_dies_is_gone_around() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(3)?;
    let host = shop.cluster.pod("host")?;
    let listen = host.v4(LISTEN);
    let _proxy = proxy(&host, &["--listen", &listen, "--to", &addresses(&shop), "--picker", "round-robin"])?;
    let mut load = shop.client.load(&listen, &[])?;
    load.more_calls(100)?.is_clean()?;
    shop.greeters[0].process.kill()?;
    load.more_calls(20)?;
    let settled = load.more_calls(200)?;
    settled.is_clean()?;
    settled.is_even(&["server-2", "server-3"], 0.1)
}

#[test]
fn a_stop_ends_no_call_that_runs() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(2)?;
    let host = shop.cluster.pod("host")?;
    let listen = host.v4(LISTEN);
    let mut proxy = proxy(&host, &["--listen", &listen, "--to", &addresses(&shop)])?;
    let mut in_hand =
        shop.client.load(&listen, &["--calls", "20", "--rate", "1000", "--hold-milliseconds", "1500"])?;
    in_hand.process.line("begun 20")?;
    eventually("the proxy has called on", || {
        host.established_to().is_ok_and(|all| all.iter().any(|to| to.port() == GREETER_TARGET_PORT))
    })?;
    proxy.signal(libc::SIGTERM);
    let tally = in_hand.finish()?;
    tally.is_clean()?;
    ensure!(tally.completed() == 20, "{tally:?}");
    ensure!(proxy.wait()?.success());
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_named() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::not_enrolled(1)?;
    let host = shop.cluster.pod("host")?;
    let _echo = host.echo(LISTEN, &[])?;
    let mut command = Command::new(host::evenkeel_binary()?);
    command.args(["proxy", "--listen", &host.v4(LISTEN), "--to", &addresses(&shop)]);
    let mut process = host.spawn("proxy", command)?;
    ensure!(!process.wait()?.success());
    let said = process.stderr();
    ensure!(said.last().is_some_and(|last| last.contains("9000")), "{said:#?}");
    Ok(())
}
