//! The connections to one endpoint from one pod's network namespace.
//!
//! Opened on demand; another one when the server's limit on concurrent streams is reached (gRFC A105), up to a cap, then
//! calls queue; retired on GOAWAY and when the endpoint is gone; closed when idle.

use super::PAUSE_READING_BYTES;
use super::call::{NOWHERE, Stage};
use super::conns::Role;
use super::engine::{Action, Engine};
use super::error_reply::{Cause, Oversized};
use super::finish::Verdict;
use super::probe;
use super::shared_use::Circuit;
use super::target::Origin;
use super::upstream::{Phase, Upstream};
use crate::balance::Observation;
use crate::http2::{Connection, OpenError};
use crate::telemetry::RetryCause;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// Connections to one endpoint from one pod on one worker: beyond this, calls queue for a stream. Servers allow 100
/// streams a connection or more, so this is some 800 calls in flight to one endpoint.
const MAX_CONNECTIONS: usize = 8;
/// Two SYN retransmissions (after 1 s and 3 s) have gone unanswered: another endpoint is tried.
pub(super) const CONNECT_TIMEOUT_NS: u64 = 4_000_000_000;
/// How long an endpoint is passed over after a connection to it could not be opened; doubles up to the maximum.
const BACK_OFF_NS: u64 = 100_000_000;
pub(super) const MAX_BACK_OFF_NS: u64 = 5_000_000_000;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) origin: Origin,
    pub(super) address: SocketAddr,
    /// Whose memory its connections hold.
    pub(super) budget: u32,
    /// Targets that lead here. None: the endpoint is gone, or nobody has called it for a time.
    pub(super) targets: u32,
    pub(super) connections: Vec<u32>,
    /// Of the connections, those that are not ready yet.
    pub(super) opening: u32,
    /// Calls that wait for a stream, in their order.
    pub(super) waiting: VecDeque<u32>,
    /// The target whose call the last connection was opened for.
    wanted_by: u32,
    pub(super) failures: u32,
    /// Until when calls go elsewhere if they can.
    pub(super) back_off_until_ns: u64,
    /// How often the endpoint may be asked whether it lives.
    pub(super) probe_every_ns: u64,
}

impl Pool {
    pub(super) fn new(origin: Origin, address: SocketAddr, budget: u32) -> Self {
        Self {
            origin,
            address,
            budget,
            targets: 0,
            connections: Vec::new(),
            opening: 0,
            waiting: VecDeque::new(),
            wanted_by: NOWHERE,
            failures: 0,
            back_off_until_ns: 0,
            probe_every_ns: probe::EVERY_NS,
        }
    }
}

impl Engine {
    /// Sends a call that has its endpoint on its way: at once if a connection takes it, else it waits for one.
    pub(super) fn place(&mut self, call: u32, pool: u32) {
        self.calls[call].pool = pool;
        self.calls[call].sent_ns = self.now_ns;
        if self.pools[pool as usize].waiting.is_empty() && self.open_in_pool(call, pool) {
            return;
        }
        self.calls[call].stage = Stage::AwaitingStream;
        if !self.enter_pending(call) {
            self.calls[call].stage = Stage::Answered;
            return self.refuse_pending(call);
        }
        self.pools[pool as usize].waiting.push_back(call);
        self.dial_if_needed(pool);
    }

    /// Calls that wait get the streams that have become free.
    pub(super) fn serve_waiting(&mut self, pool: u32) {
        if !self.pools.contains(pool as usize) {
            return;
        }
        while let Some(&call) = self.pools[pool as usize].waiting.front() {
            if !self.open_in_pool(call, pool) {
                break;
            }
            self.pools[pool as usize].waiting.pop_front();
        }
        self.dial_if_needed(pool);
        self.tidy_pool(pool);
    }

