//! Which of a Service's endpoints the clients of a node are sent to: by node, by zone, by address family. The hints are those that the
//! cluster's own controller writes.

use super::cluster;
use super::services::{names, service_with};
use anyhow::{Context, Result, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::shop::{GREETER, SERVICE_PORT};
use evenkeel_tests::kubernetes::{Cluster, Shop};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// What follows from a Service's `trafficDistribution`: nodes, of which each is in a zone of its own, keep calls to themselves.
fn calls_stay_on_their_node(cluster: &Cluster, namespace: &str, distribution: &str, hint: &str) -> Outcome {
    let shop = Shop::enrolled(cluster, namespace)?;
    // 1 and 3 on the first node, 2 and 4 on the second.
    shop.serve(4)?;
    shop.apply(&[service_with("near", &json!({"trafficDistribution": distribution}))])?;
    hinted(cluster, &shop, "near", hint)?;
    let address = shop.address("near")?;
    cluster.wait_until_reached(address)?;
    let mut clients = Vec::new();
    for (node, expected) in [("node-1", ["server-1", "server-3"]), ("node-2", ["server-2", "server-4"])] {
        let client = shop.idle(&format!("client-{node}"), node)?;
        shop.is_enrolled(&client)?;
        let shown = shop.service_port(node, "near", SERVICE_PORT, |view| {
            view["captured"][0].is_string() && view["endpoints"] == 2
        })?;
        let why = if hint == "forNodes" { "hinted for other nodes" } else { "hinted for other zones" };
        ensure!(shown["unused"].to_string().matches(why).count() == 2, "{shown}");
        let tally = shop.call(&client, address, &[])?;
        shop.is_clean(&client, &tally)?;
        ensure!(names(&tally) == expected, "{node}: {tally:?}");
        clients.push(client);
    }

    // A node without a server of its own is sent to the others', rather than to nobody.
    shop.kubectl(&["delete", "pod", "server-1", "server-3"])?;
    shop.service_port("node-1", "near", SERVICE_PORT, |view| {
        view["endpoints"] == 2 && view["unused"].as_array().is_none_or(Vec::is_empty)
    })?;
    let tally = shop.call(&clients[0], address, &[])?;
    shop.is_clean(&clients[0], &tally)?;
    ensure!(names(&tally) == ["server-2", "server-4"], "{tally:?}");
    Ok(())
}

/// Waits until each endpoint of a Service has that kind of hint.
fn hinted(cluster: &Cluster, shop: &Shop<'_>, service: &str, hint: &str) -> Result<()> {
    let labels = format!("kubernetes.io/service-name={service}");
    let mut slices = Vec::new();
    evenkeel_tests::eventually(&format!("the controller hints {hint}"), || {
        slices = cluster.list("endpointslices", &shop.namespace, &labels).unwrap_or_default();
        let mut endpoints =
            slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        !slices.is_empty() && endpoints.all(|endpoint| endpoint["hints"][hint].is_array())
    })
    .with_context(|| json!(slices).to_string())
}

#[test]
fn with_prefer_same_node_calls_stay_on_the_node_while_it_has_servers() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    calls_stay_on_their_node(&*cluster()?, "same-node", "PreferSameNode", "forNodes")
}

#[test]
fn with_prefer_same_zone_calls_stay_in_the_zone_while_it_has_servers() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    calls_stay_on_their_node(&*cluster()?, "same-zone", "PreferSameZone", "forZones")
}

#[test]
fn a_dual_stack_service_is_taken_on_both_of_its_addresses() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "dual-stack")?;
    shop.serve(2)?;
    shop.apply(&[service_with("both", &json!({"ipFamilyPolicy": "PreferDualStack"}))])?;
    let client = shop.idle("client", "node-1")?;
    shop.is_enrolled(&client)?;
    // Each server has an address of each family.
    shop.service_port("node-1", "both", SERVICE_PORT, |view| {
        view["endpoints"] == 4 && view["captured"].as_array().is_some_and(|captured| captured.len() == 2)
    })?;
    let list = |object: &Value, pointer: &str| -> Result<Vec<Value>> {
        object.pointer(pointer).and_then(Value::as_array).cloned().with_context(|| object.to_string())
    };
    let services = list(&cluster.object("service/both", &shop.namespace)?, "/spec/clusterIPs")?;
    let own = list(&cluster.object("pod/client", &shop.namespace)?, "/status/podIPs")?;
    ensure!(services.len() == 2 && own.len() == 2, "{services:?} {own:?}");
    for (service, own) in services.iter().zip(&own) {
        let address: IpAddr = service.as_str().context("an address")?.parse()?;
        let tally = shop.call(&client, SocketAddr::new(address, SERVICE_PORT), &[])?;
        tally.is_clean()?;
        ensure!(names(&tally) == ["server-1", "server-2"], "{address}: {tally:?}");
        let own = own["ip"].as_str().context("an address")?;
        ensure!(tally.seen_as.keys().eq([own]), "{address}: servers see {own}: {tally:?}");
    }
    // One that asks for one family has one, and its calls stay in it.
    shop.captured(GREETER, SERVICE_PORT, 2)
}
