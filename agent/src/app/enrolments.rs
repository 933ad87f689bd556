//! The pods that are enrolled, from the wish to the last connection: find the network namespace, open the listener in
//! it, tell the kernel; and the way back.
//!
//! A pod that is wanted and cannot be found yet is looked for again with each event of its cgroup, and from time to time.

use crate::config::AgentConfig;
use crate::control::Enrolment;
use crate::kernel::listener::{ListenerOptions, is_loopback_up};
use crate::kernel::{self, Kernel, Netns, PodListener};
use crate::lifecycle::handover::Handover;
use crate::mesh::{Pod, PodKey};
use crate::proxy::{ListenerId, ListenerSpec, Source, Workers};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, TcpListener};
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
        let restored = PodListener::restore(held.into_iter().map(|(_, listener)| listener)).into_iter().collect();
        Self { restored, ..Self::default() }
    }

    /// Whether a held descriptor is a pod's listener.
    pub(super) fn is_listener(label: &str) -> bool {
        label.starts_with(LISTENER_LABEL)
    }

    /// A pod is to be enrolled, or its row is another now.
    pub(super) fn want(&mut self, enrolment: Enrolment, tools: &Tools<'_>) {
        let uid = enrolment.pod.uid.clone();
        let state = State::Waiting("not looked for yet".into());
        self.wanted.entry(uid.clone()).or_insert(Wanted { enrolment: enrolment.clone(), state }).enrolment = enrolment;
        self.look_for(&uid, tools);
    }

    /// A pod is not to be enrolled any more. Its connections go on.
    pub(super) fn withdraw(&mut self, uid: &str, tools: &Tools<'_>) {
        if let Some(Wanted { state: State::Enrolled(enrolled), .. }) = self.wanted.remove(uid) {
            self.leaving.push(leave(enrolled, tools));
        }
    }

    /// Something happened in a pod's cgroup.
    pub(super) fn stirred(&mut self, cgroup_uid: &str, tools: &Tools<'_>) {
        let uid = self.wanted.values().find(|wanted| &*wanted.enrolment.pod.cgroup_uid == cgroup_uid);
        if let Some(uid) = uid.map(|wanted| wanted.enrolment.pod.uid.clone()) {
            self.look_for(&uid, tools);
        }
    }

    /// Looks again at everything that may have changed unannounced: pods that came or went, `lo`, last connections.
    pub(super) fn look_around(&mut self, tools: &Tools<'_>) {
        let uids: Vec<_> = self.wanted.keys().cloned().collect();
        for uid in uids {
            self.look_for(&uid, tools);
        }
        self.leaving.retain(|gone| {
            let carried = tools.workers.pod_connections(&gone.pod.key) > 0 && !is_gone(gone);
            if !carried {
                forget(gone, tools);
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
        for gone in self.leaving.drain(..) {
            forget(&gone, tools);
        }
    }

    /// Whether every wanted pod that can be found is enrolled.
    pub(super) fn enrolled_count(&self) -> usize {
        self.enrolled().count()
    }

    /// What is known of each wanted pod, by UID.
    pub(super) fn view(&self, tools: &Tools<'_>) -> HashMap<Arc<str>, Value> {
        let show = |wanted: &Wanted| match &wanted.state {
            State::Waiting(why) => json!({ "enrolled": false, "reason": why }),
            State::Enrolled(enrolled) => {
                let counters = tools.kernel.counters(enrolled.cookie()).ok().flatten().unwrap_or_default();
                let by_reason: serde_json::Map<_, _> = evenkeel_common::Reason::ALL
                    .into_iter()
                    .map(|reason| (reason.name().into(), counters.of(reason).into()))
                    .collect();
                let since = enrolled.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                json!({
                    "enrolled": true,
                    "since_unix_seconds": since.as_secs(),
                    "netns_cookie": enrolled.cookie(),
                    "listener_port": enrolled.port,
                    "ipv6": enrolled.facts.ipv6_route,
                    "connections": by_reason,
                    "open_connections": tools.workers.pod_connections(&enrolled.pod.key),
                    "opened_before": enrolled.missed,
                })
            }
        };
        self.wanted.iter().map(|(uid, wanted)| (uid.clone(), show(wanted))).collect()
    }

    fn enrolled(&self) -> impl Iterator<Item = &Enrolled> {
        self.wanted.values().filter_map(|wanted| match &wanted.state {
            State::Enrolled(enrolled) => Some(enrolled),
            State::Waiting(_) => None,
        })
    }

    /// Brings a wanted pod as far as it can be brought now.
    fn look_for(&mut self, uid: &str, tools: &Tools<'_>) {
        let Some(wanted) = self.wanted.get_mut(uid) else { return };
        if let State::Enrolled(enrolled) = &mut wanted.state {
            if !is_gone(enrolled) {
                update_facts(enrolled, &wanted.enrolment, tools);
                return;
            }
            let was = std::mem::replace(&mut wanted.state, State::Waiting("its sandbox ended".into()));
            if let State::Enrolled(enrolled) = was {
                let pod = leave(enrolled, tools);
                forget(&pod, tools);
            }
        }
        wanted.state = match enrol(&wanted.enrolment, &mut self.restored, tools) {
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

/// Finds the pod's namespace, opens or takes over its listener, and tells the kernel, in this order: a connection that
/// the kernel sends must find the listener, and a listener's worker must be there.
fn enrol(wanted: &Enrolment, restored: &mut HashMap<u64, PodListener>, tools: &Tools<'_>) -> Result<Enrolled> {
    let row = &wanted.pod;
    let netns = match &row.netns {
        Some(path) => Netns::open(path)?,
        None => kernel::pods::find(&row.cgroup_uid)?.context("no process of the pod runs on this node yet")?,
    };
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
    let listen = |socket: TcpListener| tools.workers.listen(ListenerSpec { socket, source: Source::Pod(pod.clone()) });
    let mut listeners = vec![listen(listener.v4)];
    listeners.extend(listener.v6.map(listen));
    tools.kernel.enrol(cookie, &facts)?;
    let missed = tools.reconnect(&netns, wanted);
    info!(pod = %row.name, port, opened_before = missed, "enrolled");
    Ok(Enrolled { pod, port, listeners, since: SystemTime::now(), facts, missed })
}

fn facts_of(netns: &Netns, wanted: &Enrolment, listener_port: u16, ipv6_route: bool) -> Result<kernel::Enrolment> {
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
        let netns = Netns::from_fd(enrolled.pod.netns.try_clone()?)?;
        let facts = facts_of(&netns, wanted, enrolled.port, enrolled.facts.ipv6_route)?;
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

/// Leaves nothing of the agent in the pod.
fn forget(gone: &Enrolled, tools: &Tools<'_>) {
    for listener in &gone.listeners {
        tools.workers.unlisten(*listener, true);
    }
    let forget = || -> Result<()> {
        tools.kernel.withdraw(gone.cookie())?;
        release(gone.cookie(), tools.keeper)?;
        if !is_gone(gone) {
            let netns = Netns::from_fd(gone.pod.netns.try_clone()?)?;
            PodListener::clean_up(&netns, gone.port)?;
        }
        Ok(())
    };
    if let Err(error) = forget() {
        warn!(pod = %gone.pod.name, "cannot clean up after the pod: {error:#}");
    }
}

fn release(cookie: u64, keeper: &Handover) -> Result<()> {
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v4"))?;
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v6"))?;
    Ok(())
}
