//! Every kind of pod and container.

use super::cluster;
use anyhow::{Context, ensure};
use evenkeel_tests::agent::LISTENER_PORTS;
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::shop::{
    CLIENT, GREETER, SERVICE_PORT, client, client_container, idle, pod, short_client_container,
};
use evenkeel_tests::kubernetes::{NestedContainer, RunningPod, Shop, Starts};
use evenkeel_tests::process::signal_to;
use evenkeel_tests::{Outcome, Tally, eventually};
use serde_json::{Value, json};

/// The sandbox is enrolled before any container of it runs, so that the first connection of the first one is taken.
#[test]
fn calls_of_init_containers_and_of_sidecars_are_spread_from_the_first() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "init")?;
    let address = shop.serve(3)?;
    shop.captured(GREETER, SERVICE_PORT, 3)?;
    let mut sidecar = client_container("sidecar", address);
    sidecar["restartPolicy"] = json!("Always");
    let mut object = client("client", "node-1", address);
    object["spec"]["initContainers"] = json!([sidecar, short_client_container("init", address)]);
    let pod = shop.start(object)?;
    for container in ["init", "sidecar", CLIENT] {
        let none = Tally::default();
        let tally = pod.until(container, "12 calls", &none, |tally| tally.completed() >= 12)?;
        shop.is_clean(&pod, &tally)?;
        ensure!(tally.calls.len() > 1 && tally.connections == 1, "{container}: {tally:?}");
    }
    ensure!(!pod.goes_straight_to(address)?);
    Ok(())
}

#[test]
fn a_container_that_restarts_is_taken_again() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "restart")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let pod = shop.client("client", "node-1", address)?;
    let cookie = shop.is_enrolled(&pod)?["netns_cookie"].clone();
    pod.kill_container(CLIENT, "peer")?;
    let tally =
        pod.until(CLIENT, "both servers answer", &Tally::default(), |tally| tally.calls.len() == 2)?;
    shop.is_clean(&pod, &tally)?;
    let shown = shop.is_enrolled(&pod)?;
    ensure!(shown["netns_cookie"] == cookie, "the sandbox is the same: {shown}");
    Ok(())
}

/// The same pod, by its UID, in another network namespace.
#[test]
fn a_sandbox_that_is_killed_is_enrolled_again_when_it_is_made_anew() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "sandbox")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let pod = shop.client("client", "node-1", address)?;
    let cookie = shop.is_enrolled(&pod)?["netns_cookie"].clone();
    let old = pod.sandbox_pid()?;
    signal_to(old, libc::SIGKILL);
    eventually("the kubelet makes another sandbox", || {
        pod.sandbox_pid().is_ok_and(|sandbox| sandbox != old) && !pod.pids_of("peer").is_empty()
    })?;
    shop.shown_of(&pod, |view| view["enrolled"] == true && view["netns_cookie"] != cookie)?;
    // It has another address now, and another log. What the API server has of it may be the dead sandbox's yet, Ready and all: addresses
    // are handed out in turn, so the next one is another.
    let dead = pod.address.to_string();
    cluster.wait_until("pod/client", &shop.namespace, |pod| {
        pod["status"]["podIP"].as_str().is_some_and(|address| address != dead)
    })?;
    let pod = shop.ready("client")?;
    let tally =
        pod.until(CLIENT, "both servers answer", &Tally::default(), |tally| tally.calls.len() == 2)?;
    shop.is_clean(&pod, &tally)
}

#[test]
fn a_static_pod_is_enrolled_too() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "static")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let mut object = client("probe", "node-2", address);
    object["metadata"]["namespace"] = json!(shop.namespace);
    object["spec"].as_object_mut().context("a pod has a spec")?.remove("nodeName");
    let file = cluster.nodes[1].static_pods().join("probe.yaml");
    std::fs::write(&file, object.to_string())?;
    let outcome = (|| {
        // The kubelet adds its node's name.
        cluster.wait_for("pod/probe-node-2", &shop.namespace)?;
        let pod = shop.ready("probe-node-2")?;
        let tally = pod.until(CLIENT, "both servers answer", &Tally::default(), |t| t.calls.len() == 2)?;
        shop.is_clean(&pod, &tally)?;
        ensure!(!pod.goes_straight_to(address)?);
        Ok(())
    })();
    std::fs::remove_file(file)?;
    outcome
}

