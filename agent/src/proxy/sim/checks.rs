//! What must hold in a world: of its memory at each step, of its calls when all have ended, and of what is left when everybody has gone.

use super::{MS, World};
use std::sync::atomic::Ordering::Relaxed;

/// What a connection may hold beyond its source's budget: it is there, a frame's beginning has come, the answers to its calls that are
/// refused wait for it, and what it was sent before.
const EXCUSED_BYTES: u64 = 48 << 10;
/// What comes in a step, as a header list and as its encoded form.
const STEP_BYTES: u64 = 140_000;

impl World {
    /// What is charged is what a walk over everything finds, and a source holds no more than its budget and what its connections may
    /// hold in any case: the kernel's buffers, a frame's beginning, and what came in the step.
    pub(super) fn check_memory(&self) {
        let found = self.engine.walk();
        for (budget, held) in self.engine.budgets.held() {
            let found = found.get(&budget).copied().unwrap_or(0);
            assert_eq!(held, found, "bytes of budget {budget}: charged, and found");
            let of_budget = self.engine.conns.all().filter(|(_, of)| *of == budget);
            let excused: u64 = of_budget
                .map(|(conn, _)| EXCUSED_BYTES + u64::from(self.engine.conns.kernel_bytes(conn)))
                .sum();
            let limit = self.engine.budgets.limit(budget);
            assert!(held <= limit + excused + STEP_BYTES, "{held} bytes of {limit}, and {excused} excused");
        }
    }

    pub(super) fn check_results(&self) {
        for (index, (story, tally)) in self.stories.iter().zip(&self.tally).enumerate() {
            story.check(tally, self.faults, self.endpoints.len()).unwrap_or_else(|wrong| {
                panic!("call {index}: {wrong}\n{story:?}\n{tally:?}\n{:?}", self.faults)
            });
        }
        let counters = self.engine.counters();
        // A call whose answer is still on its way to the client has its outcome, and its slot.
        let calls = self.engine.downstreams.iter().flat_map(|(_, downstream)| &downstream.calls);
        let without_outcome = calls.filter(|call| self.engine.calls[**call].outcome.is_none()).count() as u64;
        let outcomes = counters.answered + counters.own_errors + counters.cancelled;
        assert_eq!(counters.calls, outcomes + without_outcome);
    }

    /// All clients go, time passes: every slab is empty, and no endpoint counts a call as under way.
    pub(super) fn check_nothing_is_left(&mut self) {
        for link in self.links.values_mut() {
            link.to_engine_ends = true;
        }
        for conn in std::mem::take(&mut self.floods).into_keys() {
            self.links.remove(&conn);
            self.engine.failed(conn);
            self.settle();
        }
        for conn in self.clients.keys().copied().collect::<Vec<_>>() {
            while self.links.get(&conn).is_some_and(|link| !link.to_engine_ended)
                && !self.links[&conn].is_stuck(&self.engine, conn)
            {
                self.deliver_to_engine(conn, 100_000);
                self.settle();
            }
            if self.links.contains_key(&conn) {
                self.links.remove(&conn);
                self.clients.remove(&conn);
                self.engine.failed(conn);
                self.settle();
            }
        }
        assert_eq!(self.engine.calls.len(), 0, "calls are left");
        for (_, target) in &self.engine.targets.slots {
            let circuit = &target.circuit;
            assert_eq!(
                (circuit.calls.load(Relaxed), circuit.pending.load(Relaxed)),
                (0, 0),
                "calls are counted"
            );
        }
        self.check_memory();
        for endpoint in &self.endpoints {
            assert_eq!(endpoint.load.active(), 0, "calls count as under way at {}", endpoint.address);
        }
        for _ in 0..200 {
            self.now_ns += 1_000 * MS;
            self.engine.tick(self.now_ns);
            self.settle();
            for conn in self.servers.keys().copied().collect::<Vec<_>>() {
                self.flush_engine(conn, 100_000);
                self.settle();
                self.deliver_to_peer(conn, 100_000);
            }
        }
        let engine = &self.engine;
        assert_eq!(engine.client_connections(), 0, "client connections are left");
        assert!(!self.drains || engine.is_drained());
        assert_eq!(engine.upstreams.len(), 0, "connections to servers are left");
        assert_eq!(engine.pools.len(), 0, "pools are left");
        assert_eq!(engine.targets.slots.len(), 0, "targets are left");
        assert_eq!(engine.budgets.held().count(), 0, "budgets are left");
        assert_eq!(engine.call_timers.next_in_ns(self.now_ns), None, "a call's timer is left");
        assert_eq!(engine.conn_timers.next_in_ns(self.now_ns), None, "a connection's timer is left");
        assert!(self.links.is_empty(), "sockets are left");
    }
}
