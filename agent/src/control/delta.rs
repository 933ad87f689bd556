//! What a batch of changes asks for, and in which order.

use super::enrolment::NotEnrolled;
use crate::mesh::{DestinationId, Snapshot};
use crate::sources::Problem;
use crate::sources::rows::{OnEnrol, PodRow};
use std::net::SocketAddr;
use std::sync::Arc;

/// What has to be done after a batch of changes, in the order of the fields. Deltas are carried out whole, one after the
/// other.
#[derive(Debug, Default)]
pub struct Delta {
    /// First: publish this, and wait until every worker has it, so that no connection comes to a worker that does not know
    /// its id. `None`: the data path has nothing to learn.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Second: write these into the kernel's map of destinations, over whatever stands there for the address.
    pub add: Vec<(SocketAddr, DestinationId)>,
    /// Third: mark these in it as without an endpoint, over whatever stands there for the address: their connections go straight,
    /// and are counted as such.
    pub without_endpoint: Vec<(SocketAddr, DestinationId)>,
    /// Fourth: delete these addresses from it: their connections go straight from now on.
    pub remove: Vec<SocketAddr>,
    /// Fifth: tell [`World::removed_from_kernel`](super::World::removed_from_kernel) of these ids: the map leads to
    /// none of them any more. Connections may carry them still. If one of the second to fourth steps failed, the map may lead to
    /// some of them yet: those are told of when it does no more.
    pub retired: Vec<DestinationId>,
    /// Sixth: enrol these pods.
    pub enrol: Vec<Enrolment>,
    /// Pods that stay enrolled, whose row is another now.
    pub change: Vec<Enrolment>,
    /// Pods, by UID, that are not to be enrolled any more.
    pub withdraw: Vec<Arc<str>>,
}

/// A pod that somebody asked to be enrolled and that can't be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The pod.
    pub pod: Arc<PodRow>,
    /// Why not.
    pub reason: NotEnrolled,
}

impl Refused {
    pub(super) fn problem(&self) -> Problem {
        let Self { pod, reason } = self;
        Problem::warning(Some(format!("Pod {}", pod.name)), format!("{}: {reason}", reason.name()))
    }
}

impl Delta {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none()
            && self.add.is_empty()
            && self.without_endpoint.is_empty()
            && self.remove.is_empty()
            && self.retired.is_empty()
            && self.enrol.is_empty()
            && self.change.is_empty()
            && self.withdraw.is_empty()
    }
}

/// A pod that is to be enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The pod.
    pub pod: Arc<PodRow>,
    /// What to do with the connections that it had before.
    pub on_enrol: OnEnrol,
}
