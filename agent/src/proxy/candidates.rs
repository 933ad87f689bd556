//! The endpoints that the calls of one target may go to: all of its backend's, or of very many a part; where those nearby fail,
//! some that are farther. And what this source's calls have met at each.
//!
//! [`super::dispatch`] picks one of them, whose [`super::pool`] it finds here.

use super::call::NOWHERE;
use super::engine::Engine;
use super::pool::MAX_BACK_OFF_NS;
use crate::balance::{Ejections, Observation, Random, Subset, spill};
use crate::mesh::{Backend, Endpoint, Load};
use std::net::SocketAddr;
use std::sync::Arc;

/// How long calls may go farther after all endpoints nearby refused connections: as long as the longest back-off.
const SPILL_NS: u64 = MAX_BACK_OFF_NS;

/// A pool that calls go to no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) pool: u32,
    /// Its endpoint is none of the backend's any more. Else only this source has done with it.
    pub(super) is_removed: bool,
}

/// What has changed with a choice.
#[derive(Debug)]
pub(super) struct Chosen {
    /// The pools of candidates that are none any more.
    pub(super) gone: Vec<Left>,
    /// There were candidates that are none any more, or another pod's.
    pub(super) lost_any: bool,
}

#[derive(Debug)]
pub(super) struct Candidates {
    /// Sorted by address.
    pub(super) endpoints: Arc<[Arc<Endpoint>]>,
    /// The pool of each, or [`NOWHERE`] before its first call.
    pub(super) pools: Vec<u32>,
    /// Which are passed over, as they fail.
    pub(super) ejections: Ejections,
    pub(super) subset: Subset,
    /// Which are farther away than hints want it; empty while all calls stay near.
    far: Vec<bool>,
    /// The part of the calls that may go to those too.
    spill_share: f64,
    /// Until when that is all of them, whoever is ejected.
    spills_until_ns: u64,
}

impl Candidates {
    pub(super) fn new(backend: &Backend, seed: u64, source: u64, now_ns: u64) -> Self {
        let subset = Subset::new(seed, now_ns);
        let endpoints = subset.of(&backend.endpoints, backend.balancing.picker);
        let mut ejections = Ejections::new(endpoints.len(), reach(backend));
        ejections.learn_who_is_out(backend.balancing.ejection, &endpoints, source, now_ns);
        Self {
            pools: vec![NOWHERE; endpoints.len()],
            endpoints,
            ejections,
            subset,
            far: Vec::new(),
            spill_share: 0.0,
            spills_until_ns: 0,
        }
    }

    /// Chooses anew among the backend's endpoints.
    pub(super) fn choose(&mut self, backend: &Backend, source: u64, now_ns: u64) -> Chosen {
        let picker = backend.balancing.picker;
        // Keys stay with the endpoints nearby.
        let spills = self.spill_share > 0.0 && !backend.wider.is_empty() && !picker.is_by_hash();
        let mut endpoints = self.subset.of(&backend.endpoints, picker);
        if spills {
            let mut both = [&*endpoints, &*self.subset.of(&backend.wider, picker)].concat();
            both.sort_by_key(|endpoint| endpoint.address);
            both.dedup_by_key(|endpoint| endpoint.address);
            endpoints = both.into();
        }
        let mut pools = vec![NOWHERE; endpoints.len()];
        let (mut gone, mut same, mut lost_any) = (Vec::new(), Vec::new(), false);
        for (position, (endpoint, &pool)) in self.endpoints.iter().zip(&self.pools).enumerate() {
            let found = find(&endpoints, endpoint);
            lost_any |= !found.is_ok_and(|index| goes_on(endpoint, &endpoints[index]));
            match found {
                Ok(index) => {
                    pools[index] = pool;
                    if Arc::ptr_eq(&endpoints[index].load, &endpoint.load) {
                        same.push((index, position));
                    }
                }
                Err(_) if pool != NOWHERE => {
                    let is_removed =
                        [&backend.endpoints, &backend.wider].iter().all(|of| find(of, endpoint).is_err());
                    gone.push(Left { pool, is_removed });
                }
                Err(_) => {}
            }
        }
        let (count, of) = (endpoints.len(), reach(backend));
        self.ejections = Ejections::carried_over(&self.ejections, count, of, same.into_iter());
        let is_far = |endpoint: &Arc<Endpoint>| find(&backend.endpoints, endpoint).is_err();
        self.far = if spills { endpoints.iter().map(is_far).collect() } else { Vec::new() };
        if !spills {
            self.spill_share = 0.0;
        }
        self.endpoints = endpoints;
        self.pools = pools;
        debug_assert!(!picker.is_by_hash() || self.endpoints.len() == backend.endpoints.len());
        self.ejections.learn_who_is_out(backend.balancing.ejection, &self.endpoints, source, now_ns);
        Chosen { gone, lost_any }
    }

    /// Whether there is no endpoint to take in.
    pub(super) fn has_all(&self, backend: &Backend) -> bool {
        let all = if self.far.is_empty() { &backend.endpoints } else { &backend.wider };
        self.endpoints.len() >= all.len()
    }

    /// Whether there are farther endpoints that no call goes to.
    pub(super) fn could_spill(&self, backend: &Backend) -> bool {
        self.far.is_empty() && !backend.wider.is_empty() && !backend.balancing.picker.is_by_hash()
    }

