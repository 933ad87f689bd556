//! A real API server: everything that the agent must learn from it, and all that can go wrong between the two.

use anyhow::{Context, ensure};
use evenkeel_tests::api_shop::{AGENT_NAME, AGENT_NAMESPACE, RIGHTS, Right, etcd, kind, problems, role};
use evenkeel_tests::cluster::NODE_NAME;
use evenkeel_tests::host::{self, privileged};
use evenkeel_tests::manifests::{ENABLED_LABEL, NETNS_ANNOTATION, Namespace, PodObject, STATUS_LABEL};
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, ApiShop, Outcome, eventually};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Instant;

/// Waits until the agent has this resource version, or a later one, of a kind.
fn knows(agent: &Agent, name: &str, version: &Value) -> Outcome {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    eventually(&format!("the agent knows {name} up to {version}"), || {
        kind(agent, name).is_ok_and(|kind| number(&kind["resource_version"]) >= number(version))
    })
}

#[test]
fn what_is_there_and_each_change_of_it_reaches_the_calls() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(3)?;
    shop.publish_servers(&[0, 1])?;
    let agent = shop.agent()?;
    let mut load = shop.shop.client.load(&shop.shop.v4(), &["--rate", "200"])?;
    load.is_even(100, &["server-1", "server-2"], 0.2)?;
    for positions in [&[0, 1, 2][..], &[2], &[0, 2]] {
        shop.publish_servers(positions)?;
        let names = shop.shop.names();
        let expected: Vec<&str> = positions.iter().map(|&position| names[position]).collect();
        eventually(&format!("calls go to {expected:?}"), || {
            load.more_calls(40).is_ok_and(|tally| tally.calls.keys().eq(&expected))
        })?;
    }
    load.stop()?.is_clean()?;

    // Namespaces come as metadata alone, and without the kubelet's own words on pods nothing is missed either.
    let client = &shop.shop.client;
    let straight = |expected: bool| {
        let what = format!("the client goes straight: {expected}");
        eventually(&what, || shop.shop.spreads_calls_of(client).is_ok_and(|spread| spread != expected))
    };
    straight(false)?;
    let label = |what: &str, value: &str| {
        shop.plane.run(&["label", "--overwrite", what, "-n", "shop", &format!("{ENABLED_LABEL}{value}")])
    };
    label("pod/client", "=false")?;
    straight(true)?;
    label("pod/client", "-")?;
    straight(false)?;
    label("namespace/shop", "-")?;
    straight(true)?;
    label("pod/client", "=true")?;
    straight(false)?;
    label("namespace/shop", "=true")?;

    // A Service that another proxy serves is none of ours, and is again when that ends.
    let proxy = "service.kubernetes.io/service-proxy-name";
    shop.plane.run(&["label", "service/greeter", "-n", "shop", &format!("{proxy}=other")])?;
    straight(true)?;
    shop.plane.run(&["label", "service/greeter", "-n", "shop", &format!("{proxy}-")])?;
    straight(false)?;
    shop.plane.run(&["delete", "service/greeter", "-n", "shop"])?;
    straight(true)?;
    ensure!(kind(&agent, "nodes")?["objects"] == 1, "this node alone: {:?}", agent.admin("/source"));
    let all = shop.plane.list("pods", "shop", "")?.len();
    ensure!(kind(&agent, "pods")?["objects"] == all);
    ensure!(kind(&agent, "endpointslices")?["streaming_lists"] == true);
    ensure!(problems(&agent) == "[]", "{}", problems(&agent));
    Ok(())
}

#[test]
fn calls_go_on_while_the_api_server_is_away_and_so_does_a_worker_that_starts_again() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(3)?;
    shop.publish_servers(&[0, 1])?;
    let mut agent = shop.agent()?;
    let mut load = shop.shop.client.load(&shop.shop.v4(), &["--rate", "200"])?;
    load.more_calls(100)?.is_clean()?;
    shop.plane.api_server.kill()?;
    let silent_since = Instant::now();
    eventually("the agent says that the API server is away", || {
        problems(&agent).contains("can't be reached")
            && problems(&agent).contains("what was known last goes on")
    })?;
    ensure!(agent.is_ready(), "the last state serves");
    load.is_even(200, &["server-1", "server-2"], 0.2)?;
    let tally = load.stop()?;
    tally.is_clean()?;

    // All that the worker process knew is with the keeper.
    agent.kill_worker_process()?;
    ensure!(
        shop.shop.spreads_calls_of(&shop.shop.client)?,
        "a worker that starts again knows what was known"
    );
    ensure!(shop.shop.spreads_calls_of(&shop.shop.client)?);
    ensure!(!problems(&agent).contains("not ready until then"), "it serves: {}", problems(&agent));
    ensure!(agent.metrics()?.contains("evenkeel_source_seconds_since_contact{kind=\"services\"}"));
    // In whole tenths.
    let at_least = silent_since.elapsed().as_secs_f64() - 0.1;
    let age = kind(&agent, "services")?["seconds_since_contact"].as_f64();
    ensure!(age >= Some(at_least), "as old as it is: {age:?}");

    shop.plane.start_api_server()?;
    shop.publish_servers(&[0, 1, 2])?;
    let mut load = shop.shop.client.load(&shop.shop.v4(), &["--rate", "200"])?;
    eventually("what changed since arrives", || {
        load.more_calls(40).is_ok_and(|tally| tally.calls.contains_key("server-3"))
    })?;
    load.stop()?.is_clean()?;
    eventually("nothing is wrong any more", || problems(&agent) == "[]")
}