/// The mirror has a new UID each time, the pod itself runs on.
#[test]
fn a_static_pod_stays_enrolled_when_its_mirror_is_deleted() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "mirror")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let mut object = client("mirrored", "node-2", address);
    object["metadata"]["namespace"] = json!(shop.namespace);
    object["spec"].as_object_mut().context("a pod has a spec")?.remove("nodeName");
    let file = cluster.nodes[1].static_pods().join("mirrored.yaml");
    std::fs::write(&file, object.to_string())?;
    let enrolled_besides = |uid: &Value| {
        shop.shown("node-2", "/pods", "a mirror is enrolled", |pods| {
            let mirrors = pods.as_array()?.iter().filter(|view| view["name"] == "mirrored-node-2");
            mirrors.filter(|view| view["enrolled"] == true).find(|view| view["uid"] != *uid).cloned()
        })
    };
    let outcome = (|| {
        cluster.wait_for("pod/mirrored-node-2", &shop.namespace)?;
        let pod = shop.ready("mirrored-node-2")?;
        let first = enrolled_besides(&Value::Null)?;
        pod.more_calls(CLIENT, 20)?;
        shop.kubectl(&["delete", "pod/mirrored-node-2"])?;
        let next = enrolled_besides(&first["uid"])?;
        for same in ["netns_cookie", "listener_port"] {
            ensure!(next[same] == first[same], "{same}: {first}, {next}");
        }
        pod.more_calls(CLIENT, 20)?;
        let tally = pod.tally(CLIENT)?;
        shop.is_clean(&pod, &tally)?;
        ensure!(tally.connections == 1, "{tally:?}");
        // The last connection of the first mirror's ends, and another is taken.
        pod.kill_container(CLIENT, "peer")?;
        let tally = pod.until(CLIENT, "both servers answer", &Tally::default(), |t| t.calls.len() == 2)?;
        shop.is_clean(&pod, &tally)?;
        ensure!(!pod.goes_straight_to(address)?);
        Ok(())
    })();
    std::fs::remove_file(file)?;
    outcome
}

#[test]
fn a_pod_on_the_nodes_own_network_is_left_alone() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "host-network")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let mut object = client("client", "node-1", address);
    object["spec"]["hostNetwork"] = json!(true);
    let pod = shop.start(object)?;
    shop.is_left_alone(&pod, "hostNetwork")?;
    let tally = pod.more_calls(CLIENT, 40)?;
    tally.is_clean()?;
    ensure!(tally.calls.len() == 1 && pod.goes_straight_to(address)?, "{tally:?}");
    Ok(())
}

/// Its processes are of other users of the node's, which the agent's capabilities must reach.
#[test]
fn a_pod_with_a_user_namespace_is_enrolled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "users")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let mut object = client("client", "node-1", address);
    object["spec"]["hostUsers"] = json!(false);
    let pod = shop.start(object)?;
    let app = *pod.pids_of("peer").first().context("the client runs")?;
    let users = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
    ensure!(users(&app.to_string())? != users("self")?, "it has no user namespace of its own");
    let tally =
        pod.until(CLIENT, "both servers answer", &Tally::default(), |tally| tally.calls.len() == 2)?;
    shop.is_clean(&pod, &tally)?;
    shop.is_enrolled(&pod).map(drop)
}

#[test]
fn nothing_is_held_of_a_job_that_has_completed() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "job")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let mut template = pod("once", "node-1", "once", &short_client_container(CLIENT, address));
    template["spec"]["restartPolicy"] = json!("Never");
    template["metadata"].as_object_mut().context("a pod has metadata")?.remove("name");
    let template = json!({"metadata": template["metadata"], "spec": template["spec"]});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": template},
    });
    shop.apply(&[job])?;
    shop.kubectl(&["wait", "--for=condition=Complete", "job/once", "--timeout=180s"])?;
    let name = shop.kubectl(&["get", "pods", "-l", "app=once", "-o", "name"])?;
    let pod = shop.pod(name.trim().trim_start_matches("pod/"))?;
    let tally = pod.tally(CLIENT)?;
    shop.is_clean(&pod, &tally)?;
    ensure!(tally.calls.len() == 2, "{tally:?}");
    shop.is_left_alone(&pod, "finished")?;
    eventually("its sandbox is gone", || pod.pids().is_empty())
}

