//! The call path of one worker thread, without I/O: bytes, events and the time go in, bytes and [`Action`]s come out.
//!
//! The driver (a worker thread, or the simulator) owns the sockets and names each by the [`ConnId`] it got here. A turn is:
//! [`Engine::set_time`], any number of inputs, [`Engine::expire`], [`Engine::settle`], the actions, and one flush for each
//! connection that [`Engine::settle`] named. This file has the slabs and hands each input to the file of the connection's
//! role, `conns` knows what that is, and `settle` has the outputs; a client's bytes go on in [`super::downstream`].

use super::budget::Budgets;
use super::call::{Calls, Stage};
use super::conns::{ConnId, Conns, Role};
use super::counters::Counters;
use super::downstream::{Downstream, Sniffing};
use super::drain::Drain;
use super::evict::Evictable;
use super::pool::Pool;
use super::shared_use::Ledger;
use super::stall;
use super::target::{Origin, Target, Targets};
use super::timers::Timers;
use super::tunnel::Tunnel;
use super::upstream::Upstream;
use crate::balance::Random;
use crate::http2::{FieldList, Limits, Progress};
use crate::mesh::Protection;
use crate::mesh::{DestinationId, Pod, Snapshot};
use crate::telemetry::{Audience, Telemetry};
use slab::Slab;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the driver is asked to do.
#[derive(Debug)]
pub enum Action {
    /// Connect to `address` from the pod's network namespace (`None`: from the agent's own), and report with
    /// [`Engine::connected`] or [`Engine::connect_failed`].
    Connect {
        /// The new connection.
        conn: ConnId,
        /// Whose namespace.
        pod: Option<Arc<Pod>>,
        /// Where to.
        address: SocketAddr,
    },
    /// Shut the writing half down: everything that was to be sent has been sent.
    ShutdownWrite {
        /// Of which connection.
        conn: ConnId,
    },
    /// Read again: [`Engine::reads`] was false and is true now.
    Resume {
        /// Which connection.
        conn: ConnId,
    },
    /// Close the socket if there is one, with a TCP reset if asked, and report with [`Engine::closed`].
    Close {
        /// Which connection.
        conn: ConnId,
        /// SO_LINGER 0: both sides forget the connection at once.
        reset: bool,
    },
}

/// The call path of one worker thread.
pub struct Engine {
    pub(super) now_ns: u64,
    pub(super) random: Random,
    pub(super) limits: Limits,
    pub(super) share_upstreams: bool,
    pub(super) protection: Protection,
    pub(super) ledger: Ledger,
    /// Where ended calls are counted.
    pub(super) telemetry: Option<Arc<Telemetry>>,
    /// Who wants to hear of single calls.
    pub(super) audience: Arc<Audience>,
    pub(super) budgets: Budgets,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) conns: Conns,
    pub(super) sniffing: Slab<Sniffing>,
    pub(super) downstreams: Slab<Downstream>,
    pub(super) tunnels: Slab<Tunnel>,
    pub(super) upstreams: Slab<Upstream>,
    pub(super) calls: Calls,
    pub(super) targets: Targets,
    pub(super) pools: Slab<Pool>,
    /// Pools in which a call that waits may go on.
    pub(super) pools_to_serve: Vec<u32>,
    pub(super) call_timers: Timers,
    pub(super) conn_timers: Timers,
    pub(super) actions: Vec<Action>,
    pub(super) counters: Counters,
    pub(super) drain: Option<Drain>,
    /// What the HTTP/2 layer decodes header lists into.
    pub(super) fields: FieldList,
    /// What the agent's own answers are made in.
    pub(super) reply: FieldList,
    pub(super) progress: Vec<Progress>,
    /// Buffers of tunnels that hold nothing at the moment.
    pub(super) spare_buffers: Vec<Vec<u8>>,
    /// Calls that began in the input in hand.
    pub(super) received: Vec<u32>,
    /// Calls that stall.
    pub(super) slow: Vec<u32>,
    /// What may be ended for want of memory.
    pub(super) evictable: Vec<Evictable>,
    pub(super) without_room: Vec<u32>,
    /// Turns so far.
    pub(super) turn: u64,
    /// Frames that the last input brought.
    pub(super) input_frames: u32,
    expired: Vec<u32>,
    swept_ns: u64,
    looked_ns: u64,
    /// Of the connections, those that are looked at next.
    pub(super) look_slice: usize,
}

/// How often targets that nobody uses, and pools whose calls wait, are looked for.
const SWEEP_NS: u64 = 1_000_000_000;

