//! The worker process: made in start order, run by one loop, ended in the mirror order.

use super::dialer::{NodeDialer, PodDialer};
use super::discovery::{Discovery, ROWS_LABEL};
use super::enrolments::{Enrolments, Tools};
use super::start_workers;
use super::stop::StopSignals;
use super::view;
use crate::admin::{self, Page, Readiness};
use crate::clock::monotonic_ns;
use crate::config::{AgentConfig, UpstreamSockets};
use crate::control::{Delta, Live, Settings, World};
use crate::kernel::{Held, Kernel, LoadOptions, pods};
use crate::lifecycle::handover::{Handover, Message};
use crate::lifecycle::keeper::{HEARTBEAT_LABEL, TICKS_LABEL};
use crate::lifecycle::ticks::SharedPage;
use crate::mesh::DestinationId;
use crate::proxy::{Dialer, Workers};
use crate::sources::Change;
use crate::telemetry::{Numbers, exposition};
use anyhow::{Context as _, Result, bail};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

/// How often everything that comes unannounced is looked for: pods that went, `lo` that came up, ids whose rest is over.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);

/// How long the keeper may take to pass the first heartbeat on: many times its own pace.
const FIRST_BEAT_LIMIT: Duration = Duration::from_secs(10);

/// How often it is asked whether the workers have taken a snapshot: they do within one turn.
const APPLIED_POLL: Duration = Duration::from_micros(500);

/// Room for descriptors: two listeners and a namespace for each pod, and the calls' sockets.
const WANTED_DESCRIPTORS: u64 = 1 << 20;

