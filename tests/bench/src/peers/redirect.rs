//! Evenkeel as on a node: the load in an enrolled pod dials a Service's ClusterIP, and eBPF takes the connection.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Kind, Peer, free_address, wait_for};
use crate::collector;
use crate::pod::Pod;
use crate::process::{Core, Process, pinned};

/// Nothing has this address: only a connection that was taken arrives.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 9, 9);
const PORT: u16 = 50_051;
const NAMESPACE: &str = "bench";
const SERVICE: &str = "servers";

/// How often the agent that tells all is scraped: Prometheus does it each 15 s or more seldom.
const SCRAPE_EVERY: Duration = Duration::from_secs(1);

pub(super) fn start(kind: Kind, program: &Path, backends: usize, folder: &Path) -> Result<Peer> {
    let addresses: Vec<_> = (1..=backends as u8).map(|number| Ipv4Addr::new(10, 244, 9, number)).collect();
    let pod = Pod::create(&kind.to_string(), &addresses)?;
    let bench = std::env::current_exe()?;
    let mut backends = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let mut command = pod.command(Core::Load, &bench);
        command.args(["backend", "--number", &number.to_string(), "--listen", &format!("{address}:{PORT}")]);
        backends.push(Process::start_and_read_line(&mut command)?.0);
    }

    let mut listeners = None;
    let source = folder.join(format!("{kind}-cluster"));
    fs::create_dir(&source)?;
    let objects = objects(&pod, &addresses).iter().map(ToString::to_string).collect::<Vec<_>>();
    // JSON is YAML.
    fs::write(source.join("bench.yaml"), objects.join("\n---\n"))?;

    let (readiness, metrics) = (free_address()?, free_address()?);
    let mut command = pinned(Core::Proxy, program);
    command
        .args(["agent", "--workers", "1", "--log", "warn", "--source"])
        .arg(format!("folder:{}", source.display()))
        .arg("--cgroup")
        .arg(pod.cgroup())
        .args(["--readiness", &readiness.to_string()])
        .args(["--admin", &free_address()?.to_string(), "--metrics", &metrics.to_string()]);
    match kind {
        Kind::Silent => drop(command.args(["--call-metrics", "none"])),
        Kind::Telling => {
            let mut collector = pinned(Core::Load, &bench);
            let (collector, port) = Process::start_and_read_line(collector.arg("collector"))?;
            let spans_to = format!("http://{}", collector::address(&port)?);
            command.args(["--access-log", "errors", "--otlp-endpoint", &spans_to, "--trace-sample", "0.01"]);
            listeners = Some(Listeners { _collector: collector, _scraper: Scraper::start(metrics) });
        }
        _ => {}
    }
    let log = folder.join(format!("{kind}.log"));
    let mut process = Process::start(&mut command, &log)?;
    wait_for(&mut process, &log, "is not ready", || {
        get(readiness, "/readyz").is_ok_and(|answer| is_ok(&answer))
    })?;
    let address = SocketAddr::from((CLUSTER_IP, PORT));
    let inside = Inside { _listeners: listeners, _backends: backends, pod };
    Ok(Peer { kind, address, process, inside: Some(inside) })
}

/// The pod and what serves in it.
pub(crate) struct Inside {
    _listeners: Option<Listeners>,
    // Before the pod, which would kill them too, but not wait for their end.
    _backends: Vec<Process>,
    pub(super) pod: Pod,
}

/// Those to whom an agent tells what it knows of calls.
struct Listeners {
    _scraper: Scraper,
    _collector: Process,
}

/// Asks for the metrics again and again until it is dropped, and reads them to the end.
struct Scraper {
    until: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    fn start(metrics: SocketAddr) -> Self {
        let (until, dropped) = channel::<()>();
        let ask = move || {
            while dropped.recv_timeout(SCRAPE_EVERY) == Err(RecvTimeoutError::Timeout) {
                // The agent may not listen yet, or no longer.
                let _ = get(metrics, "/metrics");
            }
        };
        Self { until, thread: Some(spawn(ask)) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        drop(std::mem::replace(&mut self.until, channel().0));
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked.
            let _ = thread.join();
        }
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
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