#[test]
fn a_pod_with_a_meshs_sidecar_is_left_alone_unless_asked() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "mesh")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let with = |name: &str, annotations: Value| {
        let mut pod = idle(name, "node-1");
        pod["metadata"]["annotations"] = annotations;
        pod
    };
    let status = r#"{"containers":["istio-proxy"]}"#;
    let left = shop.start(with("left", json!({"sidecar.istio.io/status": status})))?;
    shop.is_left_alone(&left, "a sidecar of Istio's")?;
    ensure!(!shop.spreads(&left, address)?);
    let asked = json!({"sidecar.istio.io/status": status, "evenkeel.dev/with-mesh": "true"});
    let asked = shop.start(with("asked", asked))?;
    shop.is_enrolled(&asked)?;
    ensure!(shop.spreads(&asked, address)?);
    Ok(())
}

/// The small edition of `cluster_starts`.
#[test]
fn each_of_many_pods_that_start_at_once_is_enrolled_before_its_first_connection() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "starts")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let starts = Starts::of(&shop, "node-1", address, 20, 20)?;
    println!("{starts}");
    // Beside other tests, an agent may get no time for a second: then connections go straight, on purpose.
    starts.none_was_late()
}

/// What runs in containers of a pod's own making is nobody's but the pod's: neither taken, nor taken for the pod.
#[test]
fn a_container_within_a_container_is_left_alone_and_its_pod_is_enrolled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "nested")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let pod = shop.idle("outer", "node-1")?;
    let cookie = shop.is_enrolled(&pod)?["netns_cookie"].clone();
    let nested = NestedContainer::of(&pod, "peer", &format!("{}-nested", cluster.name()))?;
    let tally = nested.call(address, 30)?;
    shop.is_clean(&pod, &tally)?;
    ensure!(tally.calls.len() == 1, "it goes straight: {tally:?}");
    ensure!(shop.is_enrolled(&pod)?["netns_cookie"] == cookie, "the pod's namespace is another now");
    ensure!(shop.spreads(&pod, address)?, "the pod's own connections are taken");
    Ok(())
}

/// There is none here that has a kernel of its own: the name of the class is what the agent goes by.
#[test]
fn a_pod_of_a_sandboxed_runtimes_class_is_left_alone_and_told_so() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "sandboxed")?;
    let address = shop.serve(2)?;
    shop.captured(GREETER, SERVICE_PORT, 2)?;
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata-qemu"}, "handler": "runc",
    });
    cluster.apply(&class.to_string())?;
    let mut object = idle("virtual", "node-1");
    object["spec"]["runtimeClassName"] = json!("kata-qemu");
    let pod = shop.start(object)?;
    let shown = shop.is_left_alone(&pod, "not capturable")?;
    ensure!(shown["reason"].as_str().is_some_and(|why| why.contains("kata-qemu")), "{shown}");
    has_event(&shop, &pod, "kata-qemu")?;
    ensure!(!shop.spreads(&pod, address)?);
    Ok(())
}

/// Where people look: `kubectl describe pod`.
#[test]
fn an_event_says_why_a_pod_is_not_enrolled() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = cluster()?;
    let shop = Shop::enrolled(&cluster, "event")?;
    // It declares every port that the agent could listen on.
    let mut object = idle("greedy", "node-1");
    let ports: Vec<Value> = LISTENER_PORTS.map(|port| json!({"containerPort": port})).collect();
    object["spec"]["containers"][0]["ports"] = json!(ports);
    let pod = shop.start(object)?;
    let shown = shop.shown_of(&pod, |view| view["reason_name"] == "no_listener_port")?;
    ensure!(shown["enrolled"] == false, "{shown}");
    has_event(&shop, &pod, "port")
}

/// Waits for a warning of the agent's on a pod that has these words.
fn has_event(shop: &Shop<'_>, pod: &RunningPod, words: &str) -> Outcome {
    let mut events = String::new();
    eventually(&format!("there is an Event on {}", pod.name), || {
        events = shop.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).unwrap_or_default();
        let list: Value = serde_json::from_str(&events).unwrap_or_default();
        list["items"].as_array().into_iter().flatten().any(|event| {
            event["regarding"]["name"] == pod.name
                && event["type"] == "Warning"
                && event["reportingController"].as_str().is_some_and(|who| who.contains("evenkeel"))
                && event["note"].as_str().is_some_and(|note| note.contains(words))
        })
    })
    .context(events)
}
