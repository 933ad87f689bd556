//! What a large cluster costs: 10,000 Services and 100,000 endpoints on a real API server. Not a test but a measurement:
//!
//! ```text
//! cargo xtask test --test cluster_scale -- --ignored --nocapture
//! ```
//!
//! `SCALE_SERVICES` makes it smaller.

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::host::privileged;
use evenkeel_tests::wait::eventually_some;
use evenkeel_tests::{Agent, ApiShop, Outcome};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SERVICES: usize = 10_000;
const ENDPOINTS_EACH: usize = 10;
const NAMESPACES: usize = 100;
/// How many objects are made at once.
const AT_ONCE: usize = 16;
const CHANGES_A_SECOND: u32 = 100;
const FLIPS: usize = 21;

#[test]
#[ignore = "a measurement of some minutes"]
fn ten_thousand_services_and_a_hundred_thousand_endpoints() -> Outcome {
    if !privileged() {
        return Ok(());
    }
    let services = match std::env::var("SCALE_SERVICES") {
        Ok(number) => number.parse()?,
        Err(_) => SERVICES,
    };
    let mut shop = ApiShop::enrolled(2)?;
    shop.publish_servers(&[0])?;
    let kubeconfig = shop.plane.kubeconfig();
    let begun = Instant::now();
    on_the_node(&shop, fill(&kubeconfig, services))??;
    println!(
        "{services} Services, {} endpoints made in {:.0} s",
        services * ENDPOINTS_EACH,
        begun.elapsed().as_secs_f64()
    );

    let options = shop.options()?;
    let begun = Instant::now();
    let mut agent = Agent::launch(&shop.shop.cluster, &options)?;
    // A large cluster may take longer than what tests usually wait for.
    while !agent.is_ready() {
        ensure!(agent.process.ended()?.is_none(), "{}", agent.process.stderr().join("\n"));
        ensure!(begun.elapsed() < Duration::from_secs(600), "{}", agent.process.stderr().join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("time to ready: {:.2} s", begun.elapsed().as_secs_f64());
    let kinds = agent.admin("/source")?;
    let bytes: u64 = kinds.as_array().into_iter().flatten().filter_map(|kind| kind["bytes"].as_u64()).sum();
    println!("bytes from the API: {:.1} MB", bytes as f64 / 1e6);
    for kind in kinds.as_array().into_iter().flatten() {
        println!("  {} objects of {}: {} bytes", kind["objects"], kind["kind"], kind["bytes"]);
    }
    let worker = agent.worker_process()?;
    println!("worker process: {}; keeper: {}", memory(worker)?, memory(agent.process.pid())?);

    let (cpu, begun) = (cpu_seconds(worker)?, Instant::now());
    let quiet = latencies(&shop, &kubeconfig)?;
    print("change to call, nothing else changing", quiet);
    let running = AtomicBool::new(true);
    let changes = AtomicU64::new(0);
    let churned = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        let churn = scope.spawn(|| on_the_node(&shop, churn(&kubeconfig, services, &running, &changes)));
        let (before, from) = (cpu_seconds(worker)?, Instant::now());
        let churned = latencies(&shop, &kubeconfig);
        let (after, took) = (cpu_seconds(worker)?, from.elapsed().as_secs_f64());
        running.store(false, Relaxed);
        let ended = churn.join().map_err(|_| anyhow::anyhow!("the churn panicked"))?;
        ended??;
        let rate = changes.load(Relaxed) as f64 / took;
        println!("under {rate:.0} changes a second: {:.0} % of a core", (after - before) / took * 100.0);
        churned
    })?;
    print("change to call, under these changes", churned);
    println!(
        "afterwards: {}; {:.0} CPU seconds in {:.0} s",
        memory(worker)?,
        cpu_seconds(worker)? - cpu,
        begun.elapsed().as_secs_f64()
    );

    // Once more from what the keeper holds.
    let begun = Instant::now();
    agent.kill_worker_process()?;
    println!("a worker that starts again is ready after {:.2} s", begun.elapsed().as_secs_f64());
    agent.stop()
}

/// Runs it where the API server can be reached.
fn on_the_node<T: Send>(shop: &ApiShop, work: impl Future<Output = T> + Send) -> Result<T> {
    shop.shop.cluster.node.enter(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime.block_on(work))
    })?
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

fn names(number: usize) -> (String, String) {
    (format!("team-{}", number % NAMESPACES), format!("service-{number}"))
}

