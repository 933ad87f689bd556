//! The real Kubernetes without Evenkeel: what the other cluster suites take for granted.

use anyhow::{Context, ensure};
use evenkeel_tests::cgroup;
use evenkeel_tests::host::privileged;
use evenkeel_tests::kubernetes::control_plane::START_LIMIT;
use evenkeel_tests::kubernetes::node_init::MACHINES_PARAMETERS;
use evenkeel_tests::kubernetes::workloads::{SERVER_PORT, client_container, pod, server_container, service};
use evenkeel_tests::kubernetes::{Cluster, ControlPlane, Options, cluster};
use evenkeel_tests::wait::{eventually_some, eventually_some_within};
use evenkeel_tests::{Outcome, Process, eventually, leftovers};
use serde_json::{Value, json};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: grpc, port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {nodeName: fake, containers: [{name: web, image: web}]}
";

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[test]
fn controllers_fill_the_slice_with_pods_that_are_ready() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = ControlPlane::start_with_controllers()?;
    plane.fake_node("fake", "10.0.0.9".parse()?, Some("zone-a"))?;
    plane.apply(SHOP)?;
    let mut pods = Vec::new();
    eventually("the Deployment has its pods", || {
        pods = plane.list("pods", "shop", "app=web").unwrap_or_default();
        pods.len() == 2
    })?;
    plane.fake_running("shop", name(&pods[0]), &["10.244.9.1".parse()?], true)?;
    plane.fake_running("shop", name(&pods[1]), &["10.244.9.2".parse()?], false)?;
    eventually("the slice has both, one of them ready", || {
        let slices = plane.list("endpointslices", "shop", "kubernetes.io/service-name=web");
        let Some(slice) = slices.ok().and_then(|slices| slices.into_iter().next()) else { return false };
        let ready = |address: &str| {
            let endpoints = slice["endpoints"].as_array().into_iter().flatten();
            endpoints
                .filter(|endpoint| endpoint["addresses"][0] == address)
                .map(|endpoint| endpoint["conditions"]["ready"].as_bool())
                .collect::<Vec<_>>()
        };
        ready("10.244.9.1") == [Some(true)] && ready("10.244.9.2") == [Some(false)]
    })
}

#[test]
fn two_control_planes_at_once_know_nothing_of_each_other() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let (one, other) = (ControlPlane::start()?, ControlPlane::start()?);
    one.apply("{apiVersion: v1, kind: Namespace, metadata: {name: only-here}}")?;
    one.wait_for("namespace/only-here", "default")?;
    ensure!(other.object("namespace/only-here", "default").is_err());
    Ok(())
}

#[test]
fn a_killed_api_server_comes_back_with_all_objects() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut plane = ControlPlane::start()?;
    plane.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
    plane.api_server.kill()?;
    ensure!(plane.object("namespace/shop", "default").is_err());
    plane.start_api_server()?;
    ensure!(name(&plane.object("namespace/shop", "default")?) == "shop");
    Ok(())
}

#[test]
fn a_service_account_may_do_what_its_role_says_and_nothing_else() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let plane = ControlPlane::start_with(&Options { controllers: false, ..Options::default() })?;
    plane.apply(
        "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [''], resources: [services], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
",
    )?;
    let reader = plane.with_kubeconfig(&plane.service_account_kubeconfig("default", "reader")?);
    eventually("the role is in force", || reader.list("services", "default", "").is_ok())?;
    let refused = reader.list("pods", "default", "").map(drop);
    ensure!(refused.is_err_and(|error| format!("{error:#}").contains("forbidden")));
    Ok(())
}

#[test]
fn pods_reach_each_other_by_name_and_address_on_a_node_and_between_nodes() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::start(2)?;
    for (server, node) in [("near", "node-1"), ("far", "node-2")] {
        cluster.apply_object(&pod("default", server, Some(node), server_container()))?;
        cluster.apply_object(&service("default", server, server))?;
    }
    let idle = json!({"name": "idle", "image": "evenkeel-peer", "args": ["echo", "--listen", "[::]:7"]});
    cluster.apply_object(&pod("default", "client", Some("node-1"), idle))?;
    cluster.pods_ready("default", "app in (near, far, client)")?;
    let own = cluster.pod_address("default", "client")?;
    for server in ["near", "far"] {
        let by_name = format!("{server}.default.svc.cluster.local:{SERVER_PORT}");
        let by_address = format!("{}:{SERVER_PORT}", cluster.pod_address("default", server)?);
        for to in [by_name, by_address] {
            // A pod is ready a moment before kube-proxy and DNS know.
            let tally = eventually_some(&format!("{to} answers"), || {
                Ok(cluster.call_from("default", "client", &to, 5).ok().filter(|tally| tally.failed() == 0))
            })?;
            ensure!(tally.calls.get(server) == Some(&5), "{to}: {tally:?}");
            ensure!(tally.seen_as.get(&own) == Some(&5), "{server} sees {own}: {tally:?}");
        }
    }
    let said = cluster.run(&["logs", "near"])?;
    ensure!(said.starts_with("ready"), "{said}");
    Ok(())
}

