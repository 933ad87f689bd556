//! `evenkeel proxy`: the call path without eBPF.

use super::stop::StopSignals;
use super::telling::{Telling, TracesOf};
use super::{Observers, run_to_end, start_workers};
use crate::balance;
use crate::config::{ProxyConfig, Upstreams};
use crate::control::{Settings, World};
use crate::health::{self, HealthChecks};
use crate::lifecycle::ticks::SharedPage;
use crate::mesh::{
    Backend, Balancing, Destination, DestinationId, Endpoint, Load, ObjectName, ServicePort, Snapshot,
};
use crate::proxy::{ListenerSpec, OwnNamespace, Workers};
use crate::sources::{FolderSource, NameSource, Severity, Target};
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::HashMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tracing::{info, warn};

/// Runs until told to stop.
pub fn proxy(config: ProxyConfig) -> Result<ExitCode> {
    run_to_end(1, run(config))
}

async fn run(config: ProxyConfig) -> Result<ExitCode> {
    let mut stop = StopSignals::take()?;
    let (ticks, _) = SharedPage::create()?;
    // It has no pods.
    let no_limit = u32::MAX;
    let telling = Telling::begin(config.access_log.as_ref(), config.traces.as_ref().map(TracesOf::proxy))?;
    let observers = Observers {
        // Nobody could ask for what is counted.
        telemetry: None,
        audience: Arc::clone(&telling.audience),
        tracer: telling.tracer.clone(),
    };
    let dialer = Arc::new(OwnNamespace);
    let workers = start_workers(config.workers, dialer, true, config.protection, no_limit, observers, ticks)?;
    match config.upstreams {
        Upstreams::Hosts { listen, to, balancing } => {
            let backends = HostBackends::open(to, balancing, listen.len()).await;
            listen_on(&listen, &workers)?;
            serve(backends, &listen, &workers, &mut stop).await?;
        }
        Upstreams::Services { folder, listen } => {
            let (addresses, ports): (Vec<_>, Vec<_>) = listen.into_iter().unzip();
            let backends = ServiceBackends::open(&folder, ports)?;
            listen_on(&addresses, &workers)?;
            serve(backends, &addresses, &workers, &mut stop).await?;
        }
    }
    workers.drain(config.drain);
    let drained = async {
        while !workers.drained() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = drained => (),
        () = stop.next() => warn!("told to stop a second time: ending what is carried"),
    }
    let stopped = workers.stop();
    telling.end().await;
    stopped?;
    Ok(ExitCode::SUCCESS)
}

/// What the listeners' calls go to, and when that changes.
trait Backends {
    /// The backend of each listener, in their order; `None` where there is none now.
    fn current(&self) -> Vec<Option<Arc<Backend>>>;
    /// Waits for a change. Cancel-safe.
    fn changed(&mut self) -> impl Future<Output = ()>;
}

async fn serve(
    mut backends: impl Backends,
    listen: &[SocketAddr],
    workers: &Workers,
    stop: &mut StopSignals,
) -> Result<()> {
    let mut version = 0;
    loop {
        version += 1;
        workers.publish(&snapshot(version, listen, backends.current()));
        tokio::select! {
            () = backends.changed() => (),
            () = stop.next() => return Ok(()),
        }
    }
}

/// Each listener is a destination of its own, by its position.
fn snapshot(version: u64, listen: &[SocketAddr], backends: Vec<Option<Arc<Backend>>>) -> Arc<Snapshot> {
    let destinations =
        listen.iter().zip(backends).enumerate().filter_map(|(position, (&original, backend))| {
            Some((destination(position)?, Destination { original, backend: backend? }))
        });
    Arc::new(Snapshot { version, destinations: destinations.collect() })
}

fn destination(position: usize) -> Option<DestinationId> {
    DestinationId::new(u32::try_from(position).ok()?)
}

fn listen_on(addresses: &[SocketAddr], workers: &Workers) -> Result<()> {
    for (position, address) in addresses.iter().enumerate() {
        let socket = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        socket.set_nonblocking(true)?;
        let id = destination(position).context("more listeners than there are destinations")?;
        workers.listen(ListenerSpec { socket, source: crate::proxy::Source::Fixed(id) })?;
        info!(%address, "listening");
    }
    Ok(())
}

/// `--to`: the addresses behind names.
struct HostBackends {
    names: NameSource,
    addresses: Vec<SocketAddr>,
    loads: HashMap<SocketAddr, Arc<Load>>,
    service_port: ServicePort,
    balancing: Balancing,
    listeners: usize,
}

impl HostBackends {
    async fn open(to: Vec<Target>, balancing: Balancing, listeners: usize) -> Self {
        let (names, addresses) = NameSource::open(to).await;
        let service_port = ServicePort { service: ObjectName::new("-", "to"), port: 0 };
        let mut backends =
            Self { names, addresses: vec![], loads: HashMap::new(), service_port, balancing, listeners };
        backends.set(addresses);
        backends
    }

    fn set(&mut self, addresses: Vec<SocketAddr>) {
        info!(endpoints = ?addresses, "endpoints");
        self.loads.retain(|address, _| addresses.contains(address));
        for address in &addresses {
            self.loads.entry(*address).or_default();
        }
        self.addresses = addresses;
    }
}

impl Backends for HostBackends {
    fn current(&self) -> Vec<Option<Arc<Backend>>> {
        let endpoint = |address: &SocketAddr| {
            let load = self.loads.get(address).cloned().unwrap_or_default();
            Arc::new(Endpoint { load, ..Endpoint::at(*address) })
        };
        let endpoints = self.addresses.iter().map(endpoint).collect();
        let backend = Backend::new(self.service_port.clone(), endpoints, self.balancing.clone());
        balance::prepare(&backend, None);
        vec![Some(Arc::new(backend)); self.listeners]
    }

    async fn changed(&mut self) {
        let addresses = self.names.next().await;
        self.set(addresses);
    }
}

/// `--source`: Service ports.
struct ServiceBackends {
    source: FolderSource,
    world: World,
    ports: Vec<ServicePort>,
    health_checks: HealthChecks,
}

impl ServiceBackends {
    fn open(folder: &Path, ports: Vec<ServicePort>) -> Result<Self> {
        let (source, first) = FolderSource::open(folder)?;
        let mut world = World::new(Settings {
            node: None,
            own_pod_uid: None,
            addresses: DestinationId::SPACE,
            ids: DestinationId::SPACE,
            explicit_ports: ports.clone(),
        });
        world.apply(first);
        if let Some(problem) =
            source.problems().current().iter().find(|problem| problem.severity == Severity::Error)
        {
            bail!("{}: {problem}", folder.display());
        }
        for port in &ports {
            ensure!(world.backend(port).is_some(), "{}: there is no TCP port {port} in it", folder.display());
        }
        let mut health_checks = HealthChecks::new(health::EVERY);
        health_checks.follow(world.health_checks());
        Ok(Self { source, world, ports, health_checks })
    }
}

impl Backends for ServiceBackends {
    fn current(&self) -> Vec<Option<Arc<Backend>>> {
        self.ports.iter().map(|port| self.world.backend(port)).collect()
    }

    async fn changed(&mut self) {
        let changes = self.source.next().await;
        // There is no kernel to tell, and no connection carries an id: what the world remembers for their sake rests and goes.
        let (delta, now) = (self.world.apply(changes), Instant::now());
        self.world.removed_from_kernel(&delta.retired, now);
        self.world.quarantine_over(now, |_| 0);
        self.health_checks.follow(self.world.health_checks());
    }
}
