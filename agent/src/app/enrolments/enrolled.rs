//! One enrolled pod: how it becomes one, what is kept up to date meanwhile, and how it is let go of.

use super::missed::{Cause, Missed, opened_before};
use super::obstacle::Obstacle;
use super::sighting::Sighting;
use super::{LISTENER_LABEL, Tools};
use crate::control::Enrolment;
use crate::kernel::listener::{ListenerOptions, is_loopback_up};
use crate::kernel::{self, Netns, PodListener, Sandbox, address};
use crate::lifecycle::handover::Handover;
use crate::mesh::{Pod, PodKey};
use crate::proxy::{ListenerId, ListenerSpec, Source};
use crate::sources::rows::PodRow;
use anyhow::Result;
use evenkeel_common::Reason;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{info, warn};

/// An enrolled pod.
pub(super) struct Enrolled {
    pub(super) pod: Arc<Pod>,
    pub(super) row: Arc<PodRow>,
    pub(super) sandbox: Sandbox,
    pub(super) port: u16,
    listeners: Vec<ListenerId>,
    pub(super) since: SystemTime,
    /// How long that took from the first word of its sandbox; `None`: it was there before.
    pub(super) after: Option<Duration>,
    /// What the kernel knows of it.
    pub(super) facts: kernel::Enrolment,
    /// Whether an earlier worker process had enrolled it.
    was_known: bool,
    pub(super) missed: Missed,
    /// What kept the agent from looking at it last, which is said once.
    trouble: Option<String>,
    crossings: Crossings,
}

/// How often it is said that a pod is at its connection limit: connections that come and go there cross it many times a second.
const SAY_LIMIT_EVERY: Duration = Duration::from_secs(60);

/// What was said of a pod's crossings of its connection limit.
#[derive(Default)]
struct Crossings {
    said: Option<Instant>,
    is_open: bool,
}

impl Enrolled {
    /// Opens or takes over the pod's listener, and tells the kernel, in this order: a connection that the kernel sends must find the
    /// listener, and a listener's worker must be there. Leaves nothing behind where that fails.
    pub(super) fn enrol(
        wanted: &Enrolment,
        sandbox: Sandbox,
        restored: &mut HashMap<u64, PodListener>,
        tools: &Tools<'_>,
    ) -> Result<Self, Obstacle> {
        let row = &wanted.pod;
        let netns = sandbox.netns();
        let cookie = netns.cookie();
        let was_known = tools.kernel.counters(cookie)?.is_some();
        let pod = Arc::new(Pod {
            key: PodKey { uid: row.uid.clone(), netns_cookie: cookie },
            name: row.name.clone(),
            workload: Arc::clone(&row.workload),
            netns: netns.try_clone()?.into_fd(),
        });
        let mut facts = facts_of(netns, &pod.key, wanted, tools)?;
        // Last of what may fail: redials may wait in its backlog.
        let (listener, is_held) = match restored.remove(&cookie) {
            Some(listener) => (listener, true),
            None => {
                let ports = tools.config.listener_ports;
                let options = ListenerOptions { ports: ports.first..=ports.last, mark: tools.config.mark };
                (PodListener::open(netns, &options, &row.declared_ports)?, false)
            }
        };
        facts.listener_port = listener.port;
        facts.ipv6_route = listener.v6.is_some();
        let mut enrolled = Self {
            pod,
            row: row.clone(),
            sandbox,
            port: listener.port,
            listeners: Vec::new(),
            since: SystemTime::now(),
            after: None,
            facts,
            was_known,
            missed: Missed { count: 0, cause: Cause::of(tools.serving, None) },
            trouble: None,
            crossings: Crossings::default(),
        };
        match enrolled.begin(listener, is_held, tools) {
            Ok(()) => Ok(enrolled),
            Err(obstacle) => {
                enrolled.forget(false, tools);
                Err(obstacle)
            }
        }
    }

    fn begin(&mut self, listener: PodListener, is_held: bool, tools: &Tools<'_>) -> Result<(), Obstacle> {
        let cookie = self.cookie();
        for (family, socket) in [("v4", Some(listener.v4)), ("v6", listener.v6)] {
            let Some(socket) = socket else { continue };
            if !is_held {
                tools.keeper.hold(&format!("{LISTENER_LABEL}{cookie}/{family}"), &socket)?;
            }
            let source = Source::Pod(self.pod.clone());
            self.listeners.push(tools.workers.listen(ListenerSpec { socket, source })?);
        }
        Ok(tools.kernel.enrol(cookie, &self.facts)?)
    }