    /// The index of the endpoint at this address.
    pub(super) fn position(&self, address: SocketAddr) -> Option<usize> {
        self.endpoints.binary_search_by_key(&address, |endpoint| endpoint.address).ok()
    }

    /// Whether the next call stays near though others may go farther.
    pub(super) fn stays_near(&self, random: &mut Random) -> bool {
        !self.far.is_empty() && random.unit() >= self.spill_share
    }

    pub(super) fn is_far(&self, endpoint: usize) -> bool {
        self.far.get(endpoint).is_some_and(|is_far| *is_far)
    }

    /// What a call says about the endpoint that had this index when it was sent there; true if that is left out from now on.
    pub(super) fn observe(
        &mut self,
        endpoint: u32,
        load: &Arc<Load>,
        observation: Observation,
        backend: &Backend,
        source: u64,
        now_ns: u64,
    ) -> bool {
        let is_it = |index: &usize| {
            self.endpoints.get(*index).is_some_and(|endpoint| Arc::ptr_eq(&endpoint.load, load))
        };
        // The list may have changed since.
        let index = Some(endpoint as usize).filter(is_it).or_else(|| (0..self.endpoints.len()).find(is_it));
        let Some(index) = index else { return false };
        let rule = backend.balancing.ejection;
        self.ejections.observe(index, observation, rule, &self.endpoints, source, now_ns)
    }

    /// Looks, about once a second, who is out and whether more or fewer endpoints are needed. Which were ejected, and whether
    /// to [choose](Self::choose) anew.
    fn review(&mut self, backend: &Backend, source: u64, now_ns: u64) -> (Vec<usize>, bool) {
        let rule = backend.balancing.ejection;
        let ejected = self.ejections.review(rule, &self.endpoints, source, now_ns);
        let in_panic = self.ejections.in_panic(now_ns);
        // What has grown because of a panic has few calls in flight, and shrinks when that is over.
        let mut changes = !in_panic && self.subset.review(now_ns);
        if in_panic && !self.has_all(backend) {
            self.subset.enlarge();
            changes = true;
        }
        let may_change = self.ejections.any_out(now_ns) || !self.far.is_empty();
        if may_change && !backend.wider.is_empty() && !backend.balancing.picker.is_by_hash() {
            let near = (0..self.endpoints.len()).filter(|index| !self.is_far(*index)).count();
            let left = self.ejections.left(|index| !self.is_far(index), now_ns);
            let spilled = !self.far.is_empty();
            self.spill_share = if now_ns < self.spills_until_ns { 1.0 } else { spill::share(left, near) };
            changes |= spilled != (self.spill_share > 0.0);
        }
        (ejected, changes)
    }
}

/// How many endpoints the calls to a backend could go to, were all others out.
fn reach(backend: &Backend) -> usize {
    if backend.balancing.picker.is_by_hash() || backend.wider.is_empty() {
        backend.endpoints.len()
    } else {
        backend.wider.len()
    }
}

/// Whether it is the same pod's, with what is known of it.
fn goes_on(before: &Endpoint, now: &Endpoint) -> bool {
    Arc::ptr_eq(&before.load, &now.load) && before.pod == now.pod
}

fn find(endpoints: &[Arc<Endpoint>], endpoint: &Endpoint) -> Result<usize, usize> {
    endpoints.binary_search_by(|other| other.address.cmp(&endpoint.address))
}

impl Engine {
    /// Looks at every target's candidates.
    pub(super) fn review_candidates(&mut self) {
        let targets: Vec<u32> = self.targets.slots.iter().map(|(index, _)| index as u32).collect();
        for target in targets {
            let slot = &mut self.targets.slots[target as usize];
            let Some(destination) = &slot.destination else { continue };
            let (ejected, changes) = slot.candidates.review(&destination.backend, slot.source, self.now_ns);
            self.counters.ejections += ejected.len() as u64;
            for index in ejected {
                let address = slot.candidates.endpoints[index].address;
                tracing::info!(endpoint = %address, "ejected: its success rate is far below the others'");
            }
            if changes {
                self.choose_candidates(target);
            }
        }
    }

    /// Takes in more of the endpoints if the calls in flight want them.
    pub(super) fn fit_candidates(&mut self, target: u32) {
        let slot = &self.targets.slots[target as usize];
        let Some(destination) = &slot.destination else { return };
        let candidates = &slot.candidates;
        if candidates.subset.is_too_small() && !candidates.has_all(&destination.backend) {
            self.enlarge_candidates(target);
        }
    }

    /// Lets all calls go farther for a while: no endpoint nearby takes a connection.
    pub(super) fn spill_candidates(&mut self, target: u32) {
        let candidates = &mut self.targets.slots[target as usize].candidates;
        candidates.spill_share = 1.0;
        candidates.spills_until_ns = self.now_ns + SPILL_NS;
        self.choose_candidates(target);
    }

    /// Takes in more of the endpoints, if there are more.
    pub(super) fn enlarge_candidates(&mut self, target: u32) {
        self.targets.slots[target as usize].candidates.subset.enlarge();
        self.choose_candidates(target);
    }

    fn choose_candidates(&mut self, target: u32) {
        let slot = &mut self.targets.slots[target as usize];
        let gone = slot.choose(self.now_ns);
        for Left { pool, is_removed } in gone {
            self.leave_pool(pool, is_removed);
        }
    }
}