/// Runs the worker process until it is told to stop, or the keeper is gone.
pub(super) async fn run(config: AgentConfig, keeper: Handover) -> Result<ExitCode> {
    let started = monotonic_ns();
    let mut stop = StopSignals::take()?;
    raise_descriptor_limit();
    let inherited = Inherited::receive(&keeper)?;

    let (mut source, first) = Discovery::open(&config, &keeper, inherited.rows)?;

    let readiness = Readiness::default();
    let admin_at = admin::bind("the admin endpoint", "--admin", config.admin).await?;
    let probes_at = admin::bind("the probes", "--readiness", config.readiness).await?;
    let metrics_at = admin::bind("the metrics", "--metrics", config.metrics).await?;
    let (ask, mut questions) = admin::questions();
    admin::serve("admin", admin_at, admin::routes(ask.clone()));
    admin::serve("metrics", metrics_at, admin::metrics(ask));
    admin::serve("readiness", probes_at, admin::probes(readiness.clone()));

    let restored = !inherited.kernel.is_empty();
    let kernel =
        Arc::new(if restored { Kernel::restore(inherited.kernel)? } else { load(&config, &keeper)? });
    match kernel.log() {
        Ok(log) => drop(tokio::spawn(log.relay())),
        Err(error) => warn!("the kernel programs' own log cannot be read: {error}"),
    }
    let heartbeat = SharedPage::map(kernel.heartbeat()?)?;
    let mut events = kernel.pod_events()?.into_async()?;

    let mut world = World::new(Settings {
        node: config.cluster.node_name.as_deref().map(Arc::from),
        own_pod_uid: config.cluster.pod_uid.as_deref().map(Arc::from),
        destinations: kernel.id_limit(),
        explicit_ports: vec![],
    });
    let now = Instant::now();
    let known = kernel.known_destinations()?.into_iter();
    let live: Vec<_> = known
        .map(|known| Live { address: known.address, id: known.id, has_endpoint: known.has_endpoint })
        .collect();
    let captured = live.iter().filter(|live| live.has_endpoint).map(|live| live.address);
    let captured = Arc::new(captured.collect());
    world.restore(live, kernel.known_ids()?.into_iter().map(|(id, _)| id), now);

    let dialer: Arc<dyn Dialer> = match config.upstream_sockets {
        UpstreamSockets::Pod => Arc::new(PodDialer { mark: config.mark }),
        UpstreamSockets::Node => Arc::new(NodeDialer { mark: config.mark }),
    };
    let share_upstreams = config.upstream_sockets == UpstreamSockets::Node;
    let workers = start_workers(config.workers, dialer, share_upstreams, inherited.ticks)?;
    let cgroup = attach_point(&config)?;
    let pods = Enrolments::restore(inherited.listeners);
    let mut node = Node { config, keeper, kernel, workers, world, pods, captured, cgroup };

    let mut serving = false;
    if let Some(first) = first {
        node.begin(first, restored).await?;
        first_beat(&heartbeat, started).await?;
        serving = true;
    }
    readiness.set(serving && source.is_usable());
    info!(pods = node.pods.enrolled_count(), ready = readiness.is_ready(), "started");

    let mut look_around = interval(LOOK_AROUND_EVERY);
    look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let keeper_end = watch_keeper(&node.keeper)?;
    loop {
        tokio::select! {
            changes = source.next() => {
                if serving {
                    let delta = node.world.apply(changes);
                    node.carry_out(delta).await;
                } else {
                    node.begin(changes, restored).await?;
                    first_beat(&heartbeat, started).await?;
                    serving = true;
                    info!(pods = node.pods.enrolled_count(), "everything is known: serving");
                }
                // Once ready, the last good state serves.
                readiness.set(readiness.is_ready() || source.is_usable());
            }
            event = events.next() => {
                let event = event?;
                node.with_tools(|pods, tools| pods.stirred(&event, tools));
            }
            _ = look_around.tick() => {
                node.with_tools(Enrolments::look_around);
                // What a process before this one left is let go of by the first batch, and not sooner.
                if serving {
                    node.end_quarantines().await;
                }
            }
            Some(question) = questions.recv() => {
                let answer = node.answer(question.page, &source);
                let _ = question.answer.send(answer);
            }
            () = stop.next() => {
                info!("told to stop");
                break;
            }
            _ = keeper_end.readable() => {
                warn!("the keeper is gone: new connections go straight; ending what is carried");
                break;
            }
        }
    }

    readiness.set(false);
    node.with_tools(Enrolments::withdraw_all);
    node.drain(&mut stop).await;
    node.with_tools(Enrolments::forget_all);
    node.workers.stop()?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What the keeper held for this process.
struct Inherited {
    ticks: SharedPage,
    kernel: Vec<Held>,
    listeners: Vec<(String, OwnedFd)>,
    /// What was known last.
    rows: Option<OwnedFd>,
}

impl Inherited {
    fn receive(keeper: &Handover) -> Result<Self> {
        let (mut ticks, mut kernel, mut listeners, mut rows) = (None, Vec::new(), Vec::new(), None);
        loop {
            match keeper.receive(false)? {
                Some(Message::Ready) => break,
                Some(Message::Hold(label, page)) if label == TICKS_LABEL => {
                    ticks = Some(SharedPage::map(&page)?);
                }
                Some(Message::Hold(label, fd)) if label == ROWS_LABEL => rows = Some(fd),
                Some(Message::Hold(label, fd)) if Enrolments::is_listener(&label) => {
                    listeners.push((label, fd));
                }
                // The keeper alone needs it.
                Some(Message::Hold(label, _)) if label == HEARTBEAT_LABEL => (),
                Some(Message::Hold(label, fd)) => kernel.push(Held { label, fd }),
                Some(Message::Keep(..) | Message::Release(_)) => bail!("the keeper broke the hand-over"),
                None => bail!("the keeper is gone"),
            }
        }
        Ok(Self { ticks: ticks.context("the keeper handed over no ticks")?, kernel, listeners, rows })
    }
}

/// Loads the kernel programs for the first time, and has the keeper hold what a later worker process needs.
fn load(config: &AgentConfig, keeper: &Handover) -> Result<Kernel> {
    let kernel = Kernel::load(&LoadOptions {
        pods: config.max_pods,
        destinations: config.max_destinations,
        // As many again may be in quarantine.
        ids: config.max_destinations.saturating_mul(2).min(DestinationId::SPACE),
        mark: config.mark,
        log_connections: tracing::enabled!(target: "evenkeel_ebpf", tracing::Level::DEBUG),
    })
    .context("cannot load the kernel programs: run as root, and see what `evenkeel check` says")?;
    for held in kernel.hold()? {
        keeper.hold(&held.label, &held.fd)?;
    }
    keeper.hold(HEARTBEAT_LABEL, kernel.heartbeat()?)?;
    Ok(kernel)
}

/// Where the programs are attached: what was asked for, else the pods' common cgroup, else the root of cgroup2.
fn attach_point(config: &AgentConfig) -> Result<PathBuf> {
    if let Some(cgroup) = &config.cgroup {
        return Ok(cgroup.clone());
    }
    let mount = pods::cgroup2_mount()?;
    Ok(pods::kubepods(&mount).unwrap_or(mount))
}

/// Waits until the kernel's heartbeat is of this process: before, new connections go straight.
async fn first_beat(heartbeat: &SharedPage, started: u64) -> Result<()> {
    let beats = async {
        while heartbeat.words()[0].load(Relaxed) < started {
            sleep(APPLIED_POLL).await;
        }
    };
    timeout(FIRST_BEAT_LIMIT, beats).await.context("the keeper does not pass the heartbeat on to the kernel")
}

/// Says when the keeper's end of the socket is closed. Nothing else ever comes from it.
fn watch_keeper(keeper: &Handover) -> Result<AsyncFd<OwnedFd>> {
    let end = std::os::fd::AsFd::as_fd(keeper).try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is its one descriptor and never another.
    Ok(unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) }?)
}

