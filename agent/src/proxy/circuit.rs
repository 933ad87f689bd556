//! Circuit breakers: how much a source may have under way to one Service port, so that what floods one Service, or waits for one
//! that hangs, does not take the node from the others. Beyond a limit a call is answered at once, with the limit's name.

use super::engine::Engine;
use super::error_reply::Cause;
use super::shared_use::Circuit;
use crate::mesh::CircuitLimits;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// Which limit keeps the circuit open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    Calls,
    Pending,
    Connections,
}

impl fmt::Display for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calls => "calls under way",
            Self::Pending => "waiting calls",
            Self::Connections => "connections to servers",
        })
    }
}

/// Counts one more, unless there are `limit` already.
pub(super) fn enter(count: &AtomicU32, limit: u32) -> bool {
    // Workers may be beyond the limit together for a moment, and then all of them are refused.
    let admitted = count.fetch_add(1, Relaxed) < limit;
    if !admitted {
        count.fetch_sub(1, Relaxed);
    }
    admitted
}

impl Engine {
    /// Counts a call that begins. If there are too many, it is answered, and this is false.
    pub(super) fn enter_circuit(&mut self, call: u32) -> bool {
        let target = self.calls[call].target;
        let limit = self.circuit_limits(target).calls;
        let slot = &mut self.calls[call];
        let circuit = &self.targets.slots[target as usize].circuit;
        slot.in_circuit = enter(&circuit.calls, limit);
        if slot.in_circuit {
            return true;
        }
        self.break_circuit(call, Breaker::Calls, limit);
        false
    }

    /// The call is over, or at least its outcome is known.
    pub(super) fn leave_circuit(&mut self, call: u32) {
        self.leave_pending(call);
        let slot = &mut self.calls[call];
        let circuit = &self.targets.slots[slot.target as usize].circuit;
        if std::mem::take(&mut slot.in_circuit) {
            circuit.calls.fetch_sub(1, Relaxed);
        }
        if std::mem::take(&mut slot.in_retries) {
            circuit.retries.fetch_sub(1, Relaxed);
        }
    }

    /// Counts a call that has to wait. If there are too many, it is not to, and has to be answered: [`Self::refuse_pending`].
    pub(super) fn enter_pending(&mut self, call: u32) -> bool {
        let slot = &self.calls[call];
        if slot.is_pending {
            return true;
        }
        let target = slot.target;
        let limit = self.circuit_limits(target).pending;
        let circuit = &self.targets.slots[target as usize].circuit;
        let is_pending = enter(&circuit.pending, limit);
        self.calls[call].is_pending = is_pending;
        is_pending
    }

    /// Answers a call that cannot wait.
    pub(super) fn refuse_pending(&mut self, call: u32) {
        let limit = self.circuit_limits(self.calls[call].target).pending;
        self.break_circuit(call, Breaker::Pending, limit);
    }

    /// The call waits no more, if it did.
    pub(super) fn leave_pending(&mut self, call: u32) {
        let slot = &mut self.calls[call];
        if std::mem::take(&mut slot.is_pending) {
            let circuit = &self.targets.slots[slot.target as usize].circuit;
            circuit.pending.fetch_sub(1, Relaxed);
        }
    }

    /// The circuit in which a connection for the target's calls counts; `None` if there are too many.
    pub(super) fn enter_connection(&self, target: u32) -> Option<Arc<Circuit>> {
        let circuit = &self.targets.slots[target as usize].circuit;
        enter(&circuit.connections, self.circuit_limits(target).connections).then(|| Arc::clone(circuit))
    }

    /// The Service's own limits, and for what it does not say those of the flags.
    fn circuit_limits(&self, target: u32) -> CircuitLimits {
        let flags = self.protection.circuit;
        let destination = self.targets.slots[target as usize].destination.as_ref();
        destination.map_or(flags, |destination| destination.backend.balancing.circuit_breaker.over(flags))
    }

    /// Answers calls for which no connection can be opened.
    pub(super) fn refuse_connection(&mut self, calls: impl IntoIterator<Item = u32>) {
        for call in calls {
            self.calls[call].stage = super::call::Stage::Answered;
            let limit = self.circuit_limits(self.calls[call].target).connections;
            self.break_circuit(call, Breaker::Connections, limit);
        }
    }

    fn break_circuit(&mut self, call: u32, breaker: Breaker, limit: u32) {
        self.counters.circuit_refusals += 1;
        self.answer(call, Cause::Circuit { breaker, limit });
    }
}
