//! Everything that the worker process' loop works on, and what it does with it: changes are carried out, questions answered.

use super::backlog::{Backlog, Batch, Capture};
use super::captured::Captured;
use super::discovery::Discovery;
use super::enrolments::{Enrolments, LastingObstacle, Tools};
use super::look;
use super::neighbours::Neighbours;
use super::place::Place;
use super::status::status;
use super::stop::StopSignals;
use super::view::{self, KernelView, WorkersView};
use crate::admin::{self, Page, Question, Readiness};
use crate::config::AgentConfig;
use crate::control::{Delta, Refused, World};
use crate::health::HealthChecks;
use crate::kernel::{Kernel, KernelError};
use crate::lifecycle::handover::Handover;
use crate::mesh::DestinationId;
use crate::proxy::Workers;
use crate::sources::kubernetes::write_back::{Obstacle, PodNote};
use crate::sources::{Change, Problem};
use crate::telemetry::access_log::AccessLogCounts;
use crate::telemetry::otlp::TraceCounts;
use crate::telemetry::{Numbers, PodObstacle};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
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
    /// Why the kernel did not learn of a destination, until it has.
    pub(super) refusal: Option<String>,
    pub(super) pods: Enrolments,
    /// The addresses whose connections are taken.
    pub(super) captured: Captured,
    pub(super) place: Place,
    pub(super) neighbours: Neighbours,
    pub(super) health_checks: HealthChecks,
    /// Whether connections are taken that are opened now: the programs are attached, and the heartbeat has reached the kernel.
    pub(super) serving: bool,
    pub(super) readiness: Readiness,
    /// What becomes of the access log's records.
    pub(super) access_log: AccessLogCounts,
    /// What becomes of traced calls' spans.
    pub(super) spans: TraceCounts,
    /// When the worker process began.
    pub(super) started: Instant,
}

impl Node {
    pub(super) fn with_tools<T>(&mut self, act: impl FnOnce(&mut Enrolments, &Tools<'_>) -> T) -> T {
        let Self { config, keeper, kernel, workers, pods, captured, serving, .. } = self;
        act(pods, &Tools { config, kernel, workers, keeper, captured, serving: *serving })
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
        // What came while we were busy starting is not missed, nor is a pod that only /proc shows taken for one that has gone.
        self.with_tools(Enrolments::look_around);
        self.with_tools(Enrolments::drop_restored)?;
        self.keeper.ready()?;
        first_beat.await?;
        self.serving = true;
        self.with_tools(Enrolments::begin_to_serve);
        info!(pods = self.pods.enrolled_count(), "everything is known: serving");
        Ok(())
    }

    /// Whether it serves: [`Self::begin`] has ended.
    pub(super) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Does what a change asks for, in its order: nothing is sent to a worker that does not know it. What has to wait for the workers
    /// is done by [`Self::advance`].
    pub(super) fn carry_out(&mut self, delta: Delta) {
        for uid in self.backlog.push(delta) {
            self.with_tools(|pods, tools| pods.withdraw(&uid, tools));
        }
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
        let refused = self.capture(batch.addresses);
        let (left, removed) = match refused.is_empty() || batch.retired.is_empty() {
            true => (Vec::new(), batch.retired),
            false => self.still_in_kernel(batch.retired),
        };
        self.world.removed_from_kernel(&removed, Instant::now());
        self.backlog.put_back(refused, left);
        if self.backlog.refused().next().is_none() && self.refusal.take().is_some() {
            info!("the kernel knows of all destinations again");
        }
        let enrolments = batch.pods.into_values().collect();
        self.with_tools(|pods, tools| pods.want(enrolments, tools));
    }

    /// Changes which addresses are captured. What the kernel refused comes back.
    fn capture(&mut self, addresses: BTreeMap<SocketAddr, Capture>) -> BTreeMap<SocketAddr, Capture> {
        // First what is taken, as of a delta; and what found no room once more, when what is free is out.
        let (free, take): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|(_, capture)| *capture == Capture::Nothing);
        let take: Vec<_> = take.into_iter().filter(|one| self.capture_one(*one).is_err()).collect();
        let mut refused = BTreeMap::new();
        for (address, capture) in free.into_iter().chain(take) {
            if let Err(error) = self.capture_one((address, capture)) {
                if self.refusal.is_none() {
                    warn!(%address, wanted = ?capture, "the kernel does not learn of the destination, and is told again: {error}");
                }
                self.refusal = Some(error.to_string());
                refused.insert(address, capture);
            }
        }
        refused
    }