#[test]
fn an_agent_that_starts_before_the_api_server_is_alive_and_ready_when_that_is_there() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(2)?;
    let options = shop.options()?;
    shop.plane.api_server.kill()?;
    let mut agent = Agent::launch(&shop.shop.cluster, &options)?;
    eventually("the agent says why it is not ready", || {
        problems(&agent).contains("can't be reached") && problems(&agent).contains("not ready until then")
    })?;
    ensure!(agent.is_alive() && !agent.is_ready());
    ensure!(!shop.shop.spreads_calls_of(&shop.shop.client)?, "nobody is kept from anything");
    shop.plane.start_api_server()?;
    agent.ready()?;
    ensure!(shop.shop.spreads_calls_of(&shop.shop.client)?);
    agent.stop()
}

#[test]
fn what_was_deleted_and_compacted_behind_a_lost_watch_is_noticed() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(2)?;
    let agent = shop.agent()?;
    ensure!(shop.shop.spreads_calls_of(&shop.shop.client)?);
    let lists = kind(&agent, "services")?["lists"].clone();
    shop.plane.api_server.kill()?;
    // The Service goes where no watch sees it, and etcd forgets that it did.
    let key = base64("/registry/services/specs/shop/greeter");
    let deleted = etcd(&shop.plane, "kv/deleterange", &json!({"key": key}))?;
    ensure!(deleted["deleted"] == "1", "{deleted}");
    for _ in 0..3 {
        etcd(&shop.plane, "kv/put", &json!({"key": base64("elsewhere"), "value": ""}))?;
    }
    let revision = etcd(&shop.plane, "kv/range", &json!({"key": key}))?["header"]["revision"].clone();
    etcd(&shop.plane, "kv/compaction", &json!({"revision": revision}))?;
    shop.plane.start_api_server()?;
    eventually("the Service's connections go straight", || {
        shop.shop.spreads_calls_of(&shop.shop.client).is_ok_and(|spread| !spread)
    })?;
    ensure!(kind(&agent, "services")?["lists"] != lists, "it was listed afresh");
    eventually("nothing is wrong any more", || problems(&agent) == "[]")
}

#[test]
fn each_right_that_is_missing_is_named_once_and_check_says_it_beforehand() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = ApiShop::enrolled(2)?;
    shop.plane.apply(&role(&[]))?;
    let account = format!("--as=system:serviceaccount:{AGENT_NAMESPACE}:{AGENT_NAME}");
    eventually("the API server goes by the role", || {
        let question = ["auth", "can-i", "list", "services", "--all-namespaces", &account];
        // Not by its status: that is the same when it asks in vain.
        shop.plane.command(&question).output().is_ok_and(|output| output.stdout.starts_with(b"no"))
    })?;
    let mut agent = Agent::launch(&shop.shop.cluster, &shop.options()?)?;
    for (group, resource, verbs) in RIGHTS.iter().copied() {
        if verbs.contains(&"watch") {
            let group = if group.is_empty() { "\\\"\\\"" } else { group };
            let line = format!("needs the verbs list and watch on {resource} of the API group {group}");
            eventually(&line, || problems(&agent).contains(&line))?;
        }
    }
    ensure!(agent.is_alive() && !agent.is_ready());
    let said = check(&shop)?;
    // What the chart's variables turn on as well.
    let with_options: [Right; 2] = [("", "nodes", &["get", "patch"]), ("", "pods", &["patch"])];
    for (group, resource, verbs) in RIGHTS.iter().chain(&with_options) {
        let line = format!("apiGroups [\"{group}\"], resources [\"{resource}\"], verbs {verbs:?}");
        ensure!(said.contains(&line), "{line}\nis not in\n{said}");
    }

    // Without the rights that it can do without it serves; the others make it ready, without a restart.
    let needed: Vec<_> =
        RIGHTS.iter().copied().filter(|(_, what, _)| !["nodes", "events"].contains(what)).collect();
    shop.plane.apply(&role(&needed))?;
    agent.ready()?;
    ensure!(shop.shop.spreads_calls_of(&shop.shop.client)?);
    ensure!(problems(&agent).contains("nodes: forbidden") && !problems(&agent).contains("pods: forbidden"));
    let log = agent.process.stderr();
    let told = log.iter().filter(|line| line.contains("ERROR") && line.contains(" pods: forbidden")).count();
    ensure!(told == 1, "told {told} times: {log:?}");
    shop.plane.apply(&role(&RIGHTS))?;
    eventually("the last right is granted", || problems(&agent) == "[]")?;
    let said = check(&shop)?;
    ensure!(
        said.contains("may list and watch nodes") && said.contains(&format!("{NODE_NAME} is a node")),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_token_that_was_exchanged_is_used() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(2)?;
    let agent = shop.agent()?;
    // The account is another of the same name: its old tokens are void.
    shop.plane.run(&["delete", "serviceaccount", AGENT_NAME, "-n", AGENT_NAMESPACE])?;
    shop.plane.run(&["create", "serviceaccount", AGENT_NAME, "-n", AGENT_NAMESPACE])?;
    shop.plane.api_server.kill()?;
    shop.plane.start_api_server()?;
    eventually("the agent says that its token is void", || problems(&agent).contains("401"))?;
    ensure!(shop.shop.spreads_calls_of(&shop.shop.client)?, "the last state serves");
    shop.plane.rotate_token(AGENT_NAMESPACE, AGENT_NAME)?;
    eventually("the new token does", || problems(&agent) == "[]")?;
    let changed = shop.plane.run(&["annotate", "namespace/shop", "new=yes"]);
    changed?;
    let version = shop.plane.object("namespace/shop", "default")?["metadata"]["resourceVersion"].clone();
    knows(&agent, "namespaces", &version)
}

