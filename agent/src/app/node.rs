//! Everything that the worker process' loop works on, and what it does with it: changes are carried out, questions answered.

use super::backlog::{Backlog, Batch, Capture};
use super::captured::Captured;
use super::discovery::Discovery;
use super::enrolments::{Enrolments, LastingObstacle, Tools};
use super::neighbours::Neighbours;
use super::place::Place;
use super::stop::StopSignals;
use super::view;
use crate::admin::Page;
use crate::config::AgentConfig;
use crate::control::{Delta, Refused, World};
use crate::health::HealthChecks;
use crate::kernel::Kernel;
use crate::lifecycle::handover::Handover;
use crate::proxy::Workers;
use crate::sources::Change;
use crate::sources::kubernetes::write_back::{Obstacle, PodNote};
use crate::telemetry::{Numbers, PodObstacle, exposition};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// How long the workers may take for the first snapshot: their threads have just started.
const FIRST_SNAPSHOT_LIMIT: Duration = Duration::from_secs(10);

/// How long the workers may take for a snapshot before it is said that they do: a thousand turns.
const WORKERS_ARE_SLOW_AFTER: Duration = Duration::from_secs(2);

/// How often it is asked whether the workers have taken a snapshot: they do within one turn.
pub(super) const APPLIED_POLL: Duration = Duration::from_micros(500);

/// Everything that the loop works on.
pub(super) struct Node {
    pub(super) config: AgentConfig,
    pub(super) keeper: Handover,
    pub(super) kernel: Arc<Kernel>,
    pub(super) workers: Workers,
    pub(super) world: World,
    pub(super) backlog: Backlog,
    pub(super) pods: Enrolments,
    /// The addresses whose connections are taken.
    pub(super) captured: Captured,
    pub(super) place: Place,
    pub(super) neighbours: Neighbours,
    pub(super) health_checks: HealthChecks,
    /// Whether connections are taken that are opened now: the programs are attached, and the heartbeat has reached the kernel.
    pub(super) serving: watch::Sender<bool>,
}

impl Node {
    pub(super) fn with_tools<T>(&mut self, act: impl FnOnce(&mut Enrolments, &Tools<'_>) -> T) -> T {
        let Self { config, keeper, kernel, workers, pods, captured, serving, .. } = self;
        act(pods, &Tools { config, kernel, workers, keeper, captured, serving })
    }

    /// Begins to serve with the first batch, which is all that there is: what a process before this one left and nobody wants
    /// now is let go of. `first_beat` ends when the kernel's heartbeat is of this process.
    pub(super) async fn begin(
        &mut self,
        first: Vec<Change>,
        restored: bool,
        first_beat: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let delta = self.world.apply(first);
        self.carry_out(delta);
        timeout(FIRST_SNAPSHOT_LIMIT, self.settle()).await.context("the worker threads do not start")?;
        if !restored {
            let cgroup = &self.place.cgroup;
            let links = self.kernel.attach(cgroup).with_context(|| {
                format!("cannot attach to {}: --cgroup names another folder of cgroup2", cgroup.display())
            })?;
            for link in links {
                self.keeper.keep(&link.label, &link.fd)?;
            }
            info!(cgroup = %cgroup.display(), "attached");
        }
        self.with_tools(Enrolments::drop_restored)?;
        // What came while we were busy starting is not missed.
        self.with_tools(Enrolments::look_around);
        self.keeper.ready()?;
        first_beat.await?;
        self.serving.send_replace(true);
        info!(pods = self.pods.enrolled_count(), "everything is known: serving");
        Ok(())
    }

    /// Whether it serves: [`Self::begin`] has ended.
    pub(super) fn is_serving(&self) -> bool {
        *self.serving.borrow()
    }

    /// Does what a change asks for, in its order: nothing is sent to a worker that does not know it. What has to wait for the workers
    /// is done by [`Self::advance`].
    pub(super) fn carry_out(&mut self, delta: Delta) {
        self.backlog.push(delta);
        self.advance();
    }

    /// Goes on with what waited for the workers.
    pub(super) fn advance(&mut self) {
        loop {
            if let Some(snapshot) = self.backlog.begin(Instant::now()) {
                self.workers.publish(&snapshot);
                self.captured.set_snapshot(snapshot);
            }
            match self.backlog.ready(self.workers.applied()) {
                Some(batch) => self.finish(batch),
                None => return,
            }
        }
    }

    /// Waits until nothing waits for the workers.
    async fn settle(&mut self) {
        while self.backlog.waits_since().is_some() {
            sleep(APPLIED_POLL).await;
            self.advance();
        }
    }

    fn finish(&mut self, batch: Batch) {
        if self.capture(batch.addresses) {
            self.world.removed_from_kernel(&batch.retired, Instant::now());
        }
        let mut enrolments = Vec::new();
        for (uid, enrolment) in batch.pods {
            match enrolment {
                Some(enrolment) => enrolments.push(enrolment),
                None => self.with_tools(|pods, tools| pods.withdraw(&uid, tools)),
            }
        }
        self.with_tools(|pods, tools| pods.want(enrolments, tools));
    }

    /// Changes which addresses are captured; whether all of it was done.
    fn capture(&mut self, addresses: BTreeMap<SocketAddr, Capture>) -> bool {
        let mut done = true;
        // First what is taken, as of a delta.
        let (free, take): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|(_, capture)| *capture == Capture::Nothing);
        for (address, capture) in take.into_iter().chain(free) {
            let told = match capture {
                Capture::Taken(id) => self.kernel.add_destination(address, id),
                Capture::WithoutEndpoint(id) => self.kernel.mark_without_endpoint(address, id),
                Capture::Nothing => self.kernel.remove_destination(address),
            };
            match (told, capture) {
                (Ok(()), Capture::Taken(_)) => self.captured.insert(address),
                (Ok(()), Capture::WithoutEndpoint(_) | Capture::Nothing) => self.captured.remove(&address),
                (Err(error), _) => {
                    warn!(%address, wanted = ?capture, "the kernel does not learn of the destination: {error}");
                    done = false;
                }
            }
        }
        done
    }

