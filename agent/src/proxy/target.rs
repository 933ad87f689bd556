//! A destination as one pod's connections see it: what every call needs of the snapshot, looked up once a connection and
//! brought up to date when the snapshot changes, so that a call costs no hash.

use super::call::NOWHERE;
use super::candidates::{Candidates, Chosen, Left};
use super::conns::Role;
use super::engine::Engine;
use super::pool::Pool;
use super::shared_use::{Circuit, Home};
use crate::balance::{self, PickerState, Random};
use crate::mesh::{Destination, DestinationId, Picker, Pod, PodKey, ServicePort};
use crate::telemetry::{Link, Methods, Recorder};
use rustc_hash::FxHashMap;
use slab::Slab;
use std::net::SocketAddr;
use std::sync::Arc;

/// Whose connections: in whose network namespace the connections to servers are opened.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A pod's.
    Pod(Arc<Pod>),
    /// The agent's own: `evenkeel proxy`.
    Agent,
}

impl Origin {
    pub(super) fn key(&self) -> Option<PodKey> {
        match self {
            Self::Pod(pod) => Some(pod.key.clone()),
            Self::Agent => None,
        }
    }

    /// Whether both are the same sandbox, or the agent.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pod(this), Self::Pod(other)) => this.key == other.key,
            (Self::Agent, Self::Agent) => true,
            (Self::Pod(_), Self::Agent) | (Self::Agent, Self::Pod(_)) => false,
        }
    }

    /// What a picker starts from for a connection of this origin. A pod is known by its UID, as its address may be told later
    /// than its first call comes; a client of `evenkeel proxy` counts as many sources as it has connections.
    pub(super) fn picker(&self, random: &mut Random) -> PickerState {
        let source = match self {
            Self::Pod(_) => self.source(),
            Self::Agent => random.next(),
        };
        PickerState::new(random, source)
    }

    /// Stands for whose calls fail: a pod's, or those of all clients of `evenkeel proxy`.
    fn source(&self) -> u64 {
        match self {
            Self::Pod(pod) => balance::source_of(&pod.key.uid),
            Self::Agent => 0,
        }
    }

    pub(super) fn as_pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Self::Pod(pod) => Some(pod),
            Self::Agent => None,
        }
    }

    pub(super) fn pod(&self) -> Option<Arc<Pod>> {
        self.as_pod().map(Arc::clone)
    }
}

/// How long the connections to a target's servers are kept after its last client connection: clients reconnect.
const TARGET_IDLE_NS: u64 = 30_000_000_000;

#[derive(Debug)]
pub(super) struct Target {
    pub(super) origin: Origin,
    origin_key: Option<PodKey>,
    /// Stands for whose calls these are, where their failures are counted.
    pub(super) source: u64,
    pub(super) id: DestinationId,
    /// Whose memory its connections and calls hold.
    pub(super) budget: u32,
    /// What the source has under way to its Service port.
    pub(super) circuit: Arc<Circuit>,
    /// `None` once the snapshot does not hold the id any more.
    pub(super) destination: Option<Destination>,
    /// Where the pod's calls go under session affinity, for as long as that serves: whoever joins moves nobody.
    pub(super) home: Home,
    /// The endpoints that its calls may go to.
    pub(super) candidates: Candidates,
    /// Client connections.
    pub(super) connections: u32,
    idle_since_ns: u64,
    /// Calls that wait for an endpoint.
    pub(super) waiting: Vec<u32>,
    pub(super) service_port: ServicePort,
    /// The gRPC methods that were called.
    pub(super) methods: Methods,
    /// What its calls are counted with.
    pub(super) recorder: Option<Recorder>,
    /// Whose calls, and to what, as spans tell it.
    pub(super) link: Arc<Link>,
}

impl Target {
    /// Brings the candidates up to the backend; the pools of those that are none any more. Their series are let go of.
    pub(super) fn choose(&mut self, now_ns: u64) -> Vec<Left> {
        let Some(destination) = &self.destination else { return Vec::new() };
        let Chosen { gone, lost_any } = self.candidates.choose(&destination.backend, self.source, now_ns);
        if let Some(recorder) = &mut self.recorder
            && lost_any
        {
            recorder.keep(self.candidates.endpoints.iter().map(|endpoint| &**endpoint));
        }
        gone
    }
}