#[test]
fn where_there_are_no_streaming_lists_lists_come_in_pages() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = ApiShop::enrolled_with(2, &["--feature-gates=WatchList=false"])?;
    // More than a page holds.
    let many: Vec<Value> = (0..1_200)
        .map(|number| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("many-{number}")}}))
        .collect();
    shop.plane.run_with(
        &["create", "-f", "-"],
        &json!({"apiVersion": "v1", "kind": "List", "items": many}).to_string(),
    )?;
    let agent = shop.agent()?;
    ensure!(shop.shop.spreads_calls_of(&shop.shop.client)?);
    let namespaces = kind(&agent, "namespaces")?;
    ensure!(namespaces["streaming_lists"] == false, "{namespaces}");
    ensure!(namespaces["objects"].as_u64() > Some(1_200), "{namespaces}");
    Ok(())
}

#[test]
fn a_pod_that_can_not_be_enrolled_has_an_event_that_says_why() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(2)?;
    let elsewhere = shop.shop.cluster.pods["client"].clone();
    let lost = format!("{NETNS_ANNOTATION}=/run/netns/evenkeel-no-such");
    let mut pod = elsewhere;
    pod.name = "lost".into();
    pod.annotations.insert(NETNS_ANNOTATION.into(), "/run/netns/evenkeel-no-such".into());
    // One whose name leaves no room in an Event's, and some in a namespace that takes nothing new: none keeps another waiting.
    let long = "l".repeat(250);
    shop.shop
        .cluster
        .namespaces
        .insert("going".into(), Namespace { name: "going".into(), ..Namespace::default() });
    for number in 0..4 {
        let (name, namespace) = (format!("going-{number}"), "going".to_owned());
        let mut pod = PodObject { name: name.clone(), namespace, ..pod.clone() };
        pod.labels.insert(ENABLED_LABEL.into(), "true".into());
        shop.shop.cluster.pods.insert(name, pod);
    }
    shop.shop.cluster.pods.insert(long.clone(), PodObject { name: long.clone(), ..pod.clone() });
    // Labelled by an agent that is gone, and opted out since.
    let mut left = PodObject { name: "left".into(), ..pod.clone() };
    left.labels.insert(ENABLED_LABEL.into(), "false".into());
    left.labels.insert(STATUS_LABEL.into(), "enrolled".into());
    shop.shop.cluster.pods.insert("left".into(), left);
    shop.shop.cluster.pods.insert("lost".into(), pod);
    shop.publish()?;
    shop.plane.run(&["delete", "namespace", "going", "--wait=false"])?;
    let mut options = shop.options()?;
    options.arguments.push("--label-pods".into());
    let patch_pods = [("", "pods", &["list", "watch", "patch"][..])];
    shop.plane.apply(&role(&[&RIGHTS[..], &patch_pods].concat()))?;
    let mut agent = Agent::start_with(&shop.shop.cluster, &options).context(lost)?;
    let event_of = |name: &str| {
        eventually_some("the pod has an Event", || {
            let events = shop.plane.list("events.events.k8s.io", "shop", "").unwrap_or_default();
            Ok(events.into_iter().find(|event| event["regarding"]["name"] == name))
        })
    };
    event_of(&long)?;
    let event = event_of("lost")?;
    ensure!(event["type"] == "Warning" && event["reportingController"] == "evenkeel.dev/agent", "{event}");
    ensure!(event["note"].as_str().is_some_and(|note| note.contains("evenkeel-no-such")), "{event}");
    let status = |pod: &str| {
        let object = shop.plane.object(&format!("pod/{pod}"), "shop").unwrap_or_default();
        object["metadata"]["labels"][STATUS_LABEL].as_str().unwrap_or_default().to_owned()
    };
    eventually("the pods' labels say it, too", || {
        status("client") == "enrolled" && !["", "enrolled", "waiting"].contains(&&*status("lost"))
    })?;
    eventually("a label that is no more true is taken off", || status("left").is_empty())?;
    eventually("nothing is wrong with Events and labels", || {
        let said = problems(&agent);
        said.starts_with('[') && !said.contains("Event") && !said.contains("labelled")
    })
    .with_context(|| problems(&agent))?;
    agent.stop()
}

