//! Everything that is known, and what follows from it.

use super::delta::Delta;
use super::view::{EndpointView, IdsView, PodView, ServiceView};
use crate::mesh::{Backend, DestinationId, ServicePort, Snapshot};
use crate::sources::Problem;
use crate::sources::rows::Change;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// What the world does not learn from rows.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This node's name. Pods of other nodes are not enrolled; `None`: all pods are this node's.
    pub node: Option<Arc<str>>,
    /// The agent's own pod, which is never enrolled.
    pub own_pod_uid: Option<Arc<str>>,
    /// How many destinations the kernel's maps hold: ids are below it.
    pub destinations: u32,
    /// Service ports that are asked for by name, be they gRPC or not: [`World::backend`] knows these too.
    pub explicit_ports: Vec<ServicePort>,
}

/// Everything that is known, and what follows from it.
#[derive(Debug)]
pub struct World {}

impl World {
    /// A world of which nothing is known yet.
    pub fn new(settings: Settings) -> Self {
        let _ = settings;
        todo!()
    }

    /// Takes over what a previous worker process left in the kernel: `live` is the map of destinations; `named` are the
    /// ids that the kernel still has an original address for. To be called before the first [`Self::apply`]. What the
    /// first batch does not want any more, its delta removes.
    pub fn restore(
        &mut self,
        live: impl IntoIterator<Item = (SocketAddr, DestinationId)>,
        named: impl IntoIterator<Item = DestinationId>,
        now: Instant,
    ) {
        let _ = (live.into_iter().count(), named.into_iter().count(), now);
        todo!()
    }

    /// Applies a batch as a whole. Costs what the changes touch, however much else is known.
    pub fn apply(&mut self, changes: Vec<Change>) -> Delta {
        drop(changes);
        todo!()
    }

    /// To be called when a delta's `retired` ids are out of the kernel's map of destinations: their quarantine begins.
    pub fn removed_from_kernel(&mut self, ids: &[DestinationId], now: Instant) {
        let _ = (ids, now);
        todo!()
    }

    /// Ends the quarantine of ids whose time is over and that no connection carries, and returns them: they are not in
    /// [`Self::snapshot`] any more, which is to be published, and the kernel may forget their original addresses. They
    /// are used again at the earliest after the next call of this method. To be called from time to time.
    pub fn quarantine_over(
        &mut self,
        now: Instant,
        in_use: impl Fn(DestinationId) -> u64,
    ) -> Vec<DestinationId> {
        let _ = (now, in_use(DestinationId::new(0).unwrap()));
        todo!()
    }

    /// The state to publish.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        todo!()
    }

    /// Where calls to a Service port go: one that is gRPC, or one of [`Settings::explicit_ports`]. `None`: there is no such
    /// Service port. Of a dual-stack Service, the primary family's endpoints, if it has any. Ask again after each batch.
    pub fn backend(&self, port: &ServicePort) -> Option<Arc<Backend>> {
        let _ = port;
        todo!()
    }

    /// What is wrong with the rows as a whole: addresses that two Services claim, ids that are used up.
    pub fn problems(&self) -> Vec<Problem> {
        todo!()
    }

    /// The Services, by name.
    pub fn services(&self) -> Vec<ServiceView> {
        todo!()
    }

    /// The endpoints of all Service ports that have a backend, by Service port and address.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        todo!()
    }

    /// The pods, by name, each with the decision on it.
    pub fn pods(&self) -> Vec<PodView> {
        todo!()
    }

    /// How the ids of destinations are used.
    pub fn ids(&self) -> IdsView {
        todo!()
    }
}