impl Engine {
    /// An engine that knows no destination yet. `seed` decides every random choice that it makes.
    pub fn new(limits: Limits, seed: u64, now_ns: u64) -> Self {
        let (protection, ledger) = (Protection::default(), Ledger::default());
        Self {
            budgets: Budgets::new(protection, Arc::clone(&ledger.memory)),
            protection,
            ledger,
            telemetry: None,
            audience: Arc::default(),
            received: Vec::new(),
            slow: Vec::new(),
            evictable: Vec::new(),
            without_room: Vec::new(),
            look_slice: 0,
            looked_ns: now_ns,
            now_ns,
            random: Random::new(seed),
            limits,
            share_upstreams: false,
            snapshot: Arc::default(),
            conns: Conns::default(),
            sniffing: Slab::new(),
            downstreams: Slab::new(),
            tunnels: Slab::new(),
            upstreams: Slab::new(),
            calls: Calls::default(),
            targets: Targets::default(),
            pools: Slab::new(),
            pools_to_serve: Vec::new(),
            call_timers: Timers::new(now_ns),
            conn_timers: Timers::new(now_ns),
            actions: Vec::new(),
            counters: Counters::default(),
            drain: None,
            fields: FieldList::new(),
            reply: FieldList::new(),
            progress: Vec::new(),
            spare_buffers: Vec::new(),
            turn: 0,
            input_frames: 0,
            expired: Vec::new(),
            swept_ns: now_ns,
        }
    }

    /// Has calls of all origins share connections to servers, which are then the agent's own.
    #[must_use]
    pub fn sharing_upstreams(mut self, share: bool) -> Self {
        self.share_upstreams = share;
        self
    }

    /// Counts the calls that end.
    #[must_use]
    pub fn counting(mut self, telemetry: Option<Arc<Telemetry>>) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// Tells of the calls that end, whoever wants to hear of them.
    #[must_use]
    pub fn telling(mut self, audience: Arc<Audience>) -> Self {
        self.audience = audience;
        self
    }

    /// Holds each source of calls to these limits, together with the engines that share the ledger.
    #[must_use]
    pub(super) fn protected(mut self, protection: Protection, ledger: Ledger) -> Self {
        self.protection = protection;
        self.budgets = Budgets::new(protection, Arc::clone(&ledger.memory));
        self.ledger = ledger;
        self
    }

    // ---- inputs

