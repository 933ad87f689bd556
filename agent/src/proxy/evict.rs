//! Room for what flows: of a source that has hardly any memory left, what stalls ends, and if that is not enough, whoever has most
//! waiting. So the last eighth of a budget is left for calls for which nothing waits, and such calls alone, where there are so many of
//! them, come to its end: then there is nothing to be ended, and new ones are answered.
//!
//! A budget's bytes are in streams, connections and tunnels; each is ended by itself. The walk that finds them costs as much as
//! the worker has connections, and frees an eighth of a budget where there is that much to free.

use super::budget::Level;
use super::call::Response;
use super::conns::ConnId;
use super::downstream;
use super::engine::Engine;
use crate::http2::ErrorCode;
use crate::telemetry::Flag;
use std::cmp::Reverse;

/// What a connection has waiting at least that is not known to be stuck: above what a busy one that is short of memory makes in
/// advance, so that it is from before.
const BEHIND_BYTES: usize = 16 << 10;

/// Why something may be ended, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// It waits for a window, or for a socket that takes nothing.
    Stalled,
    /// Its socket has not taken what was there before this turn.
    Behind,
    /// It waits for others of its turn, or for the rest of a write.
    Queued,
}

/// What is ended.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Client(u32),
    Answer(u32),
    Request(u32),
    Tunnel(u32),
}

/// Something that could be ended, and what that frees.
#[derive(Debug)]
pub(super) struct Evictable {
    reason: Reason,
    bytes: u64,
    holder: Holder,
}

impl Engine {
    /// Makes room before more is read of a source that has used up its memory.
    pub(super) fn make_room_for_input(&mut self, conn: ConnId) {
        if let Some(budget) = self.conns.budget_of_open(conn)
            && self.budgets.level(budget) == Level::UsedUp
        {
            self.make_room(budget, Reason::Queued);
        }
    }

    /// Makes room where this turn has used up a source's memory; whether anything was ended.
    pub(super) fn make_room_where_none_is(&mut self) -> bool {
        let mut budgets = std::mem::take(&mut self.without_room);
        self.budgets.used_up(&mut budgets);
        let mut has_ended = false;
        for budget in budgets.drain(..) {
            has_ended |= self.make_room(budget, Reason::Queued);
        }
        self.without_room = budgets;
        has_ended
    }

    /// Ends what has stalled, of the sources that have hardly any memory left.
    pub(super) fn end_stalled(&mut self) {
        let mut budgets = std::mem::take(&mut self.without_room);
        self.budgets.full(&mut budgets);
        for budget in budgets.drain(..) {
            self.make_room(budget, Reason::Stalled);
        }
        self.without_room = budgets;
    }

    /// Ends what there is of the reasons up to this one until the source has an eighth of its memory again; whether it ended anything.
    fn make_room(&mut self, budget: u32, up_to: Reason) -> bool {
        if !self.budgets.may_make_room(budget, self.now_ns) {
            return false;
        }
        let mut found = std::mem::take(&mut self.evictable);
        self.find_evictable(budget, &mut found);
        found.retain(|evictable| evictable.reason <= up_to);
        found.sort_unstable_by_key(|evictable| (evictable.reason, Reverse(evictable.bytes)));
        let mut has_ended = false;
        for evictable in found.drain(..) {
            if self.budgets.excess(budget) == 0 {
                break;
            }
            has_ended |= self.evict(budget, evictable.holder);
        }
        found.clear();
        self.evictable = found;
        if self.budgets.level(budget) == Level::UsedUp {
            self.budgets.found_no_room(budget, self.now_ns);
        }
        has_ended
    }

    fn find_evictable(&self, budget: u32, found: &mut Vec<Evictable>) {
        let now = self.now_ns;
        let mut add = |reason, bytes: u64, holder| found.push(Evictable { reason, bytes, holder });
        let is_stuck = |conn| self.conns.is_stuck(conn, now) || self.conns.is_stuck_in_kernel(conn, now);
        let reason_of = |is_stalled| if is_stalled { Reason::Stalled } else { Reason::Queued };
        for (index, slot) in &self.downstreams {
            let conn = slot.conn;
            if self.conns.budget(conn) != budget || slot.phase >= downstream::Phase::Closing {
                continue;
            }
            if is_stuck(conn) {
                add(Reason::Stalled, self.conns.charged(conn), Holder::Client(index as u32));
                continue;
            }
            if slot.http2.output().len() >= BEHIND_BYTES && self.conns.has_waited(conn, now, 1) {
                add(Reason::Behind, self.conns.charged(conn), Holder::Client(index as u32));
            }
            for (call, bytes, has_window) in slot.http2.queues() {
                add(reason_of(!has_window), bytes as u64, Holder::Answer(call));
            }
        }
        for (_, slot) in &self.upstreams {
            if self.conns.budget(slot.conn) == budget {
                let is_stuck = self.conns.is_stuck(slot.conn, now);
                for (call, bytes, has_window) in slot.http2.queues() {
                    add(reason_of(is_stuck || !has_window), bytes as u64, Holder::Request(call));
                }
            }
        }
        for (index, slot) in &self.tunnels {
            let (client, server) = slot.conns();
            if self.conns.budget(client) != budget {
                continue;
            }
            let bytes = self.conns.charged(client) + self.conns.charged(server);
            if is_stuck(client) || is_stuck(server) {
                add(Reason::Stalled, bytes, Holder::Tunnel(index as u32));
            } else if [client, server].into_iter().any(|conn| self.conns.has_waited(conn, now, 1)) {
                add(Reason::Behind, bytes, Holder::Tunnel(index as u32));
            }
        }
    }

    /// Whether it was still there to be ended.
    fn evict(&mut self, budget: u32, holder: Holder) -> bool {
        match holder {
            Holder::Client(downstream) => {
                self.counters.stalled_clients += 1;
                self.count_memory_refusal(budget);
                self.cancel_calls(downstream, Flag::ClientStalled);
                self.lose_downstream(downstream, true);
            }
            Holder::Answer(call) | Holder::Request(call) if self.calls.find(call).is_none() => return false,
            Holder::Answer(call) => {
                let conn = self.downstreams[self.calls[call].downstream as usize].conn;
                if self.calls[call].response == Response::Complete {
                    self.count_memory_refusal(budget);
                    self.cut_call(call, ErrorCode::EnhanceYourCalm, Flag::Memory);
                } else {
                    self.fail_for_memory(call);
                }
                self.charge(conn);
            }
            Holder::Request(call) => {
                let conn = self.conn_of_server(call);
                self.fail_for_memory(call);
                if let Some(conn) = conn {
                    self.charge(conn);
                }
            }
            Holder::Tunnel(tunnel) => {
                self.count_memory_refusal(budget);
                self.end_tunnel(tunnel, true);
            }
        }
        true
    }
}