    /// Says that the workers take their time.
    pub(super) fn mind_slow_workers(&self) {
        let waits = self.backlog.waits_since().map(|since| since.elapsed());
        if let Some(waits) = waits.filter(|waits| *waits > WORKERS_ARE_SLOW_AFTER) {
            warn!(seconds = waits.as_secs(), "a worker thread does not take the newest state: changes wait");
        }
    }

    /// Takes note of what others have attached.
    pub(super) fn meet(&mut self, neighbours: Option<Neighbours>) {
        if let Some(neighbours) = neighbours {
            neighbours.tell(&self.neighbours);
            self.captured.set_load_balancer(neighbours.has_load_balancer());
            self.neighbours = neighbours;
        }
    }

    /// Lets ids be used again whose rest is over and that no connection carries.
    pub(super) fn end_quarantines(&mut self) {
        // Snapshots are not to pile up with a worker that takes none.
        if self.backlog.waits_since().is_some() {
            return;
        }
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
        self.carry_out(delta);
    }

    pub(super) fn answer(&mut self, page: Page, source: &Discovery) -> serde_json::Value {
        match page {
            Page::Pods => {
                let live = self.with_tools(|pods, tools| pods.view(tools));
                view::pods(self.world.pods(), live)
            }
            Page::Services => view::json(self.world.services()),
            Page::Endpoints => view::json(self.world.endpoints()),
            Page::Workers => view::json(self.workers.counters()),
            Page::Kernel => serde_json::json!({
                "cgroup": self.place.cgroup,
                "kubepods": self.place.kubepods,
                "ids": self.world.ids(),
                "neighbours": self.neighbours,
            }),
            Page::Source => view::json(source.kinds()),
            Page::Config => view::json(&self.config),
            Page::Metrics => exposition(&self.numbers(source)).into(),
            Page::Problems => {
                let (of_source, of_world) = (source.problems(), self.world.problems().current());
                let of_pods: Vec<_> =
                    self.pods.lasting_obstacles().into_iter().map(LastingObstacle::into_problem).collect();
                view::json(of_source.iter().chain(of_world.iter()).chain(&of_pods).collect::<Vec<_>>())
            }
        }
    }

    /// What a cluster is told of the pods that are to be enrolled, and of those that were asked for in vain.
    pub(super) fn pod_notes(&self) -> Vec<PodNote> {
        let refused = self.world.refused().map(|Refused { pod, reason }| PodNote {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            obstacle: Some(Obstacle { reason: reason.name().into(), text: reason.to_string(), lasts: true }),
        });
        self.pods.notes().into_iter().chain(refused).collect()
    }

    /// The pods that were asked for in vain.
    fn refused(&self) -> impl Iterator<Item = PodObstacle> {
        self.world.refused().map(|Refused { pod, reason }| PodObstacle {
            namespace: pod.name.namespace.to_string(),
            pod: pod.name.name.to_string(),
            reason: reason.name(),
        })
    }

    fn numbers(&mut self, source: &Discovery) -> Numbers {
        let ids = self.world.ids();
        Numbers {
            pods: self.with_tools(|pods, tools| pods.counts(tools)),
            pods_waiting: self.pods.obstacles().into_iter().chain(self.refused()).collect(),
            legacy_attachments: self.neighbours.legacy_attachments(),
            endpoints: self.world.endpoints().into_iter().map(view::endpoint_counts).collect(),
            destinations: ids.live,
            resting_ids: ids.resting,
            problems: source.problems().len() + self.world.problems().current().len(),
            kinds: source.kinds().iter().map(view::kind_counts).collect(),
        }
    }

    /// Waits for the last call, until the deadline or a second signal.
    pub(super) async fn drain(&mut self, stop: &mut StopSignals) {
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
            () = sleep(deadline + WORKERS_ARE_SLOW_AFTER) => warn!("a worker thread hangs: ending what it carries"),
        }
    }

    /// Ends the worker threads, but waits for none that hangs: the end of the process ends it too.
    pub(super) async fn end(self) -> Result<()> {
        let (ended, end) = oneshot::channel();
        let workers = self.workers;
        // No task of the runtime's, which would wait for it.
        std::thread::spawn(move || ended.send(workers.stop()));
        match timeout(WORKERS_ARE_SLOW_AFTER, end).await {
            Ok(Ok(stopped)) => Ok(stopped?),
            // It panicked, and has said so.
            Ok(Err(_)) => bail!("a worker thread ended in a panic"),
            Err(_) => {
                warn!("a worker thread hangs: ending without it");
                Ok(())
            }
        }
    }
}