    /// Begins a turn: moves the clock (monotonic nanoseconds).
    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.turn += 1;
    }

    /// Does what has become due. This comes behind the turn's inputs: where the driver was kept from its work, peers that have
    /// answered meanwhile have answered in time.
    pub fn expire(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.call_timers.expire(self.now_ns, &mut expired);
        for call in expired.drain(..) {
            self.call_timer_fired(call);
        }
        self.conn_timers.expire(self.now_ns, &mut expired);
        for conn in expired.drain(..) {
            self.conn_timer_fired(ConnId(conn));
        }
        self.expired = expired;
        if self.drain.as_mut().is_some_and(|drain| drain.is_to_end(self.now_ns)) {
            self.drain_is_over();
        }
        if self.now_ns - self.swept_ns >= SWEEP_NS {
            self.swept_ns = self.now_ns;
            self.sweep_targets();
            self.sweep_pools();
        }
        if self.now_ns - self.looked_ns >= stall::SLICE_EVERY_NS {
            self.looked_ns = self.now_ns;
            self.look_for_stalls();
        }
    }

    /// What connections and calls hold, in bytes.
    pub fn held_bytes(&self) -> u64 {
        self.budgets.held_bytes()
    }

    /// Lets go of what is only kept so that it need not be made again.
    pub fn trim(&mut self) {
        self.spare_buffers = Vec::new();
        self.calls.trim();
        self.fields = FieldList::new();
        self.conns.trim();
        self.downstreams.shrink_to_fit();
        self.upstreams.shrink_to_fit();
        self.tunnels.shrink_to_fit();
        self.sniffing.shrink_to_fit();
    }

    /// How long the driver may sleep at most, if nothing else happens; `None`: as long as it likes.
    pub fn next_tick_in_ns(&self, now_ns: u64) -> Option<u64> {
        let timers =
            self.call_timers.next_in_ns(now_ns).into_iter().chain(self.conn_timers.next_in_ns(now_ns));
        timers.min()
    }

    /// A turn without inputs.
    #[cfg(test)]
    pub(super) fn tick(&mut self, now_ns: u64) {
        self.set_time(now_ns);
        self.expire();
    }

    /// Takes in a new state of the world.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.snapshot = snapshot;
        self.update_targets();
    }

    /// A connection was accepted. `None` if its destination is not known: close it with a reset.
    pub fn accepted(&mut self, origin: Origin, destination: DestinationId) -> Option<ConnId> {
        self.counters.accepted += 1;
        let Some(target) = self.join_target(origin, destination) else {
            self.counters.unknown_destination += 1;
            return None;
        };
        Some(self.start_sniffing(target))
    }

    /// Moves the start of a frame that an earlier read ended in to the front of the read buffer; its length.
    pub fn restore(&mut self, conn: ConnId, buffer: &mut [u8]) -> usize {
        match self.conns.role(conn) {
            Role::Downstream(downstream) => self.downstreams[downstream as usize].http2.restore(buffer),
            Role::Upstream(upstream) => self.upstreams[upstream as usize].http2.restore(buffer),
            _ => 0,
        }
    }

    /// Nothing came behind what [`Self::restore`] put there.
    pub fn put_back(&mut self, conn: ConnId, held: &[u8]) {
        match self.conns.role(conn) {
            Role::Downstream(downstream) => self.downstreams[downstream as usize].http2.keep(held),
            Role::Upstream(upstream) => self.upstreams[upstream as usize].http2.keep(held),
            _ => {}
        }
    }

    /// Bytes were read: those that [`Self::restore`] put there, and what came behind them.
    pub fn receive(&mut self, conn: ConnId, input: &[u8]) {
        self.make_room_for_input(conn);
        self.input_frames = 0;
        match self.conns.role(conn) {
            Role::Sniffing(sniffing) => self.sniff(sniffing, input),
            Role::Downstream(downstream) => self.receive_downstream(downstream, input),
            Role::Upstream(upstream) => self.receive_upstream(upstream, input),
            Role::TunnelClient(tunnel) => self.receive_tunnel(tunnel, true, input),
            Role::TunnelServer(tunnel) => self.receive_tunnel(tunnel, false, input),
            Role::Closed => {}
        }
    }

    /// The peer has ended its half.
    pub fn eof(&mut self, conn: ConnId) {
        match self.conns.role(conn) {
            Role::Sniffing(sniffing) => self.sniffing_ended(sniffing),
            Role::Downstream(downstream) => self.lose_downstream(downstream, false),
            Role::Upstream(upstream) => self.lose_upstream(upstream),
            Role::TunnelClient(tunnel) => self.tunnel_half_ended(tunnel, true),
            Role::TunnelServer(tunnel) => self.tunnel_half_ended(tunnel, false),
            Role::Closed => {}
        }
    }

    /// The connection broke: a reset, a time-out.
    pub fn failed(&mut self, conn: ConnId) {
        match self.conns.role(conn) {
            Role::Sniffing(sniffing) => self.drop_sniffing(sniffing),
            Role::Downstream(downstream) => self.lose_downstream(downstream, true),
            Role::Upstream(upstream) => self.lose_upstream(upstream),
            Role::TunnelClient(tunnel) => self.tunnel_failed(tunnel, true),
            Role::TunnelServer(tunnel) => self.tunnel_failed(tunnel, false),
            Role::Closed => {}
        }
    }

    /// [`Action::Connect`] has succeeded.
    pub fn connected(&mut self, conn: ConnId) {
        match self.conns.role(conn) {
            Role::Upstream(upstream) => self.upstream_connected(upstream),
            Role::TunnelServer(tunnel) => self.tunnel_connected(tunnel),
            _ => {}
        }
    }

    /// [`Action::Connect`] has failed.
    pub fn connect_failed(&mut self, conn: ConnId) {
        self.counters.connect_failures += 1;
        match self.conns.role(conn) {
            Role::Upstream(upstream) => self.upstream_refused(upstream),
            Role::TunnelServer(tunnel) => self.end_tunnel(tunnel, true),
            _ => {}
        }
    }

    /// [`Action::Close`] is done: the id is free for another connection.
    pub fn closed(&mut self, conn: ConnId) {
        debug_assert_eq!(self.conns.role(conn), Role::Closed);
        self.conns.remove(conn);
    }

    /// Resets every connection of a pod, or of a fixed listener's destination. For a pod that is all there is of it, those
    /// to servers too: an ordinary close would keep the network namespace alive for as long as the kernel tries to deliver
    /// it.
    pub fn end_origin(&mut self, origin: &Origin, destination: Option<DestinationId>) {
        for target in self.targets.of_origin(origin, destination) {
            self.end_target(target);
        }
        if destination.is_none() {
            self.reset_upstreams(origin);
        }
    }

    // ---- shared by the files of the roles

    /// The connection is over: its socket is closed, its timer cleared, its output forgotten.
    pub(super) fn close(&mut self, conn: ConnId, reset: bool) {
        self.conns.set_role(conn, Role::Closed);
        self.charge(conn);
        self.conn_timers.clear(conn.0);
        self.actions.push(Action::Close { conn, reset });
    }

    /// Reads a connection whose output has grown out of bounds again once it has drained.
    pub(super) fn pause_at(&mut self, conn: ConnId, output_bytes: usize) {
        if self.conns.set_paused(conn, output_bytes > super::PAUSE_READING_BYTES) {
            self.actions.push(Action::Resume { conn });
        }
    }

    fn conn_timer_fired(&mut self, conn: ConnId) {
        match self.conns.role(conn) {
            Role::Sniffing(sniffing) => self.relay_silent(sniffing),
            Role::Downstream(downstream) => self.downstream_timer_fired(downstream),
            Role::Upstream(upstream) => self.upstream_timer_fired(upstream),
            Role::TunnelClient(_) | Role::TunnelServer(_) | Role::Closed => {}
        }
    }

    pub(super) fn target_of_call(&mut self, call: u32) -> &mut Target {
        debug_assert!(self.calls[call].stage != Stage::Free);
        let target = self.calls[call].target;
        &mut self.targets.slots[target as usize]
    }
}
