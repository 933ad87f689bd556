//! Every kind of Service: the endpoints are those that the cluster's own controllers write.

use super::cluster;
use anyhow::{Context, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::Shop;
use evenkeel_tests::kubernetes::shop::{
    GREETER, SERVICE_PORT, TARGET_PORT, server, server_container, service,
};
use evenkeel_tests::{Outcome, Tally, eventually};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};

/// A second server in a greeter's pod.
const OTHER_PORT: u16 = 9_001;

/// A Service of the greeters, with these further fields of its spec.
pub(super) fn service_with(name: &str, spec: &Value) -> Value {
    let mut service = service(name);
    for (field, value) in spec.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

/// The servers that answered.
pub(super) fn names(tally: &Tally) -> Vec<&str> {
    tally.calls.keys().map(String::as_str).collect()
}

/// A greeter's pod whose port of that name is another.
fn server_on(name: &str, node: &str, port: u16) -> Value {
    let mut object = server(name, node);
    let container = &mut object["spec"]["containers"][0];
    container["args"] = json!(["serve", "--listen", format!("[::]:{port}")]);
    container["ports"] = json!([{"name": "grpc", "containerPort": port}]);
    object
}

#[test]
fn a_named_target_port_is_each_pods_own() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "named-port")?;
    shop.apply(&[
        service(GREETER),
        server_on("server-1", "node-1", TARGET_PORT),
        server_on("server-2", "node-2", OTHER_PORT),
    ])?;
    let client = shop.idle("client", "node-1")?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    shop.is_enrolled(&client)?;
    let tally = shop.call(&client, shop.address(GREETER)?, &[])?;
    shop.is_clean(&client, &tally)?;
    ensure!(names(&tally) == ["server-1", "server-2"], "{tally:?}");
    Ok(())
}

#[test]
fn each_port_of_a_service_has_its_own_servers() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    const SECOND: u16 = 50_052;
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "multi-port")?;
    let with_two = |name: &str, node: &str| {
        let mut object = server(name, node);
        let mut second = server_container();
        second["name"] = json!("second");
        second["args"] =
            json!(["serve", "--listen", format!("[::]:{OTHER_PORT}"), "--name", format!("{name}-b")]);
        second["ports"] = json!([{"name": "second", "containerPort": OTHER_PORT}]);
        second["readinessProbe"]["tcpSocket"]["port"] = json!("second");
        let first = object["spec"]["containers"][0].take();
        object["spec"]["containers"] = json!([first, second]);
        object
    };
    let ports = json!({"ports": [
        {"name": "grpc", "port": SERVICE_PORT, "targetPort": "grpc"},
        {"name": "grpc-b", "port": SECOND, "targetPort": "second"},
    ]});
    shop.apply(&[
        service_with(GREETER, &ports),
        with_two("server-1", "node-1"),
        with_two("server-2", "node-2"),
    ])?;
    let client = shop.idle("client", "node-2")?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    shop.captured(GREETER, SECOND, 2)?;
    shop.is_enrolled(&client)?;
    let first = shop.address(GREETER)?;
    let tally = shop.call(&client, first, &[])?;
    ensure!(names(&tally) == ["server-1", "server-2"] && tally.failed() == 0, "{tally:?}");
    let tally = shop.call(&client, SocketAddr::new(first.ip(), SECOND), &[])?;
    ensure!(names(&tally) == ["server-1-b", "server-2-b"] && tally.failed() == 0, "{tally:?}");
    Ok(())
}

#[test]
fn a_headless_service_is_balanced_where_it_asks_for_that() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "headless")?;
    shop.serve(2)?;
    let mut headless = service_with("direct", &json!({"clusterIP": "None"}));
    shop.apply(&[headless.clone()])?;
    let client = shop.idle("client", "node-1")?;
    shop.is_enrolled(&client)?;
    let endpoint = SocketAddr::new(shop.pod("server-2")?.address, TARGET_PORT);
    shop.service_port("node-1", "direct", SERVICE_PORT, |view| view["straight"].is_array())?;
    let tally = shop.call(&client, endpoint, &[])?;
    ensure!(names(&tally) == ["server-2"], "{tally:?}");

    headless["metadata"]["annotations"]["evenkeel.dev/headless"] = json!("balance");
    shop.apply(&[headless])?;
    shop.captured("direct", SERVICE_PORT, 2)?;
    let tally = shop.call(&client, endpoint, &[])?;
    shop.is_clean(&client, &tally)?;
    ensure!(names(&tally) == ["server-1", "server-2"], "{tally:?}");
    Ok(())
}