impl Target {
    /// Whether all of its calls stay with one endpoint. Each client of `evenkeel proxy` is a source of its own, known by its connection
    /// alone.
    pub(super) fn has_affinity(&self) -> bool {
        let picker = self.destination.as_ref().map(|destination| destination.backend.balancing.picker);
        picker == Some(Picker::SourceHash) && matches!(self.origin, Origin::Pod(_))
    }

    /// Where that is.
    pub(super) fn home(&mut self) -> Option<SocketAddr> {
        if self.has_affinity() { self.home.address() } else { None }
    }
}

#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) slots: Slab<Target>,
    by_key: FxHashMap<(Option<PodKey>, DestinationId), u32>,
    pool_by_key: FxHashMap<(Option<PodKey>, SocketAddr), u32>,
}

impl Targets {
    /// The targets of an origin; with an id, that one alone.
    pub(super) fn of_origin(&self, origin: &Origin, id: Option<DestinationId>) -> Vec<u32> {
        let key = origin.key();
        let matching = self
            .slots
            .iter()
            .filter(|(_, target)| target.origin_key == key && id.is_none_or(|id| target.id == id));
        matching.map(|(index, _)| index as u32).collect()
    }
}

impl Engine {
    /// The target for a client connection, counted as one of its connections; `None` if the destination is unknown.
    pub(super) fn join_target(&mut self, origin: Origin, id: DestinationId) -> Option<u32> {
        let key = (origin.key(), id);
        if let Some(&target) = self.targets.by_key.get(&key) {
            let slot = &mut self.targets.slots[target as usize];
            slot.destination.as_ref()?;
            slot.connections += 1;
            return Some(target);
        }
        let destination = self.snapshot.destinations.get(&id)?.clone();
        let service_port = destination.backend.service_port.clone();
        let circuit = (key.0.clone(), service_port.clone());
        let source = origin.source();
        let pod = origin.as_pod().map(|pod| &**pod);
        let recorder = |telemetry| Recorder::new(Arc::clone(telemetry), pod, service_port.clone());
        let recorder = self.telemetry.as_ref().map(recorder);
        let link = match &recorder {
            Some(recorder) => Arc::clone(recorder.link()),
            None => Arc::new(Link::new(pod, service_port.clone())),
        };
        let target = Target {
            budget: self.budgets.join(&origin),
            home: Home::new(&self.ledger.homes, circuit.clone()),
            circuit: self.ledger.circuits.of(circuit),
            source,
            origin,
            origin_key: key.0.clone(),
            id,
            candidates: Candidates::new(&destination.backend, self.random.next(), source, self.now_ns),
            destination: Some(destination),
            connections: 1,
            idle_since_ns: self.now_ns,
            waiting: Vec::new(),
            service_port,
            methods: recorder.as_ref().map_or_else(Methods::default, Recorder::methods),
            recorder,
            link,
        };
        let target = self.targets.slots.insert(target) as u32;
        self.targets.by_key.insert(key, target);
        Some(target)
    }

    /// A client connection of the target is gone.
    pub(super) fn leave_target(&mut self, target: u32) {
        let slot = &mut self.targets.slots[target as usize];
        slot.connections -= 1;
        slot.idle_since_ns = self.now_ns;
    }

    /// The pool of connections to the target's endpoint with this index.
    pub(super) fn pool_of(&mut self, target: u32, endpoint: usize) -> u32 {
        let slot = &mut self.targets.slots[target as usize];
        if slot.candidates.pools[endpoint] != NOWHERE {
            return slot.candidates.pools[endpoint];
        }
        let address = slot.candidates.endpoints[endpoint].address;
        let owner = if self.share_upstreams { Origin::Agent } else { slot.origin.clone() };
        let pool = *self.targets.pool_by_key.entry((owner.key(), address)).or_insert_with(|| {
            let budget = self.budgets.join(&owner);
            self.pools.insert(Pool::new(owner, address, budget)) as u32
        });
        slot.candidates.pools[endpoint] = pool;
        self.pools[pool as usize].targets += 1;
        pool
    }

