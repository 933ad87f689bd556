//! Evenkeel as on a node: the load in an enrolled pod dials a Service's ClusterIP, and eBPF takes the connection.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::objects::{CLUSTER_IP, PORT, Service, Slice, objects};
use super::scraper::{Scraper, get};
use super::{Kind, Peer, free_address, wait_for};
use crate::collector;
use crate::cpu;
use crate::pod::Pod;
use crate::process::{Core, Process, pinned};

/// The endpoints of the crowded Service. Each is an address of a backend's.
const CROWD: u16 = 1_000;
/// Where they are.
const CROWDED_SUBNET: &str = "10.245.0.0/16";
/// Over which the cost of one is measured.
const SCRAPES: u32 = 10;

pub(super) fn start(kind: Kind, program: &Path, backends: usize, folder: &Path) -> Result<Peer> {
    let addresses: Vec<_> = (1..=backends as u8).map(|number| Ipv4Addr::new(10, 244, 9, number)).collect();
    let pod = Pod::create(&kind.to_string(), &addresses)?;
    let service = if kind.is_crowded() {
        pod.owns(CROWDED_SUBNET)?;
        crowded(backends)
    } else {
        let slices =
            addresses.iter().map(|address| Slice { port: PORT, addresses: vec![*address] }).collect();
        Service { annotations: json!({ "evenkeel.dev/picker": "round-robin" }), slices }
    };
    let bench = std::env::current_exe()?;
    let mut backends = Vec::new();
    for (number, slice) in service.slices.iter().enumerate() {
        let address = match slice.addresses[..] {
            [address] => address,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let listen = SocketAddr::from((address, slice.port));
        let mut command = pod.command(Core::Load, &bench);
        command.args(["backend", "--number", &number.to_string(), "--listen", &listen.to_string()]);
        backends.push(Process::start_and_read_line(&mut command)?.0);
    }

    let source = folder.join(format!("{kind}-cluster"));
    fs::create_dir(&source)?;
    let objects = objects(&pod, addresses[0], &service);
    let objects = objects.iter().map(ToString::to_string).collect::<Vec<_>>();
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
    let (mut collector, mut scraper) = (None, None);
    match kind {
        Kind::Silent => drop(command.args(["--call-metrics", "none"])),
        Kind::CrowdedScraped => scraper = Some(Scraper::start(metrics)),
        Kind::Telling => {
            let mut process = pinned(Core::Load, &bench);
            let (process, port) = Process::start_and_read_line(process.arg("collector"))?;
            let spans_to = format!("http://{}", collector::address(&port)?);
            command.args(["--access-log", "errors", "--otlp-endpoint", &spans_to, "--trace-sample", "0.01"]);
            (collector, scraper) = (Some(process), Some(Scraper::start(metrics)));
        }
        _ => {}
    }
    let log = folder.join(format!("{kind}.log"));
    let mut process = Process::start(&mut command, &log)?;
    wait_for(&mut process, &log, "is not ready", || {
        get(readiness, "/readyz").is_ok_and(|answer| is_ok(&answer))
    })?;
    let address = SocketAddr::from((CLUSTER_IP, PORT));
    let inside = Inside { metrics, _scraper: scraper, _collector: collector, _backends: backends, pod };
    Ok(Peer { kind, address, process, inside: Some(inside) })
}

/// A Service of many endpoints, of which calls go to all: a picker that hashes has no part of them for each pod, and a call without the
/// header that it hashes goes anywhere.
fn crowded(backends: usize) -> Service {
    let slices = (0..backends as u16).map(|backend| {
        let of_backend = (0..CROWD).filter(|endpoint| endpoint % backends as u16 == backend);
        let address = |endpoint: u16| {
            let [high, low] = (endpoint + 1).to_be_bytes();
            Ipv4Addr::new(10, 245, high, low)
        };
        Slice { port: PORT + backend, addresses: of_backend.map(address).collect() }
    });
    let annotations =
        json!({ "evenkeel.dev/picker": "ring-hash", "evenkeel.dev/hash-on": "header:x-nobody-sends-it" });
    Service { annotations, slices: slices.collect() }
}

/// The pod and what serves in it, and those to whom the agent tells what it knows of calls.
pub(crate) struct Inside {
    metrics: SocketAddr,
    _scraper: Option<Scraper>,
    _collector: Option<Process>,
    // Before the pod, which would kill them too, but not wait for their end.
    _backends: Vec<Process>,
    pub(super) pod: Pod,
}

impl Inside {
    /// Whether each endpoint of a crowded Service has been called.
    pub(super) fn are_all_called(&self) -> Result<bool> {
        let text = get(self.metrics, "/metrics")?;
        let called = text.lines().filter(|line| line.starts_with("evenkeel_endpoint_calls_total{")).count();
        Ok(called == usize::from(CROWD))
    }

    /// What a scrape is, and costs: in words.
    pub(super) fn scrape(&self, pids: &[u32]) -> Result<String> {
        let (before, mut bytes, start) = (cpu::by_thread(pids)?, 0, Instant::now());
        for _ in 0..SCRAPES {
            let text = get(self.metrics, "/metrics")?;
            ensure!(is_ok(&text), "{}", text.lines().next().unwrap_or_default());
            bytes = text.len();
        }
        let (scraped, took) = (cpu::by_thread(pids)?, start.elapsed());
        sleep(took);
        let rested = cpu::by_thread(pids)?;
        let mut threads = Vec::new();
        for (name, now) in &rested {
            let at = |moment: &BTreeMap<String, u64>| moment.get(name).copied().unwrap_or(0);
            let [spent, without] =
                [at(&scraped).saturating_sub(at(&before)), now.saturating_sub(at(&scraped))];
            let [spent, without] = [spent, without].map(|it| it as f64 / 1e6 / f64::from(SCRAPES));
            threads.push(format!("{name} {spent:.2} ({without:.2})"));
        }
        Ok(format!(
            "a scrape is {} KiB; ms of CPU by thread for each (in as long without): {}",
            bytes >> 10,
            threads.join(", ")
        ))
    }
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}