#[test]
fn under_a_local_traffic_policy_calls_stay_on_the_node() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "local")?;
    // 1 and 3 on the first node, 2 on the second.
    shop.serve(3)?;
    shop.apply(&[service_with("local", &json!({"internalTrafficPolicy": "Local"}))])?;
    let address = shop.address("local")?;
    cluster.wait_until_reached(address)?;
    for (node, expected) in [("node-1", &["server-1", "server-3"][..]), ("node-2", &["server-2"][..])] {
        let client = shop.idle(&format!("client-{node}"), node)?;
        shop.is_enrolled(&client)?;
        shop.service_port(node, "local", SERVICE_PORT, |view| view["captured"][0].is_string())?;
        let tally = shop.call(&client, address, &[])?;
        shop.is_clean(&client, &tally)?;
        ensure!(names(&tally) == expected, "{node}: {tally:?}");
    }
    Ok(())
}

#[test]
fn with_session_affinity_a_clients_calls_stay_on_one_server() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "affinity")?;
    shop.serve(3)?;
    shop.apply(&[service_with("sticky", &json!({"sessionAffinity": "ClientIP"}))])?;
    let address = shop.address("sticky")?;
    cluster.wait_until_reached(address)?;
    shop.captured("sticky", SERVICE_PORT, 3)?;
    let client = shop.idle("client", "node-2")?;
    shop.is_enrolled(&client)?;
    let mut all = Tally::default();
    for _ in 0..3 {
        let tally = shop.call(&client, address, &["--connections", "4"])?;
        shop.is_clean(&client, &tally)?;
        all.calls.extend(tally.calls);
    }
    ensure!(names(&all).len() == 1, "{all:?}");
    Ok(())
}

#[test]
fn servers_that_are_not_ready_serve_where_the_service_publishes_them() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "not-ready")?;
    let address = shop.serve(2)?;
    let mut unready = server("server-3", "node-1");
    unready["spec"]["containers"][0]["readinessProbe"] = json!({"exec": {"command": ["/nothing"]}});
    shop.apply(&[unready, service_with("early", &json!({"publishNotReadyAddresses": true}))])?;
    let early = shop.address("early")?;
    cluster.wait_until_reached(early)?;
    let client = shop.idle("client", "node-1")?;
    shop.is_enrolled(&client)?;
    shop.captured("early", SERVICE_PORT, 3)?;
    eventually("the third server listens", || {
        shop.pod("server-3").and_then(|pod| pod.listening_on()).is_ok_and(|listening| !listening.is_empty())
    })?;
    let tally = shop.call(&client, early, &["--calls", "60"])?;
    shop.is_clean(&client, &tally)?;
    ensure!(names(&tally) == ["server-1", "server-2", "server-3"], "{tally:?}");
    // The other Service of the same pods leaves it out.
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let tally = shop.call(&client, address, &["--calls", "60"])?;
    ensure!(names(&tally) == ["server-1", "server-2"], "{tally:?}");
    Ok(())
}