#[test]
fn no_pod_chooses_its_network_namespace_unless_the_agent_is_told_to_heed_it() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut shop = ApiShop::enrolled(2)?;
    // The node's own, by a pod that no process is of.
    let mut pod = shop.shop.cluster.pods["client"].clone();
    pod.name = "intruder".into();
    pod.annotations.insert(NETNS_ANNOTATION.into(), "/proc/self/ns/net".into());
    shop.shop.cluster.pods.insert("intruder".into(), pod);
    shop.publish()?;
    let why = |agent: &Agent, name: &str| agent.pod(name).map(|pod| pod.to_string()).unwrap_or_default();
    let mut heeding = Agent::start_with(&shop.shop.cluster, &shop.options()?)?;
    eventually("the pod's word counts, but for the node's own namespace", || {
        why(&heeding, "client").contains("\"enrolled\":true")
            && why(&heeding, "intruder").contains("node_network_namespace")
    })?;
    heeding.stop()?;

    let mut options = shop.options()?;
    options.arguments.clear();
    let mut agent = Agent::launch(&shop.shop.cluster, &options)?;
    eventually("the annotation is told and not heeded", || {
        problems(&agent).contains("--netns-annotation") && why(&agent, "intruder").contains("no_process")
    })?;
    ensure!(!shop.shop.spreads_calls_of(&shop.shop.client)?, "only by its annotation it could be found");
    agent.stop()
}

#[test]
fn the_start_up_taint_is_taken_off_when_the_agent_is_ready_and_no_other() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let shop = ApiShop::enrolled(1)?;
    let key = "evenkeel.dev/agent-not-ready";
    let node = format!("node/{NODE_NAME}");
    shop.plane.run(&["taint", "node", NODE_NAME, &format!("{key}=:NoSchedule"), "mine=yes:NoSchedule"])?;
    let mut options = shop.options()?;
    options.arguments.extend(["--startup-taint".into(), key.into()]);
    let mut agent = Agent::start_with(&shop.shop.cluster, &options)?;
    let line = "needs the verbs get and patch on nodes";
    eventually("the right that is missing is named", || problems(&agent).contains(line))?;
    ensure!(agent.is_ready(), "what can't be written keeps nobody from traffic");
    agent.stop()?;
    let patch_nodes = [("", "nodes", &["get", "patch"][..])];
    shop.plane.apply(&role(&[&RIGHTS[..], &patch_nodes].concat()))?;
    let mut agent = Agent::start_with(&shop.shop.cluster, &options)?;
    shop.plane.wait_until(&node, "default", |node| {
        // The API server adds one of its own to a new Node.
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let keys: Vec<_> = taints.filter_map(|taint| taint["key"].as_str()).collect();
        keys.contains(&"mine") && !keys.contains(&key)
    })?;
    agent.stop()
}

/// What `evenkeel check` prints as the agent's ServiceAccount, and with all that the chart's variables turn on.
fn check(shop: &ApiShop) -> anyhow::Result<String> {
    let mut command = Command::new(host::evenkeel_binary()?);
    command.args(["check", "--node-name", NODE_NAME, "--kubeconfig"]).arg(shop.kubeconfig()?);
    command.env("EVENKEEL_STARTUP_TAINT", "evenkeel.dev/agent-not-ready").env("EVENKEEL_LABEL_PODS", "true");
    let output = shop.shop.cluster.node.enter(|| command.output())??;
    Ok(String::from_utf8(output.stdout)?)
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > chunk.len() { '=' } else { letter.into() });
        }
    }
    out
}
