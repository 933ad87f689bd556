//! The pods that are enrolled, from the wish to the last connection: find the network namespace, open the listener in
//! it, tell the kernel; and the way back.
//!
//! A pod that is wanted and cannot be found yet is looked for again with each event of its cgroup, and from time to time.

use super::sighting::Sighting;
use crate::config::AgentConfig;
use crate::control::Enrolment;
use crate::kernel::listener::{ListenerOptions, is_loopback_up};
use crate::kernel::{self, Kernel, Netns, PodEvent, PodListener, reconnect};
use crate::lifecycle::handover::Handover;
use crate::mesh::{Pod, PodKey};
use crate::proxy::{ListenerId, ListenerSpec, Source, Workers};
use crate::sources::rows::{OnEnrol, PodRow};
use crate::telemetry::PodCounts;
use anyhow::Result;
use evenkeel_common::Reason;
use serde_json::{Value, json};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;
use tracing::{info, warn};

/// Begins the labels of the pods' listeners.
const LISTENER_LABEL: &str = "listener/";

/// What enrolling a pod needs.
pub(super) struct Tools<'a> {
    pub(super) config: &'a AgentConfig,
    pub(super) kernel: &'a Arc<Kernel>,
    pub(super) workers: &'a Workers,
    pub(super) keeper: &'a Handover,
    /// The addresses whose connections are taken.
    pub(super) captured: &'a Arc<HashSet<SocketAddr>>,
}

/// The pods that are to be enrolled, and those that are.
#[derive(Default)]
pub(super) struct Enrolments {
    /// By UID.
    wanted: HashMap<Arc<str>, Wanted>,
    /// Let go, with connections that still need their names.
    leaving: Vec<Enrolled>,
    /// From before the worker process' restart, by cookie, until their pods are found again.
    restored: HashMap<u64, PodListener>,
}

struct Wanted {
    enrolment: Enrolment,
    state: State,
}

enum State {
    /// Not found yet, or not to be enrolled now, and why.
    Waiting(String),
    Enrolled(Enrolled),
}

struct Enrolled {
    pod: Arc<Pod>,
    row: Arc<PodRow>,
    netns: Netns,
    port: u16,
    listeners: Vec<ListenerId>,
    since: SystemTime,
    facts: kernel::Enrolment,
    /// Connections from before, that go straight until they end: counted at enrolment.
    missed: usize,
}

impl Enrolled {
    fn cookie(&self) -> u64 {
        self.pod.key.netns_cookie
    }
}

impl Enrolments {
    /// Takes over the listeners that the keeper held for the last worker process.
    pub(super) fn restore(held: impl IntoIterator<Item = (String, OwnedFd)>) -> Self {
        let restored =
            PodListener::restore(held.into_iter().map(|(_, listener)| listener)).into_iter().collect();
        Self { restored, ..Self::default() }
    }

    /// Whether a held descriptor is a pod's listener.
    pub(super) fn is_listener(label: &str) -> bool {
        label.starts_with(LISTENER_LABEL)
    }

    /// A pod is to be enrolled, or its row is another now.
    pub(super) fn want(&mut self, enrolment: Enrolment, tools: &Tools<'_>) {
        let uid = enrolment.pod.uid.clone();
        match self.wanted.entry(uid.clone()) {
            Entry::Occupied(mut known) => known.get_mut().enrolment = enrolment,
            Entry::Vacant(place) => {
                place.insert(Wanted { enrolment, state: State::Waiting("not looked for yet".into()) });
            }
        }
        self.look_for(&uid, &Sighting::default(), tools);
    }

    /// A pod is not to be enrolled any more. Its connections go on.
    pub(super) fn withdraw(&mut self, uid: &str, tools: &Tools<'_>) {
        if let Some(Wanted { state: State::Enrolled(enrolled), .. }) = self.wanted.remove(uid) {
            self.leaving.push(leave(enrolled, tools));
        }
    }

