//! The worker process: made in start order, run by one loop, ended in the mirror order.

use super::backlog::Backlog;
use super::captured::Captured;
use super::dialer::{NodeDialer, PodDialer};
use super::discovery::{Discovery, ROWS_LABEL};
use super::enrolments::Enrolments;
use super::neighbours::Neighbours;
use super::node::{APPLIED_POLL, Node};
use super::place::Place;
use super::schemas::page_schema;
use super::stop::StopSignals;
use super::telling::{Telling, TracesOf};
use super::{Observers, start_workers};
use crate::admin::{self, Admin, Readiness};
use crate::clock::monotonic_ns;
use crate::config::{AgentConfig, CallMetrics, UpstreamSockets};
use crate::control::{Live, Settings, World};
use crate::health::{self, HealthChecks};
use crate::kernel::{Held, Kernel, LoadOptions};
use crate::lifecycle::handover::{Handover, Message};
use crate::lifecycle::keeper::{HEARTBEAT_LABEL, TICKS_LABEL};
use crate::lifecycle::ticks::SharedPage;
use crate::mesh::DestinationId;
use crate::proxy::Dialer;
use crate::telemetry::{TIDY_EVERY, Telemetry};
use anyhow::{Context as _, Result, bail};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tracing::{info, warn};

/// How often everything that comes unannounced is looked for: pods that went, `lo` that came up, ids whose rest is over.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);

/// How long the keeper may take to pass the first heartbeat on: many times its own pace.
const FIRST_BEAT_LIMIT: Duration = Duration::from_secs(10);

/// How often others' attachments are looked at: they change when somebody installs something.
const LOOK_AT_NEIGHBOURS_EVERY: Duration = Duration::from_secs(60);

/// How long readiness waits for pods that run and are not enrolled: one that can't be must not keep the agent, and with it
/// its upgrade, waiting.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// Room for descriptors: two listeners and a namespace for each pod, and the calls' sockets.
const WANTED_DESCRIPTORS: u64 = 1 << 20;

