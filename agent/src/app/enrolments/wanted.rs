//! One pod that is to be enrolled: whether it is, and what stands in the way.

use super::enrolled::Enrolled;
use super::obstacle::Obstacle;
use crate::control::Enrolment;
use crate::kernel::NotFound;
use std::time::Instant;
use tracing::{info, warn};

/// A pod that is to be enrolled.
pub(super) struct Wanted {
    pub(super) enrolment: Enrolment,
    pub(super) state: State,
    /// When its sandbox was first heard of, since it was wanted.
    pub(super) heard: Option<Instant>,
    /// It was enrolled, and its sandbox has ended: where nothing holds a sandbox but the containers' own processes (CRI-O), there is none
    /// while they wait to be started again.
    had_sandbox: bool,
}

pub(super) enum State {
    /// Not found yet, or not to be enrolled now, and why, since when.
    Waiting {
        obstacle: Obstacle,
        since: Instant,
        /// Whether the log has it as something wrong.
        is_told: bool,
    },
    Enrolled(Enrolled),
}

impl State {
    fn waiting(obstacle: Obstacle, is_told: bool) -> Self {
        Self::Waiting { obstacle, since: Instant::now(), is_told }
    }

    fn not_found() -> Self {
        Self::waiting(NotFound::NoProcess.into(), false)
    }
}

impl Wanted {
    /// Before the first look.
    pub(super) fn new(enrolment: Enrolment) -> Self {
        Self { enrolment, state: State::not_found(), heard: None, had_sandbox: false }
    }

    /// Its sandbox has ended: it waits for the next.
    pub(super) fn lose_sandbox(&mut self) {
        (self.state, self.had_sandbox) = (State::not_found(), true);
    }

    /// Takes down what stands in the way, and says so once. Whether the pod is to be looked for again soon: it is being started just now.
    pub(super) fn wait(&mut self, now: Obstacle) -> bool {
        if let State::Waiting { obstacle, .. } = &mut self.state
            && obstacle.reason == now.reason
        {
            *obstacle = now;
            return false;
        }
        let (pod, reason) = (&self.enrolment.pod.name, now.reason);
        if now.is_of_a_start() {
            info!(%pod, reason, "the pod is not enrolled yet: {}", now.text);
        } else {
            warn!(%pod, reason, "the pod is not enrolled: {}", now.text);
        }
        let is_entering = now.reason == "node_network_namespace";
        let is_told = !now.is_of_a_start();
        self.state = State::waiting(now, is_told);
        is_entering
    }

    /// What stands in the way, and whether its owner should hear of it: [`Obstacle::lasts`].
    pub(super) fn obstacle(&self) -> Option<(&Obstacle, bool)> {
        let has_address = !self.enrolment.pod.addresses.is_empty();
        match &self.state {
            State::Waiting { obstacle, since, .. } => {
                Some((obstacle, obstacle.lasts(*since, has_address && !self.had_sandbox)))
            }
            State::Enrolled(_) => None,
        }
    }

    /// Says once that what seemed to be of the pod's start has come to last.
    pub(super) fn tell_lasting(&mut self) {
        let lasts = self.obstacle().is_some_and(|(_, lasts)| lasts);
        if let State::Waiting { obstacle, is_told, .. } = &mut self.state
            && lasts
            && !std::mem::replace(is_told, true)
        {
            let (pod, reason) = (&self.enrolment.pod.name, obstacle.reason);
            warn!(%pod, reason, "the pod is not enrolled: {}", obstacle.text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::obstacle::LASTING_AFTER;
    use super::*;
    use crate::sources::rows::{Enabled, OnEnrol, PodRow};
    use crate::sources::sample;
    use std::sync::Arc;

    #[test]
    fn a_pod_whose_containers_wait_to_be_started_again_is_nothing_to_tell_its_owner() {
        let pod = PodRow { addresses: vec!["10.0.0.1".parse().unwrap()], ..sample::pod("p", Enabled::Yes) };
        let mut wanted = Wanted::new(Enrolment { pod: Arc::new(pod), on_enrol: OnEnrol::Keep });
        let lasts_later = |wanted: &mut Wanted| {
            if let State::Waiting { since, .. } = &mut wanted.state {
                *since = since.checked_sub(LASTING_AFTER).unwrap();
            }
            wanted.obstacle().unwrap().1
        };
        assert!(lasts_later(&mut wanted), "it has an address, and was never found");
        wanted.lose_sandbox();
        assert!(!lasts_later(&mut wanted), "it was found, and has crashed");
        wanted.wait(Obstacle::new("kernel_refuses", ""));
        assert!(lasts_later(&mut wanted), "another matter");
    }
}