    /// The earlier connections first, so that those that are not needed any more get idle.
    fn open_in_pool(&mut self, call: u32, pool: u32) -> bool {
        for position in 0..self.pools[pool as usize].connections.len() {
            let upstream = self.pools[pool as usize].connections[position];
            if self.can_open(upstream) && self.open(call, upstream) {
                return true;
            }
        }
        false
    }

    fn can_open(&self, upstream: u32) -> bool {
        let upstream = &self.upstreams[upstream as usize];
        // Header lists know no flow control: a server that does not read, and a client that opens and resets streams, would
        // make the output grow without end.
        upstream.phase == Phase::Ready
            && upstream.http2.can_open()
            && upstream.http2.output().len() <= PAUSE_READING_BYTES
    }

    /// Opens the call's stream and sends what is held of the request. False if the connection does not take it.
    fn open(&mut self, call: u32, upstream: u32) -> bool {
        let slot = &mut self.calls[call];
        if let Some(timeout) = slot.timeout_ns {
            let mut buffer = [0; 16];
            let spent = self.now_ns - slot.arrived_ns;
            if let Some(remaining) = super::deadline::remaining(timeout, spent, &mut buffer) {
                slot.request.set(crate::http2::Name::GrpcTimeout, remaining);
                self.charge_call(call);
            }
        }
        let slot = &mut self.calls[call];
        let connection = &mut self.upstreams[upstream as usize];
        let limit = connection.http2.peer_max_header_list();
        if slot.request.size() > limit as usize
            && let Some(trace) = slot.trace.take()
        {
            // No call fails for the sake of its span. What fails in any case has one.
            trace.take_back(&mut slot.request);
            slot.trace = (slot.request.size() > limit as usize).then_some(trace);
        }
        if slot.request.size() > limit as usize {
            let by = self.pools[slot.pool as usize].address;
            self.answer(call, Cause::TooLarge(Oversized::RequestForServer { by, limit }));
            return true;
        }
        let nothing_follows = slot.request_ended && slot.body.is_empty() && slot.trailers.is_none();
        let offset = connection.sent_total + connection.http2.output().len() as u64;
        let stream = match connection.http2.open(&slot.request, nothing_follows, call) {
            Ok(stream) => stream,
            Err(OpenError::AtPeerLimit) => return false,
            Err(OpenError::GoingAway | OpenError::IdsExhausted) => {
                self.retire_upstream(upstream);
                return false;
            }
        };
        slot.stage = Stage::Open { upstream, stream };
        slot.sent_ns = self.now_ns;
        slot.sent_offset = offset;
        if slot.measured.first_sent_ns == 0 {
            slot.measured.first_sent_ns = self.now_ns;
        }
        slot.request_sent = 0;
        connection.has_served = true;
        slot.upstream_position = connection.calls.len() as u32;
        connection.calls.push(call);
        let conn = connection.conn;
        self.conns.touch(conn);
        self.leave_pending(call);
        if !nothing_follows {
            self.send_held(call);
        }
        true
    }

    fn dial_if_needed(&mut self, pool: u32) {
        let slot = &self.pools[pool as usize];
        if slot.waiting.is_empty() || slot.opening > 0 || slot.targets == 0 {
            return;
        }
        let live = self.live_connections(pool);
        // Calls that have connections to wait for can wait until the endpoint takes another one.
        let backs_off = live > 0 && slot.back_off_until_ns > self.now_ns;
        if live >= MAX_CONNECTIONS || backs_off {
            return;
        }
        match self.enter_connection_of_waiting(pool) {
            Some((circuit, target)) => {
                self.pools[pool as usize].wanted_by = target;
                self.dial(pool, circuit);
            }
            None if live == 0 => {
                let waiting = std::mem::take(&mut self.pools[pool as usize].waiting);
                self.refuse_connection(waiting);
            }
            // They wait for the connections that there are.
            None => {}
        }
    }

