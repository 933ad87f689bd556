//! The pods that are enrolled, from the wish to the last connection.
//!
//! A pod that is wanted and cannot be found yet is looked for again with each event of its cgroup, within milliseconds while its sandbox
//! is being made ([`soon`]), and from time to time. [`sighting`] looks, [`enrolled`] is a pod from then on, [`obstacle`] says why one
//! is not, [`missed`] counts what it had opened before, [`show`] tells of all of it.

mod enrolled;
mod missed;
mod obstacle;
mod show;
mod sighting;
mod soon;

pub(super) use show::LastingObstacle;

use super::captured::Captured;
use crate::config::AgentConfig;
use crate::control::Enrolment;
use crate::kernel::{Kernel, Netns, PodEvent, PodEventKind, PodListener};
use crate::lifecycle::handover::Handover;
use crate::proxy::Workers;
use anyhow::Result;
use enrolled::{Enrolled, release};
use obstacle::Obstacle;
use sighting::{Depth, Sighting};
use soon::Soon;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tracing::{info, warn};

/// Begins the labels of the pods' listeners.
const LISTENER_LABEL: &str = "listener/";

/// Of so many looks around, one asks all of the node's processes for pods that the cgroups do not show: a pass over thousands of
/// processes takes tens of milliseconds, and a pod may wait for ever.
const PROCESSES_EVERY: u32 = 10;

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
    pub(super) serving: &'a watch::Sender<bool>,
}

/// The pods that are to be enrolled, and those that are.
#[derive(Default)]
pub(super) struct Enrolments {
    /// By UID.
    wanted: HashMap<Arc<str>, Wanted>,
    /// The UIDs of the wanted pods, by that in the path of their cgroups.
    by_cgroup_uid: HashMap<Arc<str>, Arc<str>>,
    soon: Soon,
    /// Let go, with connections that still need their names.
    leaving: Vec<Enrolled>,
    /// From before the worker process' restart, by cookie, until their pods are found again.
    restored: HashMap<u64, PodListener>,
    /// The cgroup of all pods; `None` where there is none, or where it turned out not to hold them.
    kubepods: Option<PathBuf>,
    looks: u32,
}

struct Wanted {
    enrolment: Enrolment,
    state: State,
    /// When its sandbox was first heard of, since it was wanted.
    heard: Option<Instant>,
}

enum State {
    /// Not found yet, or not to be enrolled now, and why, since when.
    Waiting {
        obstacle: Obstacle,
        since: Instant,
    },
    Enrolled(Enrolled),
}

impl State {
    fn waiting(obstacle: Obstacle) -> Self {
        Self::Waiting { obstacle, since: Instant::now() }
    }
}