#[test]
fn external_addresses_are_taken_save_those_that_a_load_balancer_keeps_for_itself() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    const EXTERNAL: &str = "198.51.100.7";
    const BALANCER: &str = "203.0.113.7";
    const PROXY: &str = "203.0.113.8";
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "external")?;
    shop.serve(2)?;
    let spec = json!({"type": "LoadBalancer", "externalIPs": [EXTERNAL]});
    shop.apply(&[service_with("public", &spec)])?;
    let status = json!({"status": {"loadBalancer": {"ingress": [
        {"ip": BALANCER, "ipMode": "VIP"}, {"ip": PROXY, "ipMode": "Proxy"},
    ]}}});
    cluster.patch_status("service/public", &shop.namespace, &status.to_string())?;
    let client = shop.idle("client", "node-1")?;
    shop.is_enrolled(&client)?;
    let shown = shop.service_port("node-1", "public", SERVICE_PORT, |view| {
        view["endpoints"] == 2 && view["captured"].as_array().is_some_and(|captured| captured.len() == 3)
    })?;
    let captured = shown["captured"].to_string();
    ensure!(captured.contains(EXTERNAL) && captured.contains(BALANCER), "{shown}");
    ensure!(!captured.contains(PROXY) && shown["straight"].to_string().contains(PROXY), "{shown}");
    for address in [EXTERNAL, BALANCER] {
        let to = SocketAddr::new(address.parse::<IpAddr>()?, SERVICE_PORT);
        let tally = shop.call(&client, to, &[])?;
        shop.is_clean(&client, &tally)?;
        ensure!(names(&tally) == ["server-1", "server-2"], "{address}: {tally:?}");
    }
    Ok(())
}

/// Policy is not to be passed by.
#[test]
fn a_service_with_a_waypoint_is_left_alone_unless_asked() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "waypoint")?;
    shop.serve(2)?;
    let mut guarded = service("guarded");
    guarded["metadata"]["labels"] = json!({"istio.io/use-waypoint": "waypoint"});
    shop.apply(&[guarded.clone()])?;
    let address = shop.address("guarded")?;
    cluster.wait_until_reached(address)?;
    let client = shop.idle("client", "node-1")?;
    shop.is_enrolled(&client)?;
    let says_why = |view: &Value| view["straight"].to_string().contains("waypoint");
    shop.service_port("node-1", "guarded", SERVICE_PORT, says_why)?;
    ensure!(!shop.spreads(&client, address)?);
    guarded["metadata"]["annotations"]["evenkeel.dev/with-mesh"] = json!("true");
    shop.apply(&[guarded])?;
    shop.captured("guarded", SERVICE_PORT, 2)?;
    ensure!(shop.spreads(&client, address)?);
    Ok(())
}

/// What is no pod's can be served too: the slice is written by hand.
#[test]
fn a_slice_written_by_hand_counts() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "by-hand")?;
    shop.serve(2)?;
    let mut by_hand = service("by-hand");
    by_hand["spec"].as_object_mut().context("a Service has a spec")?.remove("selector");
    let addresses = [shop.pod("server-1")?.address, shop.pod("server-2")?.address];
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "by-hand-1", "labels": {"kubernetes.io/service-name": "by-hand"}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": TARGET_PORT, "protocol": "TCP"}],
        "endpoints": addresses.map(|address| json!({"addresses": [address]})),
    });
    shop.apply(&[by_hand, slice])?;
    let client = shop.idle("client", "node-2")?;
    shop.is_enrolled(&client)?;
    shop.captured("by-hand", SERVICE_PORT, 2)?;
    let tally = shop.call(&client, shop.address("by-hand")?, &[])?;
    shop.is_clean(&client, &tally)?;
    ensure!(names(&tally) == ["server-1", "server-2"], "{tally:?}");
    Ok(())
}

#[test]
fn a_port_that_is_not_grpc_is_relayed_by_nobody() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "not-grpc")?;
    shop.serve(2)?;
    let ports = json!({"ports": [{"name": "tcp-api", "port": SERVICE_PORT, "targetPort": "grpc"}]});
    shop.apply(&[service_with("plain", &ports)])?;
    let address = shop.address("plain")?;
    cluster.wait_until_reached(address)?;
    let client = shop.idle("client", "node-1")?;
    shop.is_enrolled(&client)?;
    let says_why = |view: &Value| view["straight"].to_string().contains("tcp-api");
    shop.service_port("node-1", "plain", SERVICE_PORT, says_why)?;
    let spread = shop.spreads(&client, address)?;
    ensure!(!spread);
    Ok(())
}