#[test]
fn a_node_sees_its_own_pods_cgroups_where_a_machine_of_its_own_has_them() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let cluster = Cluster::start(2)?;
    let mut uids = Vec::new();
    for node in &cluster.nodes {
        let name = format!("on-{}", node.name);
        let mut with_cgroups = server_container();
        with_cgroups["volumeMounts"] = json!([{"name": "cgroups", "mountPath": "/host/cgroup"}]);
        let mut pod = pod("default", &name, Some(&node.name), with_cgroups);
        pod["spec"]["volumes"] = json!([{"name": "cgroups", "hostPath": {"path": "/sys/fs/cgroup"}}]);
        cluster.apply_object(&pod)?;
        let pod = cluster.wait_until(&format!("pod/{name}"), "default", |pod| {
            pod["status"]["containerStatuses"][0]["ready"] == true
        })?;
        uids.push(pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned());
    }
    let below_sys = cgroup::mount()?.strip_prefix("/sys/fs/cgroup")?.to_owned();
    for (node, uid) in cluster.nodes.iter().zip(&uids) {
        let kubepods = Path::new("/sys/fs/cgroup").join(&below_sys).join("kubepods");
        let pods = node.run(&["find", &kubepods.to_string_lossy(), "-name", "pod*"])?;
        for other in &uids {
            ensure!(pods.contains(other.as_str()) == (other == uid), "{}: {pods}", node.name);
        }
        ensure!(node.cgroup()?.join("kubepods/besteffort").is_dir());
        // The pod's own process, seen from its node. Others end while they are looked at.
        let paths = node.run(&["sh", "-c", "cat /proc/[0-9]*/cgroup 2>/dev/null; true"])?;
        ensure!(paths.contains(&format!("0::/kubepods/besteffort/pod{uid}/")), "{paths}");
    }
    Ok(())
}

#[test]
fn with_cgroup2_alone_a_pod_has_a_cgroup_namespace_and_with_dual_stack_two_addresses() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let options = cluster::Options { cgroup2_only: true, dual_stack: true, ..cluster::Options::nodes(1) };
    let cluster = Cluster::start_with(options)?;
    let mut limited = server_container();
    limited["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "200m"}});
    cluster.apply_object(&pod("default", "server", None, limited))?;
    let mut both = service("default", "server", "server");
    both["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    cluster.apply_object(&both)?;
    cluster.apply_object(&pod("default", "client", None, server_container()))?;
    cluster.pods_ready("default", "app in (server, client)")?;
    let client = cluster.object("pod/client", "default")?;
    let services = cluster.object("service/server", "default")?;
    let services = services["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    let own = client["status"]["podIPs"].as_array().cloned().unwrap_or_default();
    ensure!(services.len() == 2 && own.len() == 2, "{services:?} {own:?}");
    for (ip, own) in services.iter().zip(&own) {
        let ip: IpAddr = ip.as_str().unwrap_or_default().parse()?;
        let to = SocketAddr::from((ip, SERVER_PORT)).to_string();
        let tally = eventually_some(&format!("{to} answers"), || {
            Ok(cluster.call_from("default", "client", &to, 5).ok().filter(|tally| tally.failed() == 0))
        })?;
        let own = own["ip"].as_str().unwrap_or_default();
        ensure!(tally.seen_as.get(own) == Some(&5), "{to}, by {own}: {tally:?}");
    }
    let node = &cluster.nodes[0];
    let mounts = node.run(&["sh", "-c", "grep cgroup /proc/self/mountinfo"])?;
    ensure!(mounts.lines().count() == 1 && mounts.contains(" /sys/fs/cgroup "), "{mounts}");
    let namespaces =
        node.run(&["sh", "-c", "readlink /proc/1/ns/cgroup /proc/$(pidof -s peer)/ns/cgroup"])?;
    let namespaces: Vec<&str> = namespaces.lines().collect();
    ensure!(namespaces.len() == 2 && namespaces[0] != namespaces[1], "{namespaces:?}");
    Ok(())
}

#[test]
fn a_node_that_loses_its_power_is_noticed_and_comes_back_with_its_pods() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let mut cluster = Cluster::start(1)?;
    cluster.apply_object(&pod("default", "server", Some("node-1"), server_container()))?;
    cluster.apply_object(&pod(
        "default",
        "client",
        Some("node-1"),
        client_container(&format!("server:{SERVER_PORT}"), 10),
    ))?;
    cluster.pods_ready("default", "app in (server, client)")?;
    cluster.nodes[0].cut_power()?;
    cluster.wait_until("node/node-1", "default", |node| {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        conditions
            .into_iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "Unknown")
    })?;
    cluster.power_on(0)?;
    cluster.wait_until_ready(0)?;
    cluster.wait_until("pod/server", "default", |pod| {
        let container = &pod["status"]["containerStatuses"][0];
        container["ready"] == true && container["restartCount"] == 1
    })?;
    Ok(())
}

