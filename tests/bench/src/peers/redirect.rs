//! Evenkeel as on a node: the load in an enrolled pod dials a Service's ClusterIP, and eBPF takes the connection.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Kind, Peer, free_address, wait_for};
use crate::pod::Pod;
use crate::process::{Core, Process, pinned};

/// Nothing has this address: only a connection that was taken arrives.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 9, 9);
const PORT: u16 = 50_051;
const NAMESPACE: &str = "bench";
const SERVICE: &str = "servers";

pub(super) fn start(program: &Path, backends: usize, folder: &Path) -> Result<Peer> {
    let addresses: Vec<_> = (1..=backends as u8).map(|number| Ipv4Addr::new(10, 244, 9, number)).collect();
    let pod = Pod::create(&addresses)?;
    let bench = std::env::current_exe()?;
    let mut backends = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let mut command = pod.command(Core::Load, &bench);
        command.args(["backend", "--number", &number.to_string(), "--listen", &format!("{address}:{PORT}")]);
        backends.push(Process::start_and_read_line(&mut command)?.0);
    }

    let source = folder.join("cluster");
    fs::create_dir(&source)?;
    let objects = objects(&pod, &addresses).iter().map(ToString::to_string).collect::<Vec<_>>();
    // JSON is YAML.
    fs::write(source.join("bench.yaml"), objects.join("\n---\n"))?;

    let readiness = free_address()?;
    let mut command = pinned(Core::Proxy, program);
    command
        .args(["agent", "--workers", "1", "--log", "warn", "--source"])
        .arg(format!("folder:{}", source.display()))
        .arg("--cgroup")
        .arg(pod.cgroup())
        .args(["--readiness", &readiness.to_string()])
        .args(["--admin", &free_address()?.to_string(), "--metrics", &free_address()?.to_string()]);
    let log = folder.join("agent.log");
    let mut process = Process::start(&mut command, &log)?;
    wait_for(&mut process, &log, "is not ready", || is_ready(readiness))?;
    let address = SocketAddr::from((CLUSTER_IP, PORT));
    Ok(Peer { kind: Kind::Redirect, address, process, inside: Some(Inside { _backends: backends, pod }) })
}

/// The pod and what serves in it.
pub(crate) struct Inside {
    // Before the pod, which would kill them too, but not wait for their end.
    _backends: Vec<Process>,
    pub(super) pod: Pod,
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(address)?;
        write!(socket, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn objects(pod: &Pod, addresses: &[Ipv4Addr]) -> Vec<Value> {
    let port = |mut port: Value| {
        port["name"] = json!("grpc");
        port["protocol"] = json!("TCP");
        port["port"] = json!(PORT);
        port
    };
    let endpoints: Vec<_> =
        addresses.iter().map(|it| json!({ "addresses": [it], "conditions": { "ready": true } })).collect();
    vec![
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": NAMESPACE, "labels": { "evenkeel.dev/enabled": "true" } },
        }),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": NAMESPACE, "name": "load", "uid": "6a0f6f0e-0000-4000-8000-000000000001",
                "annotations": { "evenkeel.dev/netns": pod.netns() },
            },
            "spec": { "containers": [{ "name": "load", "image": "load" }] },
            "status": { "phase": "Running", "podIP": addresses[0], "podIPs": [{ "ip": addresses[0] }] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": NAMESPACE, "name": SERVICE, "annotations": { "evenkeel.dev/picker": "round-robin" },
            },
            "spec": {
                "clusterIP": CLUSTER_IP, "clusterIPs": [CLUSTER_IP],
                "ports": [port(json!({ "targetPort": PORT }))],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE, "name": "servers-1",
                "labels": { "kubernetes.io/service-name": SERVICE },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [port(json!({}))],
        }),
    ]
}
