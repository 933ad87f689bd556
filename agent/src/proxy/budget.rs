//! What each source's connections and calls hold in memory on this worker, and, through [`super::shared_use`], on the node.
//!
//! Nothing is estimated: connections and calls know the capacity of whatever grows, and are charged the difference when it has
//! changed: a connection (its queues, output, header tables and streams, and what the kernel's buffers hold of it) when a turn has
//! touched it, a call when its fields or its body change. The sums are plain integers; workers that serve one pod meet in one atomic
//! number, once a turn.
//!
//! As a budget fills, these things happen, in this order: windows stop growing and little is written in advance
//! ([`Level::Tight`]); calls that would have to be queued end, and what has stalled ([`Level::Full`]): the last eighth is for calls
//! that flow; whoever has most waiting ends, and where nobody has, new calls are answered at once, and those end for which anything
//! comes ([`Level::UsedUp`]). Each ends a call or a connection of that source, and of no other. [`super::evict`] chooses them.

use super::call::Call;
use super::conns::{ConnId, Role};
use super::engine::Engine;
use super::error_reply::Cause;
use super::shared_use::{PodUse, Registry};
use super::target::Origin;
use crate::http2::Thrift;
use crate::mesh::PodKey;
use crate::mesh::Protection;
use rustc_hash::FxHashMap;
use slab::Slab;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A header list beyond this is charged when it has gone to an output, and not at the turn's end only.
const LARGE_LIST_BYTES: usize = 4 << 10;

/// How much of its budget a source uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ample,
    /// From a half on.
    Tight,
    /// From seven eighths on: what is left is for calls that flow.
    Full,
    /// All of it.
    UsedUp,
}

impl Level {
    pub(super) fn thrift(self, is_stuck: bool) -> Thrift {
        match self {
            Self::Ample => Thrift::Ample,
            Self::Full | Self::UsedUp if is_stuck => Thrift::Strict,
            Self::Tight | Self::Full | Self::UsedUp => Thrift::Frugal,
        }
    }
}

#[derive(Debug)]
struct Budget {
    key: Option<PodKey>,
    limit: u64,
    /// By this worker.
    held: u64,
    /// As much of it as the other workers know.
    published: u64,
    changed: bool,
    /// Looks in a row that have found its memory tight.
    tight_looks: u32,
    /// When nothing was found that could be ended for room.
    no_room_ns: u64,
    /// The last turn in which this worker did something for it, and how much.
    turn: u64,
    turn_work: usize,
    /// Targets and pools that are charged to it.
    users: u32,
    shared: Arc<PodUse>,
}

impl Budget {
    /// By all workers: by this one now, by the others as of their last turns.
    fn held_everywhere(&self) -> u64 {
        self.held + self.shared.held.load(Relaxed).saturating_sub(self.published)
    }

    fn full_at(&self) -> u64 {
        self.limit / 8 * 7
    }
}

/// Where nothing could be ended for room, nothing is looked for again before this: it is a walk over all connections.
const NO_ROOM_NS: u64 = 1_000_000;

/// The budgets of all sources that this worker serves.
#[derive(Debug)]
pub(super) struct Budgets {
    slots: Slab<Budget>,
    by_key: FxHashMap<Option<PodKey>, u32>,
    changed: Vec<u32>,
    registry: Arc<Registry<Option<PodKey>, PodUse>>,
    limits: Protection,
}

impl Budgets {
    pub(super) fn new(limits: Protection, registry: Arc<Registry<Option<PodKey>, PodUse>>) -> Self {
        Self { slots: Slab::new(), by_key: FxHashMap::default(), changed: Vec::new(), registry, limits }
    }

    /// The source's budget, with one more user.
    pub(super) fn join(&mut self, origin: &Origin) -> u32 {
        let key = origin.key();
        let slots = &mut self.slots;
        let (registry, limits) = (&self.registry, &self.limits);
        let budget = *self.by_key.entry(key).or_insert_with_key(|key| {
            let limit = if key.is_some() { limits.pod_memory } else { limits.own_memory };
            let shared = registry.of(key.clone());
            let budget = Budget {
                key: key.clone(),
                limit,
                held: 0,
                published: 0,
                changed: false,
                tight_looks: 0,
                no_room_ns: 0,
                turn: 0,
                turn_work: 0,
                users: 0,
                shared,
            };
            slots.insert(budget) as u32
        });
        self.slots[budget as usize].users += 1;
        budget
    }

    /// A user is gone.
    pub(super) fn leave(&mut self, budget: u32) {
        let slot = &mut self.slots[budget as usize];
        slot.users -= 1;
        if slot.users == 0 {
            debug_assert_eq!(slot.held, 0, "bytes are charged to nobody");
            slot.shared.held.fetch_sub(slot.published, Relaxed);
            let gone = self.slots.remove(budget as usize);
            self.by_key.remove(&gone.key);
        }
    }

