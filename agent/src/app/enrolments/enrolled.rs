//! One enrolled pod: how it becomes one, what is kept up to date meanwhile, and how it is let go of.

use super::missed::{Missed, opened_before};
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
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
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
    pub(super) missed: Missed,
}

impl Enrolled {
    /// Finds the pod's namespace, opens or takes over its listener, and tells the kernel, in this order: a connection that
    /// the kernel sends must find the listener, and a listener's worker must be there.
    pub(super) fn enrol(
        wanted: &Enrolment,
        sighting: &Sighting<'_>,
        restored: &mut HashMap<u64, PodListener>,
        tools: &Tools<'_>,
    ) -> Result<Self, Obstacle> {
        let row = &wanted.pod;
        let sandbox = sighting.find(row)?;
        let netns = sandbox.netns();
        let cookie = netns.cookie();
        let listener = match restored.remove(&cookie) {
            Some(listener) => listener,
            None => {
                let ports = tools.config.listener_ports;
                let options = ListenerOptions { ports: ports.first..=ports.last, mark: tools.config.mark };
                PodListener::open(netns, &options, &row.declared_ports)?
            }
        };
        for (family, socket) in [("v4", Some(&listener.v4)), ("v6", listener.v6.as_ref())] {
            if let Some(socket) = socket {
                tools.keeper.hold(&format!("{LISTENER_LABEL}{cookie}/{family}"), socket)?;
            }
        }
        let facts = facts_of(netns, wanted, listener.port, listener.v6.is_some(), tools)?;
        let pod = Arc::new(Pod {
            key: PodKey { uid: row.uid.clone(), netns_cookie: cookie },
            name: row.name.clone(),
            addresses: row.addresses.clone(),
            netns: netns.try_clone()?.into_fd(),
        });
        let port = listener.port;
        let listen = |socket: TcpListener| {
            tools.workers.listen(ListenerSpec { socket, source: Source::Pod(pod.clone()) })
        };
        let mut listeners = vec![listen(listener.v4)?];
        listeners.extend(listener.v6.map(listen).transpose()?);
        tools.kernel.enrol(cookie, &facts)?;
        let missed = opened_before(netns, wanted, tools);
        let since = SystemTime::now();
        Ok(Self { pod, row: row.clone(), sandbox, port, listeners, since, after: None, facts, missed })
    }

    /// The cookie of its network namespace.
    pub(super) fn cookie(&self) -> u64 {
        self.pod.key.netns_cookie
    }

    /// Whether its sandbox is still there.
    pub(super) fn is_there(&mut self, sighting: &Sighting<'_>) -> bool {
        sighting.is_there(&self.row, &mut self.sandbox)
    }

    /// Tells the kernel what has changed about it.
    pub(super) fn update(&mut self, wanted: &Enrolment, tools: &Tools<'_>) {
        let update = || -> Result<Option<kernel::Enrolment>, Obstacle> {
            let facts = facts_of(self.sandbox.netns(), wanted, self.port, self.facts.ipv6_route, tools)?;
            if facts == self.facts {
                return Ok(None);
            }
            tools.kernel.enrol(self.cookie(), &facts)?;
            Ok(Some(facts))
        };
        match update() {
            Ok(None) => (),
            Ok(Some(facts)) => self.facts = facts,
            Err(obstacle) => warn!(pod = %self.pod.name, "cannot look at the pod again: {}", obstacle.text),
        }
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
                if at_connection_limit {
                    warn!(pod = %self.pod.name, limit, "at its connection limit: further ones go straight");
                } else {
                    info!(pod = %self.pod.name, limit, "below its connection limit again");
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
    /// the old one must not end the other.
    pub(super) fn come_back(mut self, wanted: &Enrolment, tools: &Tools<'_>) -> Result<Self, Obstacle> {
        let netns = self.sandbox.netns();
        self.facts = facts_of(netns, wanted, self.port, self.facts.ipv6_route, tools)?;
        tools.kernel.enrol(self.cookie(), &self.facts)?;
        self.row = wanted.pod.clone();
        self.since = SystemTime::now();
        self.missed = opened_before(netns, wanted, tools);
        Ok(self)
    }

    /// Leaves nothing of the agent in the pod. What a pod that is `gone` had goes with its namespace.
    pub(super) fn forget(&self, gone: bool, tools: &Tools<'_>) {
        for listener in &self.listeners {
            tools.workers.unlisten(*listener, true);
        }
        let forget = || -> Result<()> {
            tools.kernel.withdraw(self.cookie())?;
            if !gone && self.facts.ipv6_route {
                PodListener::clean_up(self.sandbox.netns(), self.port)?;
            }
            // Last: the keeper may be gone itself.
            Ok(release(self.cookie(), tools.keeper)?)
        };
        if let Err(error) = forget() {
            warn!(pod = %self.pod.name, "cannot clean up after the pod: {error:#}");
        }
    }
}

/// Has the keeper let go of a pod's listeners.
pub(super) fn release(cookie: u64, keeper: &Handover) -> io::Result<()> {
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v4"))?;
    keeper.release(&format!("{LISTENER_LABEL}{cookie}/v6"))
}

fn facts_of(
    netns: &Netns,
    wanted: &Enrolment,
    listener_port: u16,
    ipv6_route: bool,
    tools: &Tools<'_>,
) -> Result<kernel::Enrolment, Obstacle> {
    let known = &wanted.pod.addresses;
    let v4 = known.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let v6 = known.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
    let mark = tools.config.mark;
    let key = PodKey { uid: wanted.pod.uid.clone(), netns_cookie: netns.cookie() };
    Ok(kernel::Enrolment {
        listener_port,
        // The kubelet tells the API of them after the sandbox' start, and the app may dial before that.
        ipv4: v4.or_else(|| address::own_v4(netns, mark)),
        ipv6: v6.or_else(|| address::own_v6(netns, mark)),
        ipv6_route,
        loopback_down: !is_loopback_up(netns)?,
        at_connection_limit: tools.workers.is_at_connection_limit(&key),
        leaving: false,
    })
}