/// Everything that the loop works on.
struct Node {
    config: AgentConfig,
    keeper: Handover,
    kernel: Arc<Kernel>,
    workers: Workers,
    world: World,
    pods: Enrolments,
    /// The addresses whose connections are taken.
    captured: Arc<HashSet<SocketAddr>>,
    cgroup: PathBuf,
}

impl Node {
    fn with_tools<T>(&mut self, act: impl FnOnce(&mut Enrolments, &Tools<'_>) -> T) -> T {
        let Self { config, keeper, kernel, workers, pods, captured, .. } = self;
        act(pods, &Tools { config, kernel, workers, keeper, captured })
    }

    /// Begins to serve with the first batch, which is all that there is: what a process before this one left and nobody wants
    /// now is let go of.
    async fn begin(&mut self, first: Vec<Change>, restored: bool) -> Result<()> {
        let delta = self.world.apply(first);
        self.carry_out(delta).await;
        if !restored {
            let links = self.kernel.attach(&self.cgroup).with_context(|| {
                format!(
                    "cannot attach to {}: --cgroup names another folder of cgroup2",
                    self.cgroup.display()
                )
            })?;
            for link in links {
                self.keeper.keep(&link.label, &link.fd)?;
            }
            info!(cgroup = %self.cgroup.display(), "attached");
        }
        self.with_tools(Enrolments::drop_restored)?;
        // What came while we were busy starting is not missed.
        self.with_tools(Enrolments::look_around);
        Ok(self.keeper.ready()?)
    }

    /// Does what a change asks for, in its order: nothing is sent to a worker that does not know it.
    async fn carry_out(&mut self, delta: Delta) {
        if let Some(snapshot) = delta.snapshot {
            let version = snapshot.version;
            self.workers.publish(&snapshot);
            while self.workers.applied() < version {
                sleep(APPLIED_POLL).await;
            }
        }
        if self.capture(delta.add, delta.without_endpoint, delta.remove) {
            self.world.removed_from_kernel(&delta.retired, Instant::now());
        }
        for uid in delta.withdraw {
            self.with_tools(|pods, tools| pods.withdraw(&uid, tools));
        }
        for enrolment in delta.enrol.into_iter().chain(delta.change) {
            self.with_tools(|pods, tools| pods.want(enrolment, tools));
        }
    }

    /// Changes which addresses are captured; whether all of it was done.
    fn capture(
        &mut self,
        add: Vec<(SocketAddr, DestinationId)>,
        without_endpoint: Vec<(SocketAddr, DestinationId)>,
        remove: Vec<SocketAddr>,
    ) -> bool {
        if add.is_empty() && without_endpoint.is_empty() && remove.is_empty() {
            return true;
        }
        let captured = Arc::make_mut(&mut self.captured);
        let mut done = true;
        for (address, id) in add {
            match self.kernel.add_destination(address, id) {
                Ok(()) => drop(captured.insert(address)),
                Err(error) => {
                    warn!(%address, "the destination is not captured: {error}");
                    done = false;
                }
            }
        }
        for (address, id) in without_endpoint {
            match self.kernel.mark_without_endpoint(address, id) {
                Ok(()) => drop(captured.remove(&address)),
                Err(error) => {
                    warn!(%address, "that the destination has no endpoint is not known to the kernel: {error}");
                    done = false;
                }
            }
        }
        for address in remove {
            match self.kernel.remove_destination(address) {
                Ok(()) => drop(captured.remove(&address)),
                Err(error) => {
                    warn!(%address, "the destination stays captured: {error}");
                    done = false;
                }
            }
        }
        done
    }

    /// Lets ids be used again whose rest is over and that no connection carries.
    async fn end_quarantines(&mut self) {
        let over = self.world.quarantine_over(Instant::now(), |id| self.workers.connections(id));
        if over.is_empty() {
            return;
        }
        self.workers.publish(&self.world.snapshot());
        for id in over {
            if let Err(error) = self.kernel.forget(id) {
                warn!("an id keeps its original address: {error}");
            }
        }
        // Addresses that had to do without an id.
        let delta = self.world.apply(vec![]);
        self.carry_out(delta).await;
    }

    fn answer(&mut self, page: Page, source: &Discovery) -> serde_json::Value {
        match page {
            Page::Pods => {
                let live = self.with_tools(|pods, tools| pods.view(tools));
                view::pods(self.world.pods(), live)
            }
            Page::Services => view::json(self.world.services()),
            Page::Endpoints => view::json(self.world.endpoints()),
            Page::Workers => view::json(self.workers.counters()),
            Page::Kernel => serde_json::json!({ "cgroup": self.cgroup, "ids": self.world.ids() }),
            Page::Source => view::json(source.kinds()),
            Page::Config => view::json(&self.config),
            Page::Metrics => exposition(&self.numbers(source)).into(),
            Page::Problems => {
                let of_source = source.problems();
                view::json(of_source.iter().chain(self.world.problems().current().iter()).collect::<Vec<_>>())
            }
        }
    }

    fn numbers(&mut self, source: &Discovery) -> Numbers {
        let ids = self.world.ids();
        let (pods, pods_waiting) = self.with_tools(|pods, tools| pods.counts(tools));
        Numbers {
            pods,
            pods_waiting,
            endpoints: self.world.endpoints().into_iter().map(view::endpoint_counts).collect(),
            destinations: ids.live,
            resting_ids: ids.resting,
            problems: source.problems().len() + self.world.problems().current().len(),
        }
    }

    /// Waits for the last call, until the deadline or a second signal.
    async fn drain(&mut self, stop: &mut StopSignals) {
        let deadline = self.config.drain;
        self.workers.drain(deadline);
        let drained = async {
            while !self.workers.drained() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = drained => (),
            () = stop.next() => warn!("told to stop a second time: ending what is carried"),
        }
    }
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum.unwrap_or(WANTED_DESCRIPTORS).min(WANTED_DESCRIPTORS);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }) {
        warn!(%error, "the limit of open descriptors stays as it is");
    }
}