impl Enrolments {
    /// Takes over the listeners that the keeper held for the last worker process.
    pub(super) fn restore(
        held: impl IntoIterator<Item = (String, OwnedFd)>,
        kubepods: Option<PathBuf>,
    ) -> Self {
        let restored =
            PodListener::restore(held.into_iter().map(|(_, listener)| listener)).into_iter().collect();
        Self { restored, kubepods, ..Self::default() }
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
            self.by_cgroup_uid.insert(enrolment.pod.cgroup_uid.clone(), uid.clone());
            match self.wanted.get_mut(&uid) {
                Some(known) => known.enrolment = enrolment,
                None => {
                    let state = State::waiting(Obstacle::new("no_process", "not looked for yet"));
                    self.wanted.insert(uid, Wanted { enrolment, state, heard: None });
                }
            }
        }
        self.look_for_all(&uids, Depth::Cgroups, tools);
    }

    /// A pod is not to be enrolled any more. Its connections go on.
    pub(super) fn withdraw(&mut self, uid: &str, tools: &Tools<'_>) {
        self.soon.forget(uid);
        let Some(wanted) = self.wanted.remove(uid) else { return };
        self.by_cgroup_uid.remove(&wanted.enrolment.pod.cgroup_uid);
        if let State::Enrolled(enrolled) = wanted.state {
            self.leaving.push(enrolled.leave(tools));
        }
    }

    /// Something happened in a pod's cgroup. To a pod that is enrolled it matters if its sandbox has ended: processes come and go all the
    /// time, each probe of the kubelet's for one.
    pub(super) fn stirred(&mut self, event: &PodEvent, tools: &Tools<'_>) {
        let Some(uid) = self.by_cgroup_uid.get(event.uid.as_str()).cloned() else { return };
        let is_begun = event.is_of_container() && event.kind != PodEventKind::Removed;
        if let Some(Wanted { state: State::Waiting { .. }, heard, .. }) = self.wanted.get_mut(&uid)
            && is_begun
        {
            let now = Instant::now();
            heard.get_or_insert(now);
            self.soon.expect(&uid, now);
        }
        // A cgroup that was just made is empty as yet.
        if event.kind != PodEventKind::Made {
            self.look_for_all(&[uid], Depth::Cgroups, tools);
        }
    }

    /// When to look for the pods whose sandbox is being made: [`Self::look_soon`].
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.soon.next()
    }

    /// Looks for the pods whose sandbox is being made.
    pub(super) fn look_soon(&mut self, tools: &Tools<'_>) {
        let due = self.soon.due(Instant::now());
        self.look_for_all(&due, Depth::Cgroups, tools);
    }

    /// Looks again at everything that may have changed unannounced: pods that came or went, `lo`, last connections.
    pub(super) fn look_around(&mut self, tools: &Tools<'_>) {
        let depth =
            if self.looks.is_multiple_of(PROCESSES_EVERY) { Depth::Processes } else { Depth::Cgroups };
        self.looks = self.looks.wrapping_add(1);
        let uids: Vec<_> = self.wanted.keys().cloned().collect();
        self.look_for_all(&uids, depth, tools);

        let kubepods = self.kubepods.clone();
        let sighting = Sighting::new(kubepods.as_deref(), depth);
        self.leaving.retain_mut(|left| {
            let gone = !left.is_there(&sighting);
            let carried = tools.workers.pod_connections(&left.pod.key) > 0 && !gone;
            if !carried {
                left.forget(gone, tools);
            }
            carried
        });
    }

    /// Lets go of what a former worker process served and nobody wants now. To be called once everything wanted was looked
    /// for.
    pub(super) fn drop_restored(&mut self, tools: &Tools<'_>) -> Result<()> {
        for (cookie, listener) in self.restored.drain() {
            release(cookie, tools.keeper)?;
            if let Ok(netns) = Netns::of_socket(listener.v4.as_fd()) {
                // A namespace that is on its way out takes its route along.
                let _ = PodListener::clean_up(&netns, listener.port);
            }
        }
        let wanted: Vec<_> = self.enrolled().map(Enrolled::cookie).collect();
        for (cookie, _) in tools.kernel.enrolled()? {
            if !wanted.contains(&cookie) {
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
        for left in self.leaving.drain(..) {
            left.forget(false, tools);
        }
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

    fn look_for_all(&mut self, uids: &[Arc<str>], depth: Depth, tools: &Tools<'_>) {
        let kubepods = self.kubepods.clone();
        let sighting = Sighting::new(kubepods.as_deref(), depth);
        for uid in uids {
            self.look_for(uid, &sighting, tools);
        }
        if sighting.cgroups_are_elsewhere() {
            warn!(
                ?kubepods,
                "cgroup2 does not hold the pods' processes: they are found by a pass over /proc"
            );
            self.kubepods = None;
        }
    }

    /// Brings a wanted pod as far as it can be brought now.
    fn look_for(&mut self, uid: &Arc<str>, sighting: &Sighting<'_>, tools: &Tools<'_>) {
        let Some(wanted) = self.wanted.get_mut(uid) else { return };
        if let State::Enrolled(enrolled) = &mut wanted.state {
            if enrolled.is_there(sighting) {
                enrolled.update(&wanted.enrolment, tools);
                return;
            }
            info!(pod = %enrolled.pod.name, "its sandbox ended");
            enrolled.forget(true, tools);
            wanted.state = State::waiting(Obstacle::new("sandbox_ended", "its sandbox ended"));
        }
        let comes_back = |left: &mut Enrolled| left.pod.key.uid == *uid && left.is_there(sighting);
        let enrolled = match self.leaving.iter_mut().position(comes_back) {
            // It was let go and is wanted again before its last connection ended: its listener is still there.
            Some(position) => self.leaving.swap_remove(position).come_back(&wanted.enrolment, tools),
            None => Enrolled::enrol(&wanted.enrolment, sighting, &mut self.restored, tools),
        };
        match enrolled {
            Ok(mut enrolled) => {
                self.soon.forget(uid);
                enrolled.after = wanted.heard.take().map(|heard| heard.elapsed());
                let (port, missed) = (enrolled.port, &enrolled.missed);
                info!(
                    pod = %enrolled.row.name, port, opened_before = missed.count, cause = missed.cause.name(),
                    after_us = enrolled.after.map(|after| after.as_micros() as u64), "enrolled"
                );
                wanted.state = State::Enrolled(enrolled);
            }
            Err(obstacle) => {
                if wait(wanted, obstacle) {
                    self.soon.expect(uid, Instant::now());
                }
            }
        }
    }
}

/// Takes down what stands in the way, and says so once. Whether the pod is to be looked for again soon: it is being started just now.
fn wait(wanted: &mut Wanted, now: Obstacle) -> bool {
    if let State::Waiting { obstacle, .. } = &mut wanted.state
        && obstacle.reason == now.reason
    {
        *obstacle = now;
        return false;
    }
    let (pod, reason) = (&wanted.enrolment.pod.name, now.reason);
    if now.is_of_a_start() {
        info!(%pod, reason, "the pod is not enrolled yet: {}", now.text);
    } else {
        warn!(%pod, reason, "the pod is not enrolled: {}", now.text);
    }
    let is_entering = now.reason == "node_network_namespace";
    wanted.state = State::waiting(now);
    is_entering
}
