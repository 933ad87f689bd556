//! The pods that are enrolled, from the wish to the last connection.
//!
//! A pod that is wanted and cannot be found yet is looked for again with each event of its cgroup, within milliseconds while its sandbox
//! is being made ([`soon`]), and from time to time. [`wanted`] is such a pod, [`sighting`] looks for it, [`enrolled`] it is from then on,
//! [`obstacle`] says why one is not, [`missed`] counts what it had opened before, [`leaving`] keeps what was let go, [`show`] tells of all
//! of it.

mod cgroup_uids;
mod enrolled;
mod leaving;
mod missed;
mod obstacle;
mod show;
mod sighting;
mod soon;
mod wanted;

pub(super) use show::{EnrolledView, EnrolmentFacts, LastingObstacle, Live};

use super::captured::Captured;
use crate::config::AgentConfig;
use crate::control::Enrolment;
use crate::kernel::{Kernel, Netns, PodEvent, PodEventKind, PodListener};
use crate::lifecycle::handover::Handover;
use crate::proxy::Workers;
use anyhow::Result;
use cgroup_uids::CgroupUids;
use enrolled::{Enrolled, release};
use leaving::Leaving;
use obstacle::Obstacle;
use sighting::{Depth, Sighting};
use soon::Soon;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};
use wanted::{State, Wanted};

/// Begins the labels of the pods' listeners.
const LISTENER_LABEL: &str = "listener/";

/// Of so many looks around, one asks all of the node's processes for pods that the cgroups do not show: a pass over thousands of
/// processes takes tens of milliseconds, and a pod may wait for ever.
const PROCESSES_EVERY: u32 = 10;

/// How long a worker process' restart keeps what the last one served, where its pods cannot be looked for: what waits there waits for
/// nobody else, and redials would go straight meanwhile.
const RESTORED_FOR: Duration = Duration::from_secs(5);

/// What enrolling a pod needs.
pub(super) struct Tools<'a> {
    pub(super) config: &'a AgentConfig,
    pub(super) kernel: &'a Arc<Kernel>,
    pub(super) workers: &'a Workers,
    pub(super) keeper: &'a Handover,
    /// The addresses whose connections are taken.
    pub(super) captured: &'a Captured,
    /// Whether connections are taken that are opened now. Before, the agent itself is starting, and the pods that it finds were there
    /// before it.
    pub(super) serving: bool,
}

/// The pods that are to be enrolled, and those that are.
#[derive(Default)]
pub(super) struct Enrolments {
    /// By UID.
    wanted: HashMap<Arc<str>, Wanted>,
    cgroup_uids: CgroupUids,
    soon: Soon,
    leaving: Leaving,
    /// From before the worker process' restart, by cookie, until their pods are found again.
    restored: HashMap<u64, PodListener>,
    /// Until when what is left of that process is kept for pods that cannot be looked for now; `None`: nothing is left.
    restored_until: Option<Instant>,
    /// The cgroup of all pods; `None` where there is none.
    kubepods: Option<PathBuf>,
    /// It was seen, and said, that it does not hold them.
    pods_are_elsewhere: bool,
    looks: u32,
}

impl Enrolments {
    /// Takes over the listeners that the keeper held for the last worker process.
    pub(super) fn restore(
        held: impl IntoIterator<Item = (String, OwnedFd)>,
        kubepods: Option<PathBuf>,
    ) -> Self {
        let restored =
            PodListener::restore(held.into_iter().map(|(_, listener)| listener)).into_iter().collect();
        let restored_until = Some(Instant::now() + RESTORED_FOR);
        Self { restored, restored_until, kubepods, ..Self::default() }
    }

    /// Whether a held descriptor is a pod's listener.
    pub(super) fn is_listener(label: &str) -> bool {
        label.starts_with(LISTENER_LABEL)
    }

    /// Pods are to be enrolled, or their rows are others now.
    pub(super) fn want(&mut self, enrolments: Vec<Enrolment>, tools: &Tools<'_>) {
        let uids: Vec<_> = enrolments.iter().map(|enrolment| enrolment.pod.uid.clone()).collect();
        for enrolment in enrolments {
            let uid = enrolment.pod.uid.clone();
            // What was found by another cgroup's name is to be found anew.
            if self.wanted.get(&uid).is_some_and(|w| w.enrolment.pod.cgroup_uid != enrolment.pod.cgroup_uid) {
                self.withdraw(&uid, tools);
            }
            match self.wanted.get_mut(&uid) {
                Some(known) => known.enrolment = enrolment,
                None => {
                    self.wanted.insert(uid, Wanted::new(enrolment));
                }
            }
        }
        self.look(&uids, Depth::Cgroups, tools, Self::bring_up_to_date);
    }

