//! The connections that a pod opened before it was enrolled: they go straight until they end. Counted, and ended where that is asked for.

use super::Tools;
use crate::control::Enrolment;
use crate::kernel::{Netns, reconnect};
use crate::mesh::ObjectName;
use crate::sources::rows::OnEnrol;
use std::collections::HashSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::{info, warn};

/// Connections from before an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// How many there were at the enrolment, or, where the agent was starting, when it began to serve.
    pub(super) count: usize,
    /// Why they were not taken when they were opened.
    pub(super) cause: Cause,
}

/// Why a connection was not taken when it was opened, as far as that can be told: the kernel does not say how old a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The agent found the pod at its own start: whatever the pod had open then was opened while no agent was there to take it, or before
    /// the pod was to be enrolled.
    AgentAbsent,
    /// The agent was there, and the pod was not enrolled: its label came later than its connections.
    NotEnrolled,
}

impl Cause {
    /// The cause for a pod that was enrolled while the agent was `serving`, or at its start. `silent`, of a pod that an earlier worker
    /// process had enrolled: how many connections the kernel has sent straight since for want of one.
    pub(super) fn of(serving: bool, silent: Option<u64>) -> Self {
        if serving || silent == Some(0) { Self::NotEnrolled } else { Self::AgentAbsent }
    }

    /// Its name in metrics, logs and at the admin endpoint.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AgentAbsent => "agent_absent",
            Self::NotEnrolled => "not_enrolled",
        }
    }
}

/// Counts the connections that the pod opened before it was enrolled, and has them ended where that is asked for. To be called once
/// connections are taken: their clients dial again at once.
pub(super) fn opened_before(netns: &Netns, wanted: &Enrolment, cause: Cause, tools: &Tools<'_>) -> Missed {
    let name = &wanted.pod.name;
    let (destinations, mark) = (tools.captured.peers(), tools.config.mark);
    let count = match reconnect::connections(netns, &destinations, mark) {
        Ok(connections) => connections.len(),
        Err(error) => {
            warn!(pod = %name, "cannot see the connections that it opened before: {error}");
            0
        }
    };
    if count > 0 {
        info!(pod = %name, count, cause = cause.name(), "it has connections from before its enrolment");
    }
    if count > 0 && is_to_be_ended(wanted.on_enrol, cause) {
        match netns.try_clone() {
            Ok(netns) => drop(tokio::spawn(end(name.clone(), netns, destinations, mark))),
            Err(error) => cannot_end(name, &error),
        }
    }
    Missed { count, cause }
}

async fn end(name: ObjectName, netns: Netns, destinations: Arc<HashSet<SocketAddr>>, mark: u32) {
    match reconnect::end_all(&netns, &destinations, mark).await {
        Ok(ended) => info!(pod = %name, ended, "ended the connections that it opened before"),
        Err(error) => cannot_end(&name, &error),
    }
}

fn cannot_end(name: &ObjectName, error: &dyn Display) {
    warn!(pod = %name, "cannot end the connections that it opened before: {error}");
}

/// Whether connections from before are to be ended.
fn is_to_be_ended(on_enrol: OnEnrol, cause: Cause) -> bool {
    match on_enrol {
        OnEnrol::Keep => false,
        OnEnrol::Reconnect => true,
        OnEnrol::ReconnectMissed => cause == Cause::AgentAbsent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_went_straight_for_want_of_an_agent_is_ended_where_that_alone_is_asked_for() {
        use Cause::{AgentAbsent, NotEnrolled};
        for (on_enrol, cause, ended) in [
            (OnEnrol::Keep, AgentAbsent, false),
            (OnEnrol::Keep, NotEnrolled, false),
            (OnEnrol::Reconnect, AgentAbsent, true),
            (OnEnrol::Reconnect, NotEnrolled, true),
            (OnEnrol::ReconnectMissed, AgentAbsent, true),
            (OnEnrol::ReconnectMissed, NotEnrolled, false),
        ] {
            assert_eq!(is_to_be_ended(on_enrol, cause), ended, "{on_enrol:?}, {cause:?}");
        }
    }

    #[test]
    fn a_workers_crash_makes_no_late_label_an_absent_agent() {
        use Cause::{AgentAbsent, NotEnrolled};
        for (serving, silent, cause, what) in [
            (true, None, NotEnrolled, "a label while the agent runs"),
            (false, None, AgentAbsent, "the agent's own start"),
            (false, Some(0), NotEnrolled, "a crash that no connection noticed: whatever is open was before"),
            (false, Some(1), AgentAbsent, "a crash that a connection fell into"),
        ] {
            assert_eq!(Cause::of(serving, silent), cause, "{what}");
        }
    }
}