    /// Something that held `from` bytes holds `to`.
    #[inline]
    pub(super) fn shift(&mut self, budget: u32, from: u64, to: u64) {
        if from == to {
            return;
        }
        let slot = &mut self.slots[budget as usize];
        slot.held = slot.held + to - from;
        if !slot.changed {
            slot.changed = true;
            self.changed.push(budget);
        }
    }

    #[inline]
    pub(super) fn level(&self, budget: u32) -> Level {
        let slot = &self.slots[budget as usize];
        let held = slot.held_everywhere();
        if held < slot.limit / 2 {
            Level::Ample
        } else if held < slot.full_at() {
            Level::Tight
        } else if held < slot.limit {
            Level::Full
        } else {
            Level::UsedUp
        }
    }

    /// What has to go before the source is no longer at [`Level::Full`].
    pub(super) fn excess(&self, budget: u32) -> u64 {
        let slot = &self.slots[budget as usize];
        (slot.held_everywhere() + 1).saturating_sub(slot.full_at())
    }

    /// Whether it is time to look for something that can be ended for room.
    pub(super) fn may_make_room(&self, budget: u32, now_ns: u64) -> bool {
        let slot = &self.slots[budget as usize];
        slot.no_room_ns == 0 || now_ns - slot.no_room_ns >= NO_ROOM_NS
    }

    /// Notes that there was nothing, or nothing more.
    pub(super) fn found_no_room(&mut self, budget: u32, now_ns: u64) {
        self.slots[budget as usize].no_room_ns = now_ns;
    }

    /// Counts a look at each source's memory.
    pub(super) fn look(&mut self) {
        for (_, slot) in &mut self.slots {
            let is_tight = slot.held_everywhere() >= slot.limit / 2;
            slot.tight_looks = if is_tight { slot.tight_looks.saturating_add(1) } else { 0 };
        }
    }

    /// Whether the source's memory is tight, and has been between so many looks.
    pub(super) fn has_been_tight(&self, budget: u32, looks: u32) -> bool {
        self.slots[budget as usize].tight_looks > looks && self.level(budget) >= Level::Tight
    }

    /// Counts what is done for the source in a turn.
    pub(super) fn note_work(&mut self, budget: u32, work: usize, turn: u64) {
        let slot = &mut self.slots[budget as usize];
        if slot.turn != turn {
            (slot.turn, slot.turn_work) = (turn, 0);
        }
        slot.turn_work += work;
    }

    /// What was done for the source in this turn.
    pub(super) fn work_in_turn(&self, budget: u32, turn: u64) -> usize {
        let slot = &self.slots[budget as usize];
        if slot.turn == turn { slot.turn_work } else { 0 }
    }

    /// The sources that changed since the last turn and have used up their memory.
    pub(super) fn used_up(&self, into: &mut Vec<u32>) {
        let is_used_up =
            |budget: &&u32| self.slots.contains(**budget as usize) && self.level(**budget) == Level::UsedUp;
        into.extend(self.changed.iter().filter(is_used_up));
    }

    /// The sources that have hardly any memory left.
    pub(super) fn full(&self, into: &mut Vec<u32>) {
        let all = self.slots.iter().map(|(budget, _)| budget as u32);
        into.extend(all.filter(|budget| self.level(*budget) >= Level::Full));
    }

    /// What is charged to all sources, by this worker.
    pub(super) fn held_bytes(&self) -> u64 {
        self.slots.iter().map(|(_, slot)| slot.held).sum()
    }

    pub(super) fn limit(&self, budget: u32) -> u64 {
        self.slots[budget as usize].limit
    }

    pub(super) fn count_refusal(&self, budget: u32) {
        self.slots[budget as usize].shared.refused.fetch_add(1, Relaxed);
    }

    /// Tells the other workers what has changed.
    pub(super) fn publish(&mut self) {
        for budget in self.changed.drain(..) {
            // One that nobody is charged to any more is gone.
            let Some(slot) = self.slots.get_mut(budget as usize) else { continue };
            slot.changed = false;
            let change = slot.held.wrapping_sub(slot.published);
            slot.shared.held.fetch_add(change, Relaxed);
            slot.published = slot.held;
        }
    }

    /// What is charged, by source: for tests that count for themselves.
    #[cfg(test)]
    pub(super) fn held(&self) -> impl Iterator<Item = (u32, u64)> {
        self.slots.iter().map(|(index, budget)| (index as u32, budget.held))
    }
}