    /// The cookie of its network namespace.
    pub(super) fn cookie(&self) -> u64 {
        self.pod.key.netns_cookie
    }

    /// Whether its sandbox is still there. An error says that it cannot be told now.
    pub(super) fn is_there(&mut self, sighting: &Sighting) -> Result<bool, Obstacle> {
        sighting.is_there(&self.row, &mut self.sandbox)
    }

    /// Tells the kernel what has changed about it, if it is still there; says whether it is, as far as can be told.
    pub(super) fn update(&mut self, wanted: &Enrolment, sighting: &Sighting, tools: &Tools<'_>) -> bool {
        let updated = self.try_update(wanted, sighting, tools);
        let is_there = *updated.as_ref().unwrap_or(&true);
        self.mind(updated.err());
        is_there
    }

    /// Says once what keeps the agent from looking at the pod again.
    pub(super) fn mind(&mut self, trouble: Option<Obstacle>) {
        let trouble = trouble.map(|obstacle| obstacle.text);
        if let Some(text) = &trouble
            && self.trouble != trouble
        {
            warn!(pod = %self.pod.name, "cannot look at the pod again: {text}");
        }
        self.trouble = trouble;
    }

    fn try_update(
        &mut self,
        wanted: &Enrolment,
        sighting: &Sighting,
        tools: &Tools<'_>,
    ) -> Result<bool, Obstacle> {
        if !self.is_there(sighting)? {
            return Ok(false);
        }
        let facts = self.facts_now(wanted, tools)?;
        if facts != self.facts {
            tools.kernel.enrol(self.cookie(), &facts)?;
            self.facts = facts;
        }
        Ok(true)
    }

    fn facts_now(&self, wanted: &Enrolment, tools: &Tools<'_>) -> io::Result<kernel::Enrolment> {
        let facts = facts_of(self.sandbox.netns(), &self.pod.key, wanted, tools)?;
        Ok(kernel::Enrolment { listener_port: self.port, ipv6_route: self.facts.ipv6_route, ..facts })
    }

    /// Counts the connections that the pod opened before its enrolment, and has them ended where that is asked for.
    /// `at_start`: it was enrolled before connections were taken.
    pub(super) fn count_missed(&mut self, wanted: &Enrolment, at_start: bool, tools: &Tools<'_>) {
        let silent = || {
            let counters = tools.kernel.counters(self.cookie()).ok().flatten();
            counters.map(|counters| counters.of(Reason::AgentSilent))
        };
        let cause = Cause::of(!at_start, if self.was_known { silent() } else { None });
        self.missed = opened_before(self.sandbox.netns(), wanted, cause, tools);
    }

    /// Tells the kernel whether the pod has as many connections as it may, if that has changed.
    pub(super) fn mind_connection_limit(&mut self, tools: &Tools<'_>) {
        let at_connection_limit = tools.workers.is_at_connection_limit(&self.pod.key);
        if at_connection_limit == self.facts.at_connection_limit {
            return;
        }
        let facts = kernel::Enrolment { at_connection_limit, ..self.facts };
        match tools.kernel.enrol(self.cookie(), &facts) {
            Ok(()) => {
                self.facts = facts;
                let limit = tools.config.max_pod_connections;
                // What is not said the counter `connection_limit` has.
                let is_said = self.crossings.is_to_be_said(at_connection_limit, Instant::now());
                match is_said.then_some(at_connection_limit) {
                    Some(true) => {
                        warn!(pod = %self.pod.name, limit, "at its connection limit: further ones go straight");
                    }
                    Some(false) => info!(pod = %self.pod.name, limit, "below its connection limit again"),
                    None => {}
                }
            }
            Err(error) => {
                warn!(pod = %self.pod.name, "the kernel does not learn of its connection limit: {error}");
            }
        }
    }