    /// Something happened in a pod's cgroup. To a pod that is enrolled only a cgroup made matters, which may be a sandbox made
    /// anew: processes enter it all the time, each probe of the kubelet's for one.
    pub(super) fn stirred(&mut self, event: &PodEvent, tools: &Tools<'_>) {
        let matters = |wanted: &&Wanted| {
            *wanted.enrolment.pod.cgroup_uid == *event.uid
                && (!event.entered || matches!(wanted.state, State::Waiting(_)))
        };
        let uid = self.wanted.values().find(matters).map(|wanted| wanted.enrolment.pod.uid.clone());
        if let Some(uid) = uid {
            self.look_for(&uid, &Sighting::default(), tools);
        }
    }

    /// Looks again at everything that may have changed unannounced: pods that came or went, `lo`, last connections.
    pub(super) fn look_around(&mut self, tools: &Tools<'_>) {
        let sighting = Sighting::default();
        let uids: Vec<_> = self.wanted.keys().cloned().collect();
        for uid in uids {
            self.look_for(&uid, &sighting, tools);
        }
        self.leaving.retain(|left| {
            let gone = sighting.is_gone(&left.row, &left.netns);
            let carried = tools.workers.pod_connections(&left.pod.key) > 0 && !gone;
            if !carried {
                forget(left, gone, tools);
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
            forget(&left, false, tools);
        }
    }

    /// How many pods are enrolled.
    pub(super) fn enrolled_count(&self) -> usize {
        self.enrolled().count()
    }

    /// What is known of each wanted pod, by UID.
    pub(super) fn view(&self, tools: &Tools<'_>) -> HashMap<Arc<str>, Value> {
        let show = |wanted: &Wanted| match &wanted.state {
            State::Waiting(why) => json!({ "enrolled": false, "reason": why }),
            State::Enrolled(enrolled) => {
                let by_outcome = connections_by_outcome(enrolled, tools).into_iter();
                let by_outcome: serde_json::Map<_, _> =
                    by_outcome.map(|(outcome, count)| (outcome.into(), count.into())).collect();
                let since = enrolled.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                json!({
                    "enrolled": true,
                    "since_unix_seconds": since.as_secs(),
                    "netns_cookie": enrolled.cookie(),
                    "listener_port": enrolled.port,
                    "ipv6": enrolled.facts.ipv6_route,
                    "connections": by_outcome,
                    "open_connections": tools.workers.pod_connections(&enrolled.pod.key),
                    "opened_before": enrolled.missed,
                })
            }
        };
        self.wanted.iter().map(|(uid, wanted)| (uid.clone(), show(wanted))).collect()
    }

    /// What the enrolled pods' connections met, and how many wanted pods are not enrolled.
    pub(super) fn counts(&self, tools: &Tools<'_>) -> (Vec<PodCounts>, usize) {
        let counts = self.enrolled().map(|enrolled| PodCounts {
            namespace: enrolled.pod.name.namespace.to_string(),
            pod: enrolled.pod.name.name.to_string(),
            connections: connections_by_outcome(enrolled, tools),
        });
        let counts: Vec<_> = counts.collect();
        let waiting = self.wanted.len() - counts.len();
        (counts, waiting)
    }

    fn enrolled(&self) -> impl Iterator<Item = &Enrolled> {
        self.wanted.values().filter_map(|wanted| match &wanted.state {
            State::Enrolled(enrolled) => Some(enrolled),
            State::Waiting(_) => None,
        })
    }

    /// Brings a wanted pod as far as it can be brought now.
    fn look_for(&mut self, uid: &str, sighting: &Sighting, tools: &Tools<'_>) {
        let Some(wanted) = self.wanted.get_mut(uid) else { return };
        if let State::Enrolled(enrolled) = &mut wanted.state {
            if !sighting.is_gone(&enrolled.row, &enrolled.netns) {
                update_facts(enrolled, &wanted.enrolment, tools);
                return;
            }
            info!(pod = %enrolled.pod.name, "its sandbox ended");
            forget(enrolled, true, tools);
            wanted.state = State::Waiting("its sandbox ended".into());
        }
        let comes_back =
            |left: &Enrolled| &*left.pod.key.uid == uid && !sighting.is_gone(&left.row, &left.netns);
        let enrolled = match self.leaving.iter().position(comes_back) {
            // It was let go and is wanted again before its last connection ended: its listener is still there.
            Some(position) => come_back(self.leaving.swap_remove(position), &wanted.enrolment, tools),
            None => enrol(&wanted.enrolment, sighting, &mut self.restored, tools),
        };
        wanted.state = match enrolled {
            Ok(enrolled) => State::Enrolled(enrolled),
            Err(error) => {
                let why = format!("{error:#}");
                if !matches!(&wanted.state, State::Waiting(known) if *known == why) {
                    warn!(pod = %wanted.enrolment.pod.name, why, "the pod is not enrolled yet");
                }
                State::Waiting(why)
            }
        };
    }
}

fn connections_by_outcome(enrolled: &Enrolled, tools: &Tools<'_>) -> Vec<(&'static str, u64)> {
    let counters = tools.kernel.counters(enrolled.cookie()).ok().flatten().unwrap_or_default();
    Reason::ALL.into_iter().map(|reason| (reason.name(), counters.of(reason))).collect()
}

/// Finds the pod's namespace, opens or takes over its listener, and tells the kernel, in this order: a connection that
/// the kernel sends must find the listener, and a listener's worker must be there.
fn enrol(
    wanted: &Enrolment,
    sighting: &Sighting,
    restored: &mut HashMap<u64, PodListener>,
    tools: &Tools<'_>,
) -> Result<Enrolled> {
    let row = &wanted.pod;
    let netns = sighting.find(row)?;
    let cookie = netns.cookie();
    let listener = match restored.remove(&cookie) {
        Some(listener) => listener,
        None => {
            let ports = tools.config.listener_ports;
            let options = ListenerOptions { ports: ports.first..=ports.last, mark: tools.config.mark };
            PodListener::open(&netns, &options, &row.declared_ports)?
        }
    };
    for (family, socket) in [("v4", Some(&listener.v4)), ("v6", listener.v6.as_ref())] {
        if let Some(socket) = socket {
            tools.keeper.hold(&format!("{LISTENER_LABEL}{cookie}/{family}"), socket)?;
        }
    }
    let facts = facts_of(&netns, wanted, listener.port, listener.v6.is_some())?;
    let key = PodKey { uid: row.uid.clone(), netns_cookie: cookie };
    let pod = Arc::new(Pod {
        key,
        name: row.name.clone(),
        addresses: row.addresses.clone(),
        netns: netns.try_clone()?.into_fd(),
    });
    let port = listener.port;
    let listen =
        |socket: TcpListener| tools.workers.listen(ListenerSpec { socket, source: Source::Pod(pod.clone()) });
    let mut listeners = vec![listen(listener.v4)?];
    listeners.extend(listener.v6.map(listen).transpose()?);
    tools.kernel.enrol(cookie, &facts)?;
    let missed = opened_before(&netns, wanted, tools);
    info!(pod = %row.name, port, opened_before = missed, on_enrol = ?wanted.on_enrol, "enrolled");
    Ok(Enrolled { pod, row: row.clone(), netns, port, listeners, since: SystemTime::now(), facts, missed })
}

/// Counts the connections that the pod opened before it was enrolled, and has them ended where that is asked for.
fn opened_before(netns: &Netns, wanted: &Enrolment, tools: &Tools<'_>) -> usize {
    let name = wanted.pod.name.clone();
    let count = match reconnect::connections(netns, tools.captured) {
        Ok(connections) => connections.len(),
        Err(error) => {
            warn!(pod = %name, "cannot see the connections that it opened before: {error}");
            return 0;
        }
    };
    if count == 0 || wanted.on_enrol != OnEnrol::Reconnect {
        return count;
    }
    match netns.try_clone() {
        Ok(netns) => {
            let captured = tools.captured.clone();
            tokio::spawn(async move {
                match reconnect::end_all(&netns, &captured).await {
                    Ok(ended) => info!(pod = %name, ended, "ended the connections that it opened before"),
                    Err(error) => {
                        warn!(pod = %name, "cannot end the connections that it opened before: {error}");
                    }
                }
            });
        }
        Err(error) => warn!(pod = %name, "cannot end the connections that it opened before: {error}"),
    }
    count
}

fn facts_of(
    netns: &Netns,
    wanted: &Enrolment,
    listener_port: u16,
    ipv6_route: bool,
) -> Result<kernel::Enrolment> {
    let addresses = &wanted.pod.addresses;
    Ok(kernel::Enrolment {
        listener_port,
        ipv4: addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        }),
        ipv6: addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        }),
        ipv6_route,
        loopback_down: !is_loopback_up(netns)?,
        at_connection_limit: false,
        leaving: false,
    })
}