    /// A pod is not to be enrolled any more. Its connections go on.
    pub(super) fn withdraw(&mut self, uid: &str, tools: &Tools<'_>) {
        self.soon.forget(uid);
        let Some(wanted) = self.wanted.remove(uid) else { return };
        self.cgroup_uids.release(&wanted.enrolment.pod.cgroup_uid, uid);
        if let State::Enrolled(enrolled) = wanted.state {
            self.leaving.push(enrolled.leave(tools));
        }
    }

    /// Something happened in a pod's cgroup. To a pod that is enrolled it matters if its sandbox has ended: processes come and go all the
    /// time, each probe of the kubelet's for one.
    pub(super) fn stirred(&mut self, event: &PodEvent, tools: &Tools<'_>) {
        let Some(uid) = self.cgroup_uids.pod(event.uid.as_str()).cloned() else { return };
        let Some(Wanted { state, heard, .. }) = self.wanted.get_mut(&uid) else { return };
        let now = Instant::now();
        if let State::Waiting { obstacle, .. } = state
            && event.is_of_container()
            && event.kind != PodEventKind::Removed
        {
            heard.get_or_insert(now);
            if !obstacle.is_final() {
                self.soon.expect(&uid, now);
            }
        }
        // A cgroup that was just made is empty as yet.
        if event.kind == PodEventKind::Made {
            return;
        }
        if !self.soon.rests(now) {
            self.look(&[uid], Depth::Cgroups, tools, Self::look_for);
        } else if matches!(state, State::Enrolled(_)) {
            self.soon.expect(&uid, now);
        }
    }