impl Engine {
    /// What the kernel's buffers hold of a connection, both directions: the driver asks it, and says what has changed.
    pub fn kernel_holds(&mut self, conn: ConnId, bytes: u32) {
        if self.conns.set_kernel_bytes(conn, bytes, self.now_ns) {
            self.charge(conn);
        }
    }

    /// Charges the connection's source what the connection holds now.
    pub(super) fn charge(&mut self, conn: ConnId) {
        let held = self.held_by(conn);
        let (budget, before) = self.conns.set_charged(conn, held);
        self.budgets.shift(budget, before, held);
    }

    fn held_by(&self, conn: ConnId) -> u64 {
        let held = match self.conns.role(conn) {
            Role::Downstream(downstream) => self.downstreams[downstream as usize].held_bytes(),
            Role::Upstream(upstream) => self.upstreams[upstream as usize].held_bytes(),
            Role::TunnelClient(tunnel) => self.tunnels[tunnel as usize].held_bytes(true),
            Role::TunnelServer(tunnel) => self.tunnels[tunnel as usize].held_bytes(false),
            Role::Sniffing(_) => 0,
            Role::Closed => return 0,
        };
        held as u64 + u64::from(self.conns.kernel_bytes(conn))
    }

    /// Charges the call's source what the call holds now.
    pub(super) fn charge_call(&mut self, call: u32) {
        let slot = &mut self.calls[call];
        let held = slot.held_bytes() as u32;
        let before = std::mem::replace(&mut slot.charged, held);
        self.budgets.shift(slot.budget, before.into(), held.into());
    }

    /// The call is over.
    pub(super) fn release_call_charge(&mut self, call: u32) {
        let Call { budget, charged, .. } = &mut self.calls[call];
        let charged = std::mem::take(charged);
        self.budgets.shift(*budget, charged.into(), 0);
    }

    /// How a connection is to go about its memory.
    pub(super) fn thrift_of(&self, conn: ConnId) -> Thrift {
        self.budgets.level(self.conns.budget(conn)).thrift(self.conns.is_stuck(conn, self.now_ns))
    }

    /// The level of a call's source.
    pub(super) fn level_of_call(&self, call: u32) -> Level {
        self.budgets.level(self.calls[call].budget)
    }

    /// Bytes of the call went to this connection, all but `queued` of them. If its source has no room for what waits, the call ends:
    /// whether it has. What only waits for the others of its own turn does not count as waiting; `has_window`: nor for a window;
    /// `is_last`: nor for more to come.
    pub(super) fn has_no_room(
        &mut self,
        call: u32,
        conn: ConnId,
        queued: usize,
        has_window: bool,
        is_last: bool,
    ) -> bool {
        if queued > 0 {
            self.charge(conn);
        }
        let ends = match self.level_of_call(call) {
            Level::Ample | Level::Tight => false,
            Level::Full => queued > 0 && (!has_window || self.conns.is_stuck(conn, self.now_ns)),
            Level::UsedUp => queued > 0 || !is_last,
        };
        if ends {
            self.fail_for_memory(call);
        }
        ends
    }

    /// A header list of the call has come that is to go on. No window bounds these: if its source has no room for it, the call ends:
    /// whether it has. The end of an answer makes room, if it is not large.
    pub(super) fn has_no_room_for_list(&mut self, call: u32, is_last: bool) -> bool {
        let ends =
            self.level_of_call(call) == Level::UsedUp && !(is_last && self.fields.size() <= LARGE_LIST_BYTES);
        if ends {
            self.fail_for_memory(call);
        }
        ends
    }

    /// A header list went to the connection's output: a large one is charged at once, as many fit into a turn's input.
    pub(super) fn charge_list(&mut self, conn: ConnId) {
        if self.fields.size() > LARGE_LIST_BYTES {
            self.charge(conn);
        }
    }

    pub(super) fn count_memory_refusal(&mut self, budget: u32) {
        self.budgets.count_refusal(budget);
        self.counters.memory_refusals += 1;
    }

    /// Ends a call for which its source has no room.
    pub(super) fn fail_for_memory(&mut self, call: u32) {
        let budget = self.calls[call].budget;
        self.count_memory_refusal(budget);
        let limit = self.budgets.limit(budget);
        self.give_up(call, Cause::Memory { limit });
    }

    /// What a walk over everything finds to be held, by budget.
    #[cfg(test)]
    pub(super) fn walk(&self) -> FxHashMap<u32, u64> {
        let mut found = FxHashMap::default();
        for (conn, budget) in self.conns.all() {
            *found.entry(budget).or_default() += self.held_by(conn);
        }
        for (_, downstream) in &self.downstreams {
            for &call in &downstream.calls {
                *found.entry(self.calls[call].budget).or_default() += self.calls[call].held_bytes() as u64;
            }
        }
        found
    }
}