    /// New connections go straight; the names of those that are carried still hold.
    pub(super) fn leave(mut self, tools: &Tools<'_>) -> Self {
        self.facts.leaving = true;
        if let Err(error) = tools.kernel.enrol(self.cookie(), &self.facts) {
            warn!(pod = %self.pod.name, "cannot let the pod go: {error:#}");
        }
        info!(pod = %self.pod.name, "withdrawn");
        self
    }

    /// Takes back a pod that was let go, with its listener: there is one enrolment a network namespace, so what is left of
    /// the old one must not end the other. A static pod's has another UID each time that its mirror is made anew.
    pub(super) fn come_back(
        &mut self,
        wanted: &Enrolment,
        sandbox: Sandbox,
        tools: &Tools<'_>,
    ) -> Result<(), Obstacle> {
        let facts = self.facts_now(wanted, tools)?;
        tools.kernel.enrol(self.cookie(), &facts)?;
        self.facts = facts;
        self.sandbox = sandbox;
        self.row = wanted.pod.clone();
        self.since = SystemTime::now();
        Ok(())
    }

    /// Leaves nothing of the agent in the pod. Of a pod that is `gone` the namespace may still be held by the runtime, for its next
    /// processes.
    pub(super) fn forget(&self, gone: bool, tools: &Tools<'_>) {
        for listener in &self.listeners {
            tools.workers.unlisten(*listener, true);
        }
        let forget = || -> Result<()> {
            tools.kernel.withdraw(self.cookie())?;
            if self.facts.ipv6_route {
                let cleaned_up = PodListener::clean_up(self.sandbox.netns(), self.port);
                if !gone {
                    cleaned_up?;
                }
            }
            // Last: the keeper may be gone itself.
            Ok(release(self.cookie(), tools.keeper)?)
        };
        if let Err(error) = forget() {
            warn!(pod = %self.pod.name, "cannot clean up after the pod: {error:#}");
        }
    }
}

impl Crossings {
    /// Whether a crossing is to be said: the way up once in [`SAY_LIMIT_EVERY`], and the way down from one that was.
    fn is_to_be_said(&mut self, at_limit: bool, now: Instant) -> bool {
        if !at_limit {
            return std::mem::take(&mut self.is_open);
        }
        let is_due = self.said.is_none_or(|said| now.duration_since(said) >= SAY_LIMIT_EVERY);
        if is_due {
            (self.said, self.is_open) = (Some(now), true);
        }
        is_due
    }
}

/// Has the keeper let go of a pod's listeners.
pub(super) fn release(cookie: u64, keeper: &Handover) -> io::Result<()> {
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v4"))?;
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v6"))
}

/// What is to be seen of a pod, all but its listener. Its connections count under `key`, which a static pod's next mirror takes over.
fn facts_of(
    netns: &Netns,
    key: &PodKey,
    wanted: &Enrolment,
    tools: &Tools<'_>,
) -> io::Result<kernel::Enrolment> {
    let (mut ipv4, mut ipv6) = (None, None);
    for address in &wanted.pod.addresses {
        match address {
            IpAddr::V4(address) => ipv4 = ipv4.or(Some(*address)),
            IpAddr::V6(address) => ipv6 = ipv6.or(Some(*address)),
        }
    }
    let mark = tools.config.mark;
    Ok(kernel::Enrolment {
        // The kubelet tells the API of them after the sandbox' start, and the app may dial before that.
        ipv4: ipv4.or_else(|| address::own_v4(netns, mark)),
        ipv6: ipv6.or_else(|| address::own_v6(netns, mark)),
        loopback_down: !is_loopback_up(netns)?,
        at_connection_limit: tools.workers.is_at_connection_limit(key),
        ..kernel::Enrolment::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_goes_over_its_connection_limit_and_back_does_not_fill_the_log() {
        let (mut crossings, start) = (Crossings::default(), Instant::now());
        let said = (0..1_000).filter(|crossing| crossings.is_to_be_said(crossing % 2 == 0, start)).count();
        assert_eq!(said, 2, "up and down");
        let later = start + SAY_LIMIT_EVERY;
        assert!(crossings.is_to_be_said(true, later) && crossings.is_to_be_said(false, later));
        assert!(!crossings.is_to_be_said(true, later) && !crossings.is_to_be_said(false, later));
    }
}