/// Runs the worker process until it is told to stop, or the keeper is gone.
pub(super) async fn run(config: AgentConfig, keeper: Handover) -> Result<ExitCode> {
    let (started, process_began) = (monotonic_ns(), Instant::now());
    let mut stop = StopSignals::take()?;
    raise_descriptor_limit();
    let inherited = Inherited::receive(&keeper)?;

    let (mut source, first) = Discovery::open(&config, &keeper, inherited.rows)?;

    let readiness = Readiness::default();
    let admin_at = admin::bind_admin(&config.admin).await?;
    let probes_at = admin::bind("the probes", "--readiness", config.readiness).await?;
    let metrics_at = admin::bind("the metrics", "--metrics", config.metrics).await?;
    let (ask, mut questions) = admin::questions();
    let (scrape, mut scrapes) = admin::scrapes();
    let telemetry = Arc::new(Telemetry::new(config.call_metrics == CallMetrics::Istio));
    tokio::spawn(tidy(Arc::clone(&telemetry)));
    let telling = Telling::begin(config.access_log.as_ref(), TracesOf::agent(&config))?;
    let openapi = Arc::new(admin::openapi(page_schema));
    let admin = Admin {
        questions: ask,
        telemetry: Arc::clone(&telemetry),
        audience: Arc::clone(&telling.audience),
        access: admin_at.access(),
        openapi,
    };
    // Its file goes with the end of this process.
    let _admin_socket = admin_at.serve(admin::routes(admin));
    admin::serve_all(metrics_at, admin::metrics(scrape, Arc::clone(&telemetry)));
    admin::serve_all(probes_at, admin::probes(readiness.clone()));

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
        addresses: kernel.destination_limit(),
        ids: kernel.id_limit(),
        explicit_ports: vec![],
    });
    let now = Instant::now();
    let known = kernel.known_destinations()?.into_iter();
    let live: Vec<_> = known
        .map(|known| Live { address: known.address, id: known.id, has_endpoint: known.has_endpoint })
        .collect();
    let captured = live.iter().filter(|live| live.has_endpoint).map(|live| live.address);
    let captured = Captured::restored(captured);
    world.restore(live, kernel.known_ids()?.into_iter().map(|(id, _)| id), now);

    let dialer: Arc<dyn Dialer> = match config.upstream_sockets {
        UpstreamSockets::Pod => Arc::new(PodDialer { mark: config.mark }),
        UpstreamSockets::Node => Arc::new(NodeDialer { mark: config.mark }),
    };
    let is_counting = config.call_metrics != CallMetrics::None;
    let share_upstreams = config.upstream_sockets == UpstreamSockets::Node;
    let workers = start_workers(
        config.workers,
        dialer,
        share_upstreams,
        config.protection,
        config.max_pod_connections,
        Observers {
            telemetry: is_counting.then_some(telemetry),
            audience: Arc::clone(&telling.audience),
            tracer: telling.tracer.clone(),
        },
        inherited.ticks,
    )?;
    let limit_crossings = workers.limit_crossings();
    let place = Place::find(&config)?;
    let pods = Enrolments::restore(inherited.listeners, place.kubepods.clone());
    let mut node = Node {
        config,
        keeper,
        kernel,
        workers,
        world,
        backlog: Backlog::default(),
        refusal: None,
        pods,
        captured,
        place,
        neighbours: Neighbours::default(),
        health_checks: HealthChecks::new(health::EVERY),
        readiness: readiness.clone(),
        serving: false,
        access_log: telling.counts(),
        spans: telling.span_counts(),
        started: process_began,
    };
    node.meet(Neighbours::look(node.place.clone()).await);

    if let Some(first) = first {
        node.begin(first, restored, first_beat(&heartbeat, started)).await?;
    }
    let mut patience = Instant::now() + READY_PATIENCE;
    readiness.set(is_ready(&node, &source, patience));
    info!(ready = readiness.is_ready(), "started");

    // The start has looked around just now.
    let mut look_around = interval_at(tokio::time::Instant::now() + LOOK_AROUND_EVERY, LOOK_AROUND_EVERY);
    look_around.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (met, mut meeting) = tokio::sync::mpsc::channel(1);
    // The first look was at the start.
    let mut look_at_others =
        interval_at(tokio::time::Instant::now() + LOOK_AT_NEIGHBOURS_EVERY, LOOK_AT_NEIGHBOURS_EVERY);
    look_at_others.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let keeper_end = watch_keeper(&node.keeper)?;
    loop {
        let next_look = node.pods.next_look();
        tokio::select! {
            changes = source.next() => {
                let changes = changes?;
                if node.is_serving() {
                    let delta = node.world.apply(changes);
                    node.carry_out(delta);
                } else {
                    node.begin(changes, restored, first_beat(&heartbeat, started)).await?;
                    patience = Instant::now() + READY_PATIENCE;
                }
                // Once ready, the last good state serves.
                readiness.set(readiness.is_ready() || is_ready(&node, &source, patience));
            }
            event = events.next() => {
                let event = event?;
                node.with_tools(|pods, tools| pods.stirred(&event, tools));
            }
            () = sleep_until(next_look.unwrap_or_else(Instant::now).into()), if next_look.is_some() => {
                node.with_tools(Enrolments::look_soon);
            }
            () = limit_crossings.notified() => node.with_tools(Enrolments::mind_connection_limits),
            () = sleep(APPLIED_POLL), if node.backlog.waits_since().is_some() => node.advance(),
            _ = look_around.tick() => {
                node.with_tools(Enrolments::look_around);
                // What a process before this one left is let go of by the first batch, and not sooner.
                if node.is_serving() {
                    node.try_again();
                    node.end_quarantines();
                    node.health_checks.follow(node.world.health_checks());
                }
                node.mind_slow_workers();
                readiness.set(readiness.is_ready() || is_ready(&node, &source, patience));
                source.tell(readiness.is_ready(), || node.pod_notes());
            }
            _ = look_at_others.tick() => {
                let (place, met) = (node.place.clone(), met.clone());
                tokio::spawn(async move { met.send(Neighbours::look(place).await).await });
            }
            Some(neighbours) = meeting.recv() => node.meet(neighbours),
            Some(question) = questions.recv() => node.answer(question, &source),
            Some(wanted) = scrapes.recv() => {
                let _ = wanted.send(node.numbers(&source));
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
    // Pods' labels are the next agent's now, which may be there already.
    source.tell(false, Vec::new);
    node.with_tools(Enrolments::withdraw_all);
    node.drain(&mut stop).await;
    node.with_tools(Enrolments::forget_all);
    let ended = node.end().await;
    telling.end().await;
    ended?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Takes in what is left of calls' counts when their writers go.
async fn tidy(telemetry: Arc<Telemetry>) {
    loop {
        sleep(TIDY_EVERY).await;
        let telemetry = Arc::clone(&telemetry);
        // It may read many series.
        if let Err(error) = tokio::task::spawn_blocking(move || telemetry.tidy()).await {
            warn!("what is left of calls' counts was not taken in, until the next time: {error}");
        }
    }
}

/// Whether all pods of the node that should be are enrolled by this process, as far as they can be.
fn is_ready(node: &Node, source: &Discovery, patience: Instant) -> bool {
    node.is_serving() && source.is_usable() && (node.pods.outstanding() == 0 || Instant::now() >= patience)
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

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum.unwrap_or(WANTED_DESCRIPTORS).min(WANTED_DESCRIPTORS);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }) {
        warn!(%error, "the limit of open descriptors stays as it is");
    }
}
