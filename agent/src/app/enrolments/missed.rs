//! The connections that a pod opened before it was enrolled: they go straight until they end. Counted, and ended where that is asked for.

use super::Tools;
use crate::control::Enrolment;
use crate::kernel::{Netns, reconnect};
use crate::sources::rows::OnEnrol;
use tracing::{info, warn};

/// Connections from before an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missed {
    /// How many there were at the enrolment.
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
    /// Its name in metrics, logs and at the admin endpoint.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AgentAbsent => "agent_absent",
            Self::NotEnrolled => "not_enrolled",
        }
    }
}

/// Counts the connections that the pod opened before it was enrolled, and has them ended where that is asked for.
pub(super) fn opened_before(netns: &Netns, wanted: &Enrolment, tools: &Tools<'_>) -> Missed {
    let name = wanted.pod.name.clone();
    let mut serving = tools.serving.subscribe();
    let cause = if *serving.borrow() { Cause::NotEnrolled } else { Cause::AgentAbsent };
    let (destinations, mark) = (tools.captured.peers(), tools.config.mark);
    let count = match reconnect::connections(netns, &destinations, mark) {
        Ok(connections) => connections.len(),
        Err(error) => {
            warn!(pod = %name, "cannot see the connections that it opened before: {error}");
            0
        }
    };
    let missed = Missed { count, cause };
    if count == 0 || !is_to_be_ended(wanted.on_enrol, cause) {
        return missed;
    }
    match netns.try_clone() {
        Ok(netns) => {
            tokio::spawn(async move {
                // Their clients dial again at once, and are to be taken then.
                if serving.wait_for(|serving| *serving).await.is_err() {
                    return;
                }
                match reconnect::end_all(&netns, &destinations, mark).await {
                    Ok(ended) => info!(pod = %name, ended, "ended the connections that it opened before"),
                    Err(error) => {
                        warn!(pod = %name, "cannot end the connections that it opened before: {error}");
                    }
                }
            });
        }
        Err(error) => warn!(pod = %name, "cannot end the connections that it opened before: {error}"),
    }
    missed
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
}
