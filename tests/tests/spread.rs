//! The calls of one client connection are spread over the Service's pods, whatever socket and gRPC stack the client uses.

use anyhow::ensure;
use evenkeel_tests::host::privileged;
use evenkeel_tests::{Agent, Outcome, Shop, Stack};

/// Allowed distance from a server's share with the round-robin picker.
const TOLERANCE: f64 = 0.10;
const CALLS: u64 = 600;
/// Calls a second: the whole count takes under a second.
const RATE: &[&str] = &["--rate", "1000"];

/// One channel from a pod with such sockets: its calls are spread, and servers see the pod's own address.
fn one_channel_is_spread(to: impl Fn(&Shop) -> String, options: &[&str]) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let _agent = Agent::start(&shop.cluster)?;
    let tally = shop.client.call(&to(&shop), CALLS, &[RATE, options].concat())?;
    tally.is_clean()?;
    ensure!(tally.completed() == CALLS && tally.connections == 1, "{tally:?}");
    tally.is_even(&shop.names(), TOLERANCE)?;
    let own = [shop.client.ipv4.to_string(), shop.client.ipv6.to_string()];
    ensure!(tally.seen_as.keys().all(|seen| own.contains(seen)), "{tally:?}, not {own:?}");
    Ok(())
}

#[test]
fn over_ipv4() -> Outcome {
    one_channel_is_spread(Shop::v4, &[])
}

#[test]
fn over_ipv6() -> Outcome {
    one_channel_is_spread(Shop::v6, &[])
}

#[test]
fn over_ipv4_mapped_into_ipv6() -> Outcome {
    one_channel_is_spread(Shop::v4, &["--family", "mapped"])
}

#[test]
fn over_ipv6_only() -> Outcome {
    one_channel_is_spread(Shop::v6, &["--family", "v6only"])
}

#[test]
fn over_mptcp() -> Outcome {
    one_channel_is_spread(Shop::v4, &["--mptcp"])
}

#[test]
fn over_tcp_fast_open() -> Outcome {
    one_channel_is_spread(Shop::v4, &["--fastopen"])
}

#[test]
fn for_streams_as_for_single_calls() -> Outcome {
    one_channel_is_spread(Shop::v4, &["--kind", "mixed"])
}

#[test]
fn with_large_requests_and_replies() -> Outcome {
    one_channel_is_spread(
        Shop::v4,
        &["--payload-bytes", "100000", "--reply-bytes", "100000", "--rate", "200"],
    )
}

#[test]
fn from_sockets_bound_to_the_pods_addresses() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let _agent = Agent::start(&shop.cluster)?;
    for (to, source) in [(shop.v4(), shop.client.ipv4.to_string()), (shop.v6(), shop.client.ipv6.to_string())]
    {
        let tally = shop.client.call(&to, CALLS, &[RATE, &["--bind", &source]].concat())?;
        tally.is_clean()?;
        tally.is_even(&shop.names(), TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn with_the_default_picker_every_server_is_used() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(3)?;
    if let Some(service) = shop.cluster.services.get_mut("greeter") {
        service.annotations.clear();
    }
    shop.cluster.publish()?;
    let _agent = Agent::start(&shop.cluster)?;
    let mut load = shop.client.load(&shop.v4(), RATE)?;
    // It follows latency, so shares cannot be told in advance; but no server may be forgotten.
    let all_used = |tally: &evenkeel_tests::Tally| {
        shop.names().iter().all(|server| tally.calls.get(*server).is_some_and(|&calls| calls >= 50))
    };
    load.until("every server is used", &evenkeel_tests::Tally::default(), all_used)?;
    load.stop()?.is_clean()
}

fn another_stack_is_spread(stack: Stack) -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = Shop::enrolled(3)?;
    let _agent = Agent::start(&shop.cluster)?;
    let options = ["--calls", "600", "--rate", "600"];
    for to in [shop.v4(), shop.v6()] {
        let tally = shop.client.load_on(stack, &to, &options)?.finish()?;
        tally.is_clean()?;
        ensure!(tally.completed() == CALLS, "{tally:?}");
        tally.is_even(&shop.names(), TOLERANCE)?;
    }
    Ok(())
}

#[test]
fn for_a_client_on_grpc_go() -> Outcome {
    another_stack_is_spread(Stack::Go)
}

#[test]
fn for_a_client_on_python_grpcio() -> Outcome {
    another_stack_is_spread(Stack::Python)
}

#[test]
fn for_a_client_on_node_grpc_js() -> Outcome {
    another_stack_is_spread(Stack::Node)
}

#[test]
fn over_servers_on_grpc_go() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = Shop::enrolled(2)?;
    shop.greeters.clear();
    let _greeters = [shop.servers[0].serve_on_go(&[])?, shop.servers[1].serve_on_go(&[])?];
    let _agent = Agent::start(&shop.cluster)?;
    // What the Go peer serves are single calls without a payload.
    let tally = shop.client.load_on(Stack::Go, &shop.v4(), &["--calls", "600", "--rate", "600"])?.finish()?;
    tally.is_clean()?;
    tally.is_even(&shop.names(), TOLERANCE)
}