/// A kubelet sets parameters of the kernel, which is the machine's: it has copies of them.
#[test]
fn the_machines_kernel_parameters_stay_as_they_are() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let read = || -> anyhow::Result<Vec<String>> {
        let parameters = MACHINES_PARAMETERS.iter();
        parameters.map(|parameter| Ok(fs::read_to_string(Path::new("/proc/sys").join(parameter))?)).collect()
    };
    let before = read()?;
    let cluster = Cluster::start(1)?;
    ensure!(read()? == before, "{MACHINES_PARAMETERS:?} were {before:?}, and are {:?}", read()?);
    // Where another cluster has set them already, nothing else would show it.
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", cluster.nodes[0].pid_of("kubelet")?))?;
    for parameter in MACHINES_PARAMETERS {
        ensure!(mounts.contains(&format!(" /proc/sys/{parameter} ")), "{parameter}: {mounts}");
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_cluster_while_another_runs_on() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let other = Cluster::start(1)?;
    let cluster = Cluster::start(1)?;
    cluster.apply_object(&pod("default", "server", Some("node-1"), server_container()))?;
    cluster.pods_ready("default", "app=server")?;
    let (name, folder) = (cluster.name().to_owned(), cluster.folder().to_owned());
    ensure!(traces(&name)?.len() > 2, "{:?}", traces(&name));
    drop(cluster);
    ensure!(traces(&name)?.is_empty(), "{:?}", traces(&name));
    ensure!(!folder.exists());
    ensure!(name_of_first_node(&other)? == "node-1");
    Ok(())
}

/// What the two tests below kill: a test process of its own.
#[test]
#[ignore = "runs until it is killed"]
fn a_control_plane_until_it_is_killed() -> Outcome {
    let plane = ControlPlane::start()?;
    println!("\nname {}", plane.name());
    loop {
        std::thread::park();
    }
}

/// Another test process with a control plane, and that one's name.
fn another_process() -> anyhow::Result<(Process, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--ignored", "--exact", "--nocapture", "a_control_plane_until_it_is_killed"]);
    let mut process = Process::spawn("another test process", command, None)?;
    let name = eventually_some_within(START_LIMIT, "its control plane runs", || {
        ensure!(process.ended()?.is_none(), "it has ended: {}", process.stderr().join("\n"));
        Ok(process.stdout().iter().find_map(|line| line.strip_prefix("name ").map(str::to_owned)))
    })?;
    ensure!(traces(&name)?.len() > 2, "{:?}", traces(&name));
    Ok((process, name))
}

#[test]
fn what_a_killed_test_process_left_the_next_one_sweeps() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let (mut other, name) = another_process()?;
    leftovers::sweep_now()?;
    ensure!(traces(&name)?.len() > 2, "it lives: {:?}", traces(&name));
    other.kill()?;
    leftovers::sweep_now()?;
    eventually("everything is swept", || traces(&name).is_ok_and(|traces| traces.is_empty()))
        .with_context(|| format!("{:?}", traces(&name)))
}

#[test]
fn a_test_process_that_is_interrupted_leaves_nothing() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let (mut other, name) = another_process()?;
    // Not SIGINT: what a shell starts in the background ignores that.
    other.signal(libc::SIGTERM);
    let status = other.wait()?;
    ensure!(
        status.signal() == Some(libc::SIGTERM),
        "it dies of what it was sent, for who waits for it: {status}"
    );
    ensure!(traces(&name)?.is_empty(), "{:?}", traces(&name));
    Ok(())
}

fn name_of_first_node(cluster: &Cluster) -> anyhow::Result<String> {
    Ok(name(&cluster.list("nodes", "default", "")?[0]).to_owned())
}

/// Cgroups, network namespaces, mounts and processes that bear the name.
fn traces(name: &str) -> anyhow::Result<Vec<String>> {
    let mut traces = Vec::new();
    for folder in ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"] {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)) {
                traces.push(path.display().to_string());
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    traces.extend(mounts.lines().filter(|mount| mount.contains(name)).map(str::to_owned));
    for process in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if line.contains(name) {
            traces.push(line);
        }
    }
    Ok(traces)
}