    /// The circuit in which a connection for the calls that wait counts, and whose it is: the first one's, unless that is at its limit
    /// and another's is not. `None` if all are.
    fn enter_connection_of_waiting(&mut self, pool: u32) -> Option<(Arc<Circuit>, u32)> {
        let slot = &self.pools[pool as usize];
        // A pool is as a rule of one target, which is asked once.
        let mut refused = Vec::new();
        for &call in &slot.waiting {
            let target = self.calls[call].target;
            if refused.contains(&target) {
                continue;
            }
            if let Some(circuit) = self.enter_connection(target) {
                return Some((circuit, target));
            }
            refused.push(target);
            if refused.len() >= slot.targets as usize {
                break;
            }
        }
        None
    }

    /// Tries again where calls wait and an earlier attempt to open a connection failed.
    pub(super) fn sweep_pools(&mut self) {
        for (pool, slot) in &self.pools {
            if !slot.waiting.is_empty() {
                self.pools_to_serve.push(pool as u32);
            }
        }
    }

    /// Connections that take calls, or will once they are open.
    fn live_connections(&self, pool: u32) -> usize {
        let connections = &self.pools[pool as usize].connections;
        connections.iter().filter(|u| self.upstreams[**u as usize].phase <= Phase::Ready).count()
    }

    fn dial(&mut self, pool: u32, circuit: Arc<Circuit>) {
        let slot = &mut self.pools[pool as usize];
        let entry = self.upstreams.vacant_entry();
        let upstream = entry.key() as u32;
        let conn = self.conns.insert(Role::Upstream(upstream), slot.budget, self.now_ns);
        entry.insert(Upstream::new(conn, pool, Connection::client(&self.limits), circuit));
        slot.connections.push(upstream);
        slot.opening += 1;
        self.counters.connects += 1;
        self.conn_timers.set(conn.0, self.now_ns + CONNECT_TIMEOUT_NS);
        self.actions.push(Action::Connect { conn, pod: slot.origin.pod(), address: slot.address });
        // Its preface waits already.
        self.charge(conn);
    }

    /// A connection could not be opened.
    pub(super) fn upstream_refused(&mut self, upstream: u32) {
        let pool = self.upstreams[upstream as usize].pool;
        self.remove_upstream(upstream, false);
        self.endpoint_refused(pool);
        self.tidy_pool(pool);
    }

    /// The endpoint takes no connection: unless another one serves them, the calls that waited for it go elsewhere.
    pub(super) fn endpoint_refused(&mut self, pool: u32) {
        let slot = &mut self.pools[pool as usize];
        slot.failures = slot.failures.saturating_add(1);
        let back_off = (BACK_OFF_NS << slot.failures.saturating_sub(1).min(16)).min(MAX_BACK_OFF_NS);
        slot.back_off_until_ns = self.now_ns + back_off;
        if self.live_connections(pool) == 0 {
            let address = self.pools[pool as usize].address;
            if self.pools[pool as usize].waiting.is_empty() {
                self.observe_refusal(pool);
            }
            for call in std::mem::take(&mut self.pools[pool as usize].waiting) {
                self.leave_endpoint(call, Verdict::LostConnection);
                self.calls[call].stage = Stage::Answered;
                self.calls[call].tried.push(address);
                self.charge_call(call);
                self.reconnect(call, address);
            }
        }
    }

    /// The calls that it was opened for have given up meanwhile: their endpoint has failed all the same.
    fn observe_refusal(&mut self, pool: u32) {
        let slot = &self.pools[pool as usize];
        let Some(target) = self.targets.slots.get_mut(slot.wanted_by as usize) else { return };
        let Some(destination) = &target.destination else { return };
        // Another target may stand in its place.
        let is_its = |index: &usize| target.candidates.pools[*index] == pool;
        let Some(index) = target.candidates.position(slot.address).filter(is_its) else { return };
        let load = Arc::clone(&target.candidates.endpoints[index].load);
        let (index, backend, source) = (index as u32, &destination.backend, target.source);
        let lost = Observation::LostConnection;
        if target.candidates.observe(index, &load, lost, backend, source, self.now_ns) {
            self.counters.ejections += 1;
            tracing::info!(endpoint = %slot.address, "ejected: no connection to it could be opened");
        }
    }