/// Tells the kernel what has changed about an enrolled pod.
fn update_facts(enrolled: &mut Enrolled, wanted: &Enrolment, tools: &Tools<'_>) {
    let update = || -> Result<Option<kernel::Enrolment>> {
        let facts = facts_of(&enrolled.netns, wanted, enrolled.port, enrolled.facts.ipv6_route)?;
        if facts == enrolled.facts {
            return Ok(None);
        }
        tools.kernel.enrol(enrolled.cookie(), &facts)?;
        Ok(Some(facts))
    };
    match update() {
        Ok(None) => (),
        Ok(Some(facts)) => enrolled.facts = facts,
        Err(error) => warn!(pod = %enrolled.pod.name, "cannot look at the pod again: {error:#}"),
    }
}

/// New connections go straight; the names of those that are carried still hold.
fn leave(mut enrolled: Enrolled, tools: &Tools<'_>) -> Enrolled {
    enrolled.facts.leaving = true;
    if let Err(error) = tools.kernel.enrol(enrolled.cookie(), &enrolled.facts) {
        warn!(pod = %enrolled.pod.name, "cannot let the pod go: {error:#}");
    }
    info!(pod = %enrolled.pod.name, "withdrawn");
    enrolled
}

/// Takes back a pod that was let go, with its listener: there is one enrolment a network namespace, so what is left of
/// the old one must not end the other.
fn come_back(mut left: Enrolled, wanted: &Enrolment, tools: &Tools<'_>) -> Result<Enrolled> {
    let row = &wanted.pod;
    left.facts = facts_of(&left.netns, wanted, left.port, left.facts.ipv6_route)?;
    tools.kernel.enrol(left.cookie(), &left.facts)?;
    left.row = row.clone();
    left.since = SystemTime::now();
    left.missed = opened_before(&left.netns, wanted, tools);
    info!(pod = %row.name, port = left.port, opened_before = left.missed, on_enrol = ?wanted.on_enrol, "enrolled again");
    Ok(left)
}

/// Leaves nothing of the agent in the pod. What a pod that is `gone` had goes with its namespace.
fn forget(left: &Enrolled, gone: bool, tools: &Tools<'_>) {
    for listener in &left.listeners {
        tools.workers.unlisten(*listener, true);
    }
    let forget = || -> Result<()> {
        tools.kernel.withdraw(left.cookie())?;
        if !gone && left.facts.ipv6_route {
            PodListener::clean_up(&left.netns, left.port)?;
        }
        // Last: the keeper may be gone itself.
        release(left.cookie(), tools.keeper)
    };
    if let Err(error) = forget() {
        warn!(pod = %left.pod.name, "cannot clean up after the pod: {error:#}");
    }
}

fn release(cookie: u64, keeper: &Handover) -> Result<()> {
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v4"))?;
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v6"))?;
    Ok(())
}