    /// When to look for the pods whose sandbox is being made: [`Self::look_soon`].
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.soon.next()
    }

    /// Looks for the pods whose sandbox is being made.
    pub(super) fn look_soon(&mut self, tools: &Tools<'_>) {
        let due = self.soon.due(Instant::now());
        self.look(&due, Depth::Cgroups, tools, Self::look_for);
    }

    /// Looks again at everything that may have changed unannounced: pods that came or went, `lo`, last connections.
    pub(super) fn look_around(&mut self, tools: &Tools<'_>) {
        let depth =
            if self.looks.is_multiple_of(PROCESSES_EVERY) { Depth::Processes } else { Depth::Cgroups };
        self.looks = self.looks.wrapping_add(1);
        let uids: Vec<_> = self.wanted.keys().cloned().collect();
        let sighting = self.look(&uids, depth, tools, Self::bring_up_to_date);
        self.leaving.look_around(&sighting, tools);
        if tools.serving
            && let Err(error) = self.drop_restored(tools)
        {
            warn!("cannot let go of what the last worker process served: {error:#}");
        }
        self.wanted.values_mut().for_each(Wanted::tell_lasting);
    }

    /// Connections are taken from now on: what the pods that were there before have open was opened before.
    pub(super) fn begin_to_serve(&mut self, tools: &Tools<'_>) {
        for Wanted { enrolment, state, .. } in self.wanted.values_mut() {
            if let State::Enrolled(enrolled) = state {
                enrolled.count_missed(enrolment, true, tools);
            }
        }
    }

    /// Lets go of what a former worker process served and nobody wants now, once everything wanted could be looked for: that the kernel
    /// refuses a look is no end of a pod. To be called after a look.
    pub(super) fn drop_restored(&mut self, tools: &Tools<'_>) -> Result<()> {
        let Some(until) = self.restored_until else { return Ok(()) };
        let is_refused = |wanted: &Wanted| wanted.obstacle().is_some_and(|(it, _)| it.is_refusal());
        if Instant::now() < until && self.wanted.values().any(is_refused) {
            return Ok(());
        }
        self.restored_until = None;
        for (cookie, listener) in self.restored.drain() {
            release(cookie, tools.keeper)?;
            if let Ok(netns) = Netns::of_socket(listener.v4.as_fd()) {
                // A namespace that is on its way out takes its route along.
                let _ = PodListener::clean_up(&netns, listener.port);
            }
        }
        let kept: Vec<_> = self.enrolled().map(Enrolled::cookie).collect();
        for (cookie, _) in tools.kernel.enrolled()? {
            if !kept.contains(&cookie) && self.leaving.find(cookie).is_none() {
                tools.kernel.withdraw(cookie)?;
            }
        }
        Ok(())
    }

    /// Lets all pods go: new connections go straight. Connections that are still carried keep their names until
    /// [`Self::forget_all`].
    pub(super) fn withdraw_all(&mut self, tools: &Tools<'_>) {
        let uids: Vec<_> = self.wanted.keys().cloned().collect();
        for uid in uids {
            self.withdraw(&uid, tools);
        }
    }

    /// After the last connection: leaves nothing in any pod.
    pub(super) fn forget_all(&mut self, tools: &Tools<'_>) {
        self.withdraw_all(tools);
        self.leaving.forget_all(tools);
    }

    /// Tells the kernel which pods have as many connections as they may.
    pub(super) fn mind_connection_limits(&mut self, tools: &Tools<'_>) {
        for wanted in self.wanted.values_mut() {
            if let State::Enrolled(enrolled) = &mut wanted.state {
                enrolled.mind_connection_limit(tools);
            }
        }
    }

    /// How many pods are enrolled.
    pub(super) fn enrolled_count(&self) -> usize {
        self.enrolled().count()
    }

    fn enrolled(&self) -> impl Iterator<Item = &Enrolled> {
        self.wanted.values().filter_map(|wanted| match &wanted.state {
            State::Enrolled(enrolled) => Some(enrolled),
            State::Waiting { .. } => None,
        })
    }

    /// One look for the sake of these pods.
    fn look(
        &mut self,
        uids: &[Arc<str>],
        depth: Depth,
        tools: &Tools<'_>,
        at: fn(&mut Self, &Arc<str>, &Sighting, &Tools<'_>),
    ) -> Sighting {
        let sighting = Sighting::new(self.kubepods.clone(), depth);
        for uid in uids {
            at(self, uid, &sighting, tools);
        }
        // Of the looks that come often: the one in many that takes a pass anyway must not hold up a pod's start.
        if let Some(took) = sighting.pass_took().filter(|_| depth == Depth::Cgroups) {
            self.soon.rest_after(took, Instant::now());
        }
        if sighting.cgroups_are_elsewhere() && !self.pods_are_elsewhere {
            self.pods_are_elsewhere = true;
            warn!(
                kubepods = ?self.kubepods,
                "cgroup2 does not hold the pods' processes: they are found by a pass over /proc"
            );
        }
        sighting
    }

    /// As [`Self::look_for`]; of a pod that is enrolled the kernel learns what has changed about it.
    fn bring_up_to_date(&mut self, uid: &Arc<str>, sighting: &Sighting, tools: &Tools<'_>) {
        if let Some(Wanted { enrolment, state: State::Enrolled(enrolled), .. }) = self.wanted.get_mut(uid)
            && enrolled.update(enrolment, sighting, tools)
        {
            return;
        }
        self.look_for(uid, sighting, tools);
    }

    /// Brings a wanted pod as far as it can be brought now.
    fn look_for(&mut self, uid: &Arc<str>, sighting: &Sighting, tools: &Tools<'_>) {
        let Some(wanted) = self.wanted.get_mut(uid) else { return };
        if let State::Enrolled(enrolled) = &mut wanted.state {
            // What cannot be told has not changed: its connections must not end for that. `Enrolled::update` says it.
            if enrolled.is_there(sighting).unwrap_or(true) {
                self.soon.forget(uid);
                return;
            }
            info!(pod = %enrolled.pod.name, "its sandbox ended");
            enrolled.forget(true, tools);
            wanted.lose_sandbox();
        }
        if let Err(owner) = self.cgroup_uids.claim(&wanted.enrolment.pod.cgroup_uid, uid) {
            let text = format!("its cgroup is that of the pod with UID {owner}");
            wanted.wait(Obstacle::new("cgroup_of_another_pod", text));
            return;
        }
        let enrolment = wanted.enrolment.clone();
        let enrolled = self.enrol(&enrolment, sighting, tools);
        let Some(wanted) = self.wanted.get_mut(uid) else { return };
        match enrolled {
            Ok(mut enrolled) => {
                self.soon.forget(uid);
                enrolled.after = wanted.heard.take().map(|heard| heard.elapsed());
                let after_us = enrolled.after.map(|after| after.as_micros() as u64);
                info!(pod = %enrolled.row.name, port = enrolled.port, after_us, "enrolled");
                if tools.serving {
                    enrolled.count_missed(&wanted.enrolment, false, tools);
                }
                wanted.state = State::Enrolled(enrolled);
            }
            Err(obstacle) => {
                if wanted.wait(obstacle) {
                    self.soon.expect(uid, Instant::now());
                }
            }
        }
    }

    /// Enrols a pod, or takes it back that was let go: there is one enrolment a network namespace.
    fn enrol(
        &mut self,
        wanted: &Enrolment,
        sighting: &Sighting,
        tools: &Tools<'_>,
    ) -> Result<Enrolled, Obstacle> {
        let sandbox = sighting.find(&wanted.pod)?;
        let cookie = sandbox.netns().cookie();
        if let Some(other) = self.enrolled().find(|other| other.cookie() == cookie) {
            let text = format!("its network namespace is that of the pod {}", other.row.name);
            return Err(Obstacle::new("network_namespace_of_another_pod", text));
        }
        match self.leaving.find(cookie) {
            // Its listener is still there, with what it carries.
            Some((position, left)) => {
                left.come_back(wanted, sandbox, tools)?;
                Ok(self.leaving.take(position))
            }
            None => Enrolled::enrol(wanted, sandbox, &mut self.restored, tools),
        }
    }
}