    /// A target does not lead here any more, because of its endpoint's removal or because it has done with it.
    pub(super) fn leave_pool(&mut self, pool: u32, is_removed: bool) {
        let slot = &mut self.pools[pool as usize];
        slot.targets -= 1;
        if slot.targets > 0 {
            return;
        }
        let (connections, address) = (slot.connections.clone(), slot.address);
        // What has not been sent goes to an endpoint that is still there.
        for call in std::mem::take(&mut slot.waiting) {
            self.leave_endpoint(call, Verdict::None);
            self.calls[call].stage = Stage::Answered;
            self.note_retry(call, address, RetryCause::EndpointGone);
            self.dispatch(call);
        }
        for upstream in connections {
            self.retire_upstream(upstream);
            if is_removed {
                self.watch(upstream);
            }
        }
        self.tidy_pool(pool);
    }

    /// No call any more goes to this connection; it closes when its streams have ended.
    pub(super) fn retire_upstream(&mut self, upstream: u32) {
        let slot = &mut self.upstreams[upstream as usize];
        match slot.phase {
            Phase::Connecting | Phase::Greeting => self.remove_upstream(upstream, true),
            Phase::Ready => {
                slot.phase = Phase::Retiring;
                let (conn, pool) = (slot.conn, slot.pool);
                self.conns.touch(conn);
                self.pools_to_serve.push(pool);
            }
            Phase::Retiring | Phase::Closing => {}
        }
    }

    /// Takes a connection that has no calls any more out of everything, and closes it.
    pub(super) fn remove_upstream(&mut self, upstream: u32, reset: bool) {
        let slot = self.upstreams.remove(upstream as usize);
        debug_assert!(slot.calls.is_empty());
        let pool = &mut self.pools[slot.pool as usize];
        pool.connections.retain(|other| *other != upstream);
        if slot.phase < Phase::Ready {
            pool.opening -= 1;
        }
        self.pools_to_serve.push(slot.pool);
        self.close(slot.conn, reset);
    }

    /// Resets the connections to servers of an origin that has ended. Its clients are gone, and its calls with them.
    pub(super) fn reset_upstreams(&mut self, origin: &Origin) {
        self.ledger.homes.forget(&origin.key());
        let of_origin = |upstream: &Upstream| self.pools[upstream.pool as usize].origin.is(origin);
        let upstreams: Vec<u32> =
            self.upstreams.iter().filter(|(_, u)| of_origin(u)).map(|(index, _)| index as u32).collect();
        for upstream in upstreams {
            self.remove_upstream(upstream, true);
        }
    }

    fn tidy_pool(&mut self, pool: u32) {
        let Some(slot) = self.pools.get(pool as usize) else { return };
        if slot.targets == 0 && slot.connections.is_empty() && slot.waiting.is_empty() {
            self.forget_pool(pool);
        }
    }

    /// A call that waited for a stream does not need one any more.
    pub(super) fn leave_queue(&mut self, call: u32) {
        let waiting = &mut self.pools[self.calls[call].pool as usize].waiting;
        if let Some(position) = waiting.iter().position(|other| *other == call) {
            waiting.remove(position);
        }
    }

    /// The next endpoint for a call whose connection was refused.
    fn reconnect(&mut self, call: u32, last: SocketAddr) {
        let slot = &self.calls[call];
        let tried = slot.tried.len();
        if tried >= super::call::MAX_ENDPOINTS || slot.is_out_of_time(self.now_ns) {
            self.answer(call, Cause::Refused { last, tried: tried as u32 });
        } else {
            self.note_retry(call, last, RetryCause::ConnectionRefused);
            self.dispatch(call);
        }
    }
}