    fn capture_one(&mut self, (address, capture): (SocketAddr, Capture)) -> Result<(), KernelError> {
        match capture {
            Capture::Taken(id) => self.kernel.add_destination(address, id)?,
            Capture::WithoutEndpoint(id) => self.kernel.mark_without_endpoint(address, id)?,
            Capture::Nothing => self.kernel.remove_destination(address)?,
        }
        match capture {
            Capture::Taken(_) => self.captured.insert(address),
            Capture::WithoutEndpoint(_) | Capture::Nothing => self.captured.remove(&address),
        }
        Ok(())
    }

    /// Parts ids into those that the kernel's map of destinations leads to, and the others.
    fn still_in_kernel(&self, ids: Vec<DestinationId>) -> (Vec<DestinationId>, Vec<DestinationId>) {
        match self.kernel.known_destinations() {
            Ok(known) => {
                let known: HashSet<_> = known.into_iter().map(|known| known.id).collect();
                ids.into_iter().partition(|id| known.contains(id))
            }
            Err(error) => {
                warn!("cannot see which ids the kernel still knows: they are not used again yet: {error}");
                (ids, Vec::new())
            }
        }
    }

    /// Tells the kernel again what it refused.
    pub(super) fn try_again(&mut self) {
        self.backlog.try_again();
        self.advance();
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

    /// Lets ids be used again whose rest is over and that no connection carries, and places what there was no room for.
    pub(super) fn end_quarantines(&mut self) {
        // Snapshots are not to pile up with a worker that takes none.
        if self.backlog.waits_since().is_some() {
            return;
        }
        let over = self.world.quarantine_over(Instant::now(), |id| self.workers.connections(id));
        if !over.is_empty() {
            self.workers.publish(&self.world.snapshot());
        }
        for id in over {
            if let Err(error) = self.kernel.forget(id) {
                warn!("an id keeps its original address: {error}");
            }
        }
        if self.world.can_place_more() {
            let delta = self.world.apply(vec![]);
            self.carry_out(delta);
        }
    }

    /// Answers a question of the admin endpoint. Nothing in here waits: what worker threads or the kernel have to be asked for is sent
    /// on by a task of its own.
    pub(super) fn answer(&mut self, question: Question, source: &Discovery) {
        let Question { page, filter, answer } = question;
        let shown = match page {
            Page::Status => {
                let mut problems = self.problems(source);
                problems.extend(self.world.refusals().current().iter().cloned());
                admin::json(status(self, &problems))
            }
            Page::Pods => {
                let live = self.with_tools(|pods, tools| pods.view(tools));
                let refused = self.world.refused().map(|Refused { pod, reason }| (&*pod.uid, reason.name()));
                let pods = self.world.pods_that(|pod| filter.takes(pod));
                admin::json(view::pods(pods, live, &refused.collect(), &filter))
            }
            Page::Services => admin::json(self.world.services_that(|service| filter.takes(service))),
            Page::Endpoints => admin::json(self.world.endpoints_that(|port| filter.takes_port(port))),
            Page::Connections => return look::connections(&self.workers, &filter, answer),
            Page::Streams => return look::streams(&self.workers, &filter, answer),
            Page::Snapshot => {
                let (snapshot, applied) = (self.world.snapshot(), self.workers.applied_by_each());
                admin::json(view::snapshot(&snapshot, applied, source.kinds(), &filter))
            }
            Page::Workers => {
                let (counters, workers) = (self.workers.counters(), self.workers.view());
                admin::json(WorkersView { counters, workers })
            }
            Page::Kernel => return self.show_kernel(answer),
            Page::Source => admin::json(source.kinds()),
            Page::Config => admin::json(&self.config),
            // The endpoint has checked the question.
            Page::Explain => match self.explain(&filter) {
                Ok(explanation) => admin::json(explanation),
                Err(wrong) => wrong.into(),
            },
            Page::Problems => {
                let (problems, refusals) = (self.problems(source), self.world.refusals().current());
                admin::json(problems.iter().chain(refusals.iter()).collect::<Vec<_>>())
            }
        };
        // Whoever has asked may have gone.
        let _ = answer.send(shown);
    }

    fn show_kernel(&mut self, answer: oneshot::Sender<serde_json::Value>) {
        let mut connections = BTreeMap::new();
        for pod in self.with_tools(|pods, tools| pods.counts(tools)) {
            for (outcome, count) in pod.connections {
                *connections.entry(outcome).or_default() += count;
            }
        }
        let mut shown = KernelView {
            cgroup: self.place.cgroup.clone(),
            kubepods: self.place.kubepods.clone(),
            ids: self.world.ids(),
            neighbours: self.neighbours.clone(),
            connections,
            facts: None,
            error: None,
        };
        let kernel = Arc::clone(&self.kernel);
        tokio::task::spawn_blocking(move || {
            match kernel.facts() {
                Ok(facts) => shown.facts = Some(facts),
                Err(error) => shown.error = Some(error.to_string()),
            }
            let _ = answer.send(admin::json(shown));
        });
    }

    /// Everything that is wrong now, but for the pods that can't be enrolled as they are.
    pub(super) fn problems(&self, source: &Discovery) -> Vec<Problem> {
        let mut problems = source.problems();
        problems.extend(self.world.problems().current().iter().cloned());
        problems.extend(self.pods.lasting_obstacles().into_iter().map(LastingObstacle::into_problem));
        let refused: BTreeSet<_> = self.backlog.refused().collect();
        if let (Some(cause), count, Some(first)) = (&self.refusal, refused.len(), refused.first()) {
            problems.push(Problem::warning(
                None,
                format!(
                    "{count} addresses, {first} first, are another thing to the kernel than they should be: {cause}; it is told again"
                ),
            ));
        }
        problems
    }

    /// What a cluster is told of the pods that are to be enrolled, of those that were asked for in vain, and of those whose label
    /// says what is no more.
    pub(super) fn pod_notes(&self) -> Vec<PodNote> {
        let refused = self.world.refused().map(|Refused { pod, reason }| PodNote {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            label: pod.status_label.clone(),
            outcome: Some(Err(Obstacle {
                reason: reason.name().into(),
                text: reason.to_string(),
                lasts: true,
            })),
        });
        let left = self.world.labelled_in_vain().map(|pod| PodNote {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            label: pod.status_label.clone(),
            outcome: None,
        });
        self.pods.notes().into_iter().chain(refused).chain(left).collect()
    }

    /// The pods that were asked for in vain.
    fn refused(&self) -> impl Iterator<Item = PodObstacle> {
        self.world.refused().map(|Refused { pod, reason }| PodObstacle {
            namespace: pod.name.namespace.to_string(),
            pod: pod.name.name.to_string(),
            reason: reason.name(),
        })
    }

    /// What the metrics say of everything but calls.
    pub(super) fn numbers(&mut self, source: &Discovery) -> Numbers {
        let ids = self.world.ids();
        Numbers {
            ready: self.readiness.is_ready(),
            pods: self.with_tools(|pods, tools| pods.counts(tools)),
            pods_waiting: self.pods.obstacles(),
            pods_refused: self.refused().collect(),
            legacy_attachments: self.neighbours.legacy_attachments(),
            endpoints: self.world.endpoints_in_use().into_iter().map(view::endpoint_counts).collect(),
            destinations: ids.live,
            resting_ids: ids.resting,
            problems: self.problems(source).len(),
            kinds: source.kinds().iter().map(view::kind_counts).collect(),
            path: self.workers.counters().each().collect(),
            access_log: self.access_log.clone(),
            spans: self.spans.clone(),
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