    /// Brings every target up to the snapshot.
    pub(super) fn update_targets(&mut self) {
        let snapshot = Arc::clone(&self.snapshot);
        let targets: Vec<u32> = self.targets.slots.iter().map(|(index, _)| index as u32).collect();
        for target in targets {
            let slot = &self.targets.slots[target as usize];
            match (snapshot.destinations.get(&slot.id), &slot.destination) {
                (Some(now), Some(before))
                    if Arc::ptr_eq(&now.backend, &before.backend) && now.original == before.original => {}
                (None, None) => {}
                (Some(now), _) => self.update_target(target, now.clone()),
                (None, Some(_)) => self.end_target(target),
            }
        }
    }

    fn update_target(&mut self, target: u32, destination: Destination) {
        let slot = &mut self.targets.slots[target as usize];
        let has_endpoints = !destination.backend.endpoints.is_empty();
        slot.destination = Some(destination);
        let gone = slot.choose(self.now_ns);
        let waiting = if has_endpoints { std::mem::take(&mut slot.waiting) } else { Vec::new() };
        for Left { pool, is_removed } in gone {
            self.leave_pool(pool, is_removed);
        }
        for call in waiting {
            self.dispatch(call);
        }
    }

    /// The destination is unknown now, or the pod has ended: its connections are reset.
    pub(super) fn end_target(&mut self, target: u32) {
        let owned = |other: u32| other == target;
        let of_role = |engine: &Self| -> Vec<Role> {
            let sniffing = engine.sniffing.iter().filter(|(_, s)| owned(s.target));
            let downstreams = engine.downstreams.iter().filter(|(_, d)| owned(d.target));
            let tunnels = engine.tunnels.iter().filter(|(_, t)| owned(t.target));
            (sniffing.map(|(index, _)| Role::Sniffing(index as u32)))
                .chain(downstreams.map(|(index, _)| Role::Downstream(index as u32)))
                .chain(tunnels.map(|(index, _)| Role::TunnelClient(index as u32)))
                .collect()
        };
        for role in of_role(self) {
            match role {
                Role::Sniffing(sniffing) => self.drop_sniffing(sniffing),
                Role::Downstream(downstream) => self.lose_downstream(downstream, true),
                Role::TunnelClient(tunnel) => self.end_tunnel(tunnel, true),
                Role::Upstream(_) | Role::TunnelServer(_) | Role::Closed => {}
            }
        }
        self.remove_target(target);
    }

    fn remove_target(&mut self, target: u32) {
        let target = self.targets.slots.remove(target as usize);
        debug_assert!(target.connections == 0 && target.waiting.is_empty());
        self.budgets.leave(target.budget);
        self.targets.by_key.remove(&(target.origin_key, target.id));
        for pool in target.candidates.pools.into_iter().filter(|pool| *pool != NOWHERE) {
            self.leave_pool(pool, false);
        }
    }

    /// Forgets targets that no client has been connected to for a time, and looks who is left out of the others.
    pub(super) fn sweep_targets(&mut self) {
        self.review_candidates();
        let idle =
            |target: &Target| target.connections == 0 && self.now_ns - target.idle_since_ns >= TARGET_IDLE_NS;
        let idle: Vec<u32> =
            self.targets.slots.iter().filter(|(_, t)| idle(t)).map(|(index, _)| index as u32).collect();
        for target in idle {
            self.remove_target(target);
        }
    }

    /// A pool that is empty and that no target leads to is forgotten.
    pub(super) fn forget_pool(&mut self, pool: u32) {
        let slot = &self.pools[pool as usize];
        let key = (slot.origin.key(), slot.address);
        // A target that came back meanwhile may have put another pool in its place.
        if self.targets.pool_by_key.get(&key) == Some(&pool) {
            self.targets.pool_by_key.remove(&key);
        }
        let forgotten = self.pools.remove(pool as usize);
        self.budgets.leave(forgotten.budget);
    }
}