/// Makes the objects, as the EndpointSlice controller writes them.
async fn fill(kubeconfig: &Path, services: usize) -> Result<()> {
    let client = client(kubeconfig).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for number in 0..NAMESPACES {
        let object = json!({"metadata": {"name": format!("team-{number}")}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    let mut making = tokio::task::JoinSet::new();
    for number in 0..services {
        if making.len() == AT_ONCE {
            making.join_next().await.context("one is under way")???;
        }
        making.spawn(make(client.clone(), number));
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    Ok(())
}

async fn make(client: Client, number: usize) -> Result<()> {
    let (namespace, name) = names(number);
    let service = json!({
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, "team": namespace}},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "grpc", "port": 50051, "targetPort": 8080}],
        },
    });
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let slice = json!({
        "metadata": {
            "name": format!("{name}-abcde"), "namespace": namespace,
            "labels": {
                "app": name, "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "endpoints": endpoints(number, true),
        "ports": [{"name": "grpc", "port": 8080, "protocol": "TCP"}],
    });
    let slices: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    slices.create(&PostParams::default(), &serde_json::from_value(slice)?).await?;
    Ok(())
}

/// The endpoints of a Service; the first is ready or not.
fn endpoints(number: usize, first_ready: bool) -> Vec<Value> {
    let (namespace, name) = names(number);
    let endpoint = |place: usize| {
        let index = number * ENDPOINTS_EACH + place;
        json!({
            "addresses": [format!("10.{}.{}.{}", 128 + (index >> 16), index >> 8 & 255, index & 255)],
            "conditions": {"ready": first_ready || place > 0, "serving": true, "terminating": false},
            "nodeName": format!("ip-10-0-{}-{}.eu-central-1.compute.internal", index % 2_000 / 250, index % 250),
            "zone": format!("eu-central-1{}", ["a", "b", "c"][index % 3]),
            "targetRef": {
                "kind": "Pod", "name": format!("{name}-7c9d8f6b5d-{place:05}"), "namespace": namespace,
                "uid": format!("00000000-0000-4000-8000-{index:012}"),
            },
        })
    };
    (0..ENDPOINTS_EACH).map(endpoint).collect()
}

/// Changes slices all the while: an endpoint that is ready, and is not.
async fn churn(kubeconfig: &Path, services: usize, running: &AtomicBool, changes: &AtomicU64) -> Result<()> {
    let client = client(kubeconfig).await?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / CHANGES_A_SECOND);
    let mut changing = tokio::task::JoinSet::new();
    for round in 0usize.. {
        pace.tick().await;
        if !running.load(Relaxed) {
            break;
        }
        let number = round * 37 % services;
        let (namespace, name) = names(number);
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
        if changing.len() == AT_ONCE {
            changing.join_next().await.context("one is under way")???;
        }
        changing.spawn(async move {
            let ready = round * 37 / services % 2 == 1;
            let patch = Patch::Merge(json!({"endpoints": endpoints(number, ready)}));
            slices.patch(&format!("{name}-abcde"), &PatchParams::default(), &patch).await?;
            Ok::<_, anyhow::Error>(())
        });
        changes.fetch_add(1, Relaxed);
    }
    while let Some(changed) = changing.join_next().await {
        changed??;
    }
    Ok(())
}

/// How long it takes from a change of the greeter's endpoint, as it is sent, to a call's answer from the other server.
fn latencies(shop: &ApiShop, kubeconfig: &Path) -> Result<Vec<Duration>> {
    let load = shop.shop.client.load(&shop.shop.v4(), &["--rate", "500"])?;
    let servers = &shop.shop.servers;
    let mut took = Vec::new();
    for flip in 0..FLIPS {
        let server = &servers[(flip + 1) % 2];
        let before = load.tally()?;
        let begun = Instant::now();
        on_the_node(shop, async {
            let slices: Api<EndpointSlice> = Api::namespaced(client(kubeconfig).await?, "shop");
            let endpoints = json!([{"addresses": [server.ipv4], "conditions": {"ready": true}}]);
            let patch = Patch::Merge(json!({"endpoints": endpoints}));
            slices.patch("greeter-v4", &PatchParams::default(), &patch).await?;
            Ok::<_, anyhow::Error>(())
        })??;
        eventually_some("the other server answers", || {
            let tally = load.tally()?.since(&before);
            Ok(tally.calls.contains_key(&server.name).then_some(()))
        })?;
        took.push(begun.elapsed());
    }
    load.stop()?.is_clean()?;
    Ok(took)
}

fn print(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{what}: median {} ms, worst {} ms of {}", median.as_millis(), worst.as_millis(), took.len());
}

fn memory(pid: i32) -> Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    Ok(["VmRSS", "VmHWM", "RssShmem"]
        .map(|name| line(name).split_whitespace().collect::<Vec<_>>().join(" "))
        .join(", "))
}

fn cpu_seconds(pid: i32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks =
        |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).context("no such field");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
