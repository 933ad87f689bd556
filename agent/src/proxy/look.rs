//! What a worker has open at the moment, for people and programs that look: its connections and its calls.
//!
//! Whoever asks sends a command to each worker ([`super::mailbox`]); the engine answers from its slabs between two inputs. A walk over
//! a hundred thousand slots costs a millisecond, and no more rows are made than asked for.

use super::call::{Call, NOWHERE, Response, Stage};
use super::conns::{ConnId, Role};
use super::downstream;
use super::engine::Engine;
use super::upstream;
use crate::http2::Name;
use crate::mesh::{MethodFilter, ObjectName, ServiceFilter};
use rustc_hash::{FxHashMap, FxHashSet};
use schemars::JsonSchema;
use serde::Serialize;
use std::borrow::Cow;
use std::net::SocketAddr;

/// As much of a call's path is shown: gRPC's own are far shorter.
const SHOWN_PATH_BYTES: usize = 256;

/// What somebody wants to see of the connections or calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of this source pod alone.
    pub pod: Option<ObjectName>,
    /// To this Service alone, or one port of it.
    pub service: Option<ServiceFilter>,
    /// Of calls: of this method alone, or of those whose names begin so.
    pub method: Option<MethodFilter>,
    /// The most rows.
    pub rows: usize,
}

/// What one worker shows.
#[derive(Clone, Debug)]
pub struct Shown<T> {
    /// The first so many.
    pub rows: Vec<T>,
    /// How many there are.
    pub total: usize,
}

/// Which side of the agent a connection is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// A pod has opened it.
    Client,
    /// The agent has, to a server.
    Server,
}

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Nothing has been said yet that tells.
    Sniffing,
    /// HTTP/2: its calls are balanced.
    Http2,
    /// Something else, which is relayed untouched.
    Relayed,
}

/// How a connection stands, in the order of its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// TCP's handshake is under way.
    Connecting,
    /// The server's SETTINGS are to come.
    Greeting,
    /// Open.
    Open,
    /// It takes no further calls (GOAWAY), and ends with those that it has.
    Draining,
    /// It ends when what is to be written is written.
    Closing,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ConnectionView {
    /// The worker thread that has it, counted from 0.
    pub worker: usize,
    /// Which side of the agent it is on.
    pub side: Side,
    /// The pod that opened it, or that it was opened for: `namespace/name`. Absent where it is the agent's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The Service port that its calls are for: `namespace/name:port`. Absent for a connection to a server that is no endpoint any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_port: Option<String>,
    /// A client's: what it dialled. A server's: where it listens. Absent where that is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// What is spoken.
    pub protocol: Protocol,
    /// How it stands.
    pub standing: Standing,
    /// Seconds since it was accepted, or since it was begun to be opened.
    pub age_seconds: f64,
    /// Calls on it.
    pub streams: usize,
    /// What it holds in memory, in bytes, the kernel's buffers included.
    pub held_bytes: u64,
    /// Of that, in the kernel's buffers.
    pub kernel_bytes: u32,
    /// Bytes that wait to be written to it.
    pub unwritten_bytes: usize,
    /// Seconds for which its socket has taken nothing of those; absent where it takes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_seconds: Option<f64>,
    /// Whether it is read: not while the other side, or its peer, has to take something first.
    pub is_read: bool,
}

/// Where a call stands on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallStage {
    /// The input that it came in is being read.
    Received,
    /// It waits for an endpoint of its Service.
    AwaitingEndpoint,
    /// It waits for a stream on a connection to its endpoint.
    AwaitingStream,
    /// It failed, and waits for its time to be sent again.
    BackingOff,
    /// It is at its endpoint, which has not answered yet.
    Sent,
    /// Its endpoint has sent response headers, and more is to come.
    Answering,
    /// The server's part is over; the answer may still be on its way to the client.
    Answered,
}

/// A call that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CallView {
    /// The worker thread that has it, counted from 0.
    pub worker: usize,
    /// The pod that makes it: `namespace/name`. Absent for calls through `evenkeel proxy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The Service port that it is for: `namespace/name:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_port: Option<String>,
    /// The endpoint that was chosen for it last; absent before the first choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The pod behind that: `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_pod: Option<String>,
    /// `/package.Service/Method`. Absent where a long request's headers are held no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Whether it is gRPC, rather than another use of HTTP/2.
    pub is_grpc: bool,
    /// Where it stands.
    pub stage: CallStage,
    /// Milliseconds since its headers came.
    pub age_ms: f64,
    /// Milliseconds since its present attempt began; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_age_ms: Option<f64>,
    /// Milliseconds until its deadline, negative behind it; absent where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_left_ms: Option<f64>,
    /// Endpoints that were chosen for it, one after the other.
    pub attempts: u8,
    /// Milliseconds from its headers to the response's; absent before those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_after_ms: Option<f64>,
    /// Bytes of the request's body that came from the client.
    pub request_bytes: u64,
    /// Of gRPC calls, messages in it.
    pub request_messages: u32,
    /// Bytes of the response's body that came from the server.
    pub response_bytes: u64,
    /// Of gRPC calls, messages in it.
    pub response_messages: u32,
    /// Whether the client has sent all of the request.
    pub request_ended: bool,
    /// What it holds in memory, in bytes, but for what waits on its connections.
    pub held_bytes: u32,
}

impl Engine {
    /// The connections that are wanted, as this worker has them.
    pub(super) fn look_at_connections(&self, wanted: &Wanted, worker: usize) -> Shown<ConnectionView> {
        let targets = self.wanted_targets(wanted);
        let target_of_pool = self.targets_by_pool(&targets);
        let mut shown = Shown { rows: Vec::new(), total: 0 };
        for conn in self.conns.ids() {
            let Some((target, kind)) = self.target_of_conn(conn, &target_of_pool) else { continue };
            let is_wanted = match target {
                Some(target) => targets.contains(&target),
                None => wanted.pod.is_none() && wanted.service.is_none(),
            };
            if is_wanted {
                shown.total += 1;
                if shown.rows.len() < wanted.rows {
                    shown.rows.push(self.connection_view(conn, target, kind, worker));
                }
            }
        }
        shown
    }

    /// The calls that are wanted, as this worker has them.
    pub(super) fn look_at_calls(&self, wanted: &Wanted, worker: usize) -> Shown<CallView> {
        let targets = self.wanted_targets(wanted);
        let mut shown = Shown { rows: Vec::new(), total: 0 };
        let is_wanted = |call: &Call| {
            let is_method =
                |filter: &MethodFilter| method(call).is_some_and(|method| filter.takes(method.as_bytes()));
            targets.contains(&call.target) && wanted.method.as_ref().is_none_or(is_method)
        };
        for call in self.calls.under_way().filter(|call| is_wanted(call)) {
            shown.total += 1;
            if shown.rows.len() < wanted.rows {
                shown.rows.push(self.call_view(call, worker));
            }
        }
        shown
    }

    /// The targets of the wanted pods and Services.
    fn wanted_targets(&self, wanted: &Wanted) -> FxHashSet<u32> {
        let takes = |target: &super::target::Target| {
            let pod = target.origin.pod();
            let is_pod = wanted.pod.as_ref().is_none_or(|name| pod.is_some_and(|pod| pod.name == *name));
            let port = target.destination.as_ref().map(|destination| &destination.backend.service_port);
            is_pod
                && wanted.service.as_ref().is_none_or(|service| port.is_some_and(|port| service.takes(port)))
        };
        let found = self.targets.slots.iter().filter(|(_, target)| takes(target));
        found.map(|(index, _)| index as u32).collect()
    }

    /// A target that leads to each pool: a wanted one, if there is one.
    fn targets_by_pool(&self, wanted: &FxHashSet<u32>) -> FxHashMap<u32, u32> {
        let mut by_pool = FxHashMap::default();
        for (target, slot) in &self.targets.slots {
            let target = target as u32;
            for &pool in slot.candidates.pools.iter().filter(|pool| **pool != NOWHERE) {
                if wanted.contains(&target) {
                    by_pool.insert(pool, target);
                } else {
                    by_pool.entry(pool).or_insert(target);
                }
            }
        }
        by_pool
    }

    /// Which target a connection belongs to, and what it is; `None` for one that only waits for its socket's end.
    fn target_of_conn(
        &self,
        conn: ConnId,
        by_pool: &FxHashMap<u32, u32>,
    ) -> Option<(Option<u32>, (Side, Protocol, Standing))> {
        Some(match self.conns.role(conn) {
            Role::Sniffing(sniffing) => {
                let target = self.sniffing[sniffing as usize].target;
                (Some(target), (Side::Client, Protocol::Sniffing, Standing::Open))
            }
            Role::Downstream(downstream) => {
                let slot = &self.downstreams[downstream as usize];
                (Some(slot.target), (Side::Client, Protocol::Http2, standing_of_client(slot.phase)))
            }
            Role::Upstream(upstream) => {
                let slot = &self.upstreams[upstream as usize];
                let target = by_pool.get(&slot.pool).copied();
                (target, (Side::Server, Protocol::Http2, standing_of_server(slot.phase)))
            }
            Role::TunnelClient(tunnel) => {
                let target = self.tunnels[tunnel as usize].target;
                (Some(target), (Side::Client, Protocol::Relayed, Standing::Open))
            }
            Role::TunnelServer(tunnel) => {
                let slot = &self.tunnels[tunnel as usize];
                let standing = if slot.is_connected() { Standing::Open } else { Standing::Connecting };
                (Some(slot.target), (Side::Server, Protocol::Relayed, standing))
            }
            Role::Closed => return None,
        })
    }

    fn connection_view(
        &self,
        conn: ConnId,
        target: Option<u32>,
        (side, protocol, standing): (Side, Protocol, Standing),
        worker: usize,
    ) -> ConnectionView {
        let slot = target.map(|target| &self.targets.slots[target as usize]);
        let destination = slot.and_then(|slot| slot.destination.as_ref());
        let original = destination.map(|destination| destination.original);
        let (origin, address, streams) = match self.conns.role(conn) {
            Role::Downstream(downstream) => {
                (slot.map(|slot| &slot.origin), original, self.downstreams[downstream as usize].calls.len())
            }
            Role::Upstream(upstream) => {
                let upstream = &self.upstreams[upstream as usize];
                let pool = &self.pools[upstream.pool as usize];
                (Some(&pool.origin), Some(pool.address), upstream.calls.len())
            }
            _ => (slot.map(|slot| &slot.origin), original, 0),
        };
        let facts = self.conns.facts(conn);
        ConnectionView {
            worker,
            side,
            pod: origin.and_then(|origin| origin.pod()).map(|pod| pod.name.to_string()),
            service_port: destination.map(|destination| destination.backend.service_port.to_string()),
            address,
            protocol,
            standing,
            age_seconds: seconds(self.now_ns.saturating_sub(facts.opened_ns)),
            streams,
            held_bytes: facts.charged,
            kernel_bytes: self.conns.kernel_bytes(conn),
            unwritten_bytes: self.output(conn).len(),
            stuck_seconds: self
                .conns
                .is_stuck(conn, self.now_ns)
                .then(|| seconds(self.now_ns - facts.moved_ns)),
            is_read: self.reads(conn),
        }
    }

    fn call_view(&self, call: &Call, worker: usize) -> CallView {
        let target = &self.targets.slots[call.target as usize];
        let port = target.destination.as_ref().map(|destination| &destination.backend.service_port);
        let stage = match (call.stage, call.response) {
            (Stage::Free | Stage::Received, _) => CallStage::Received,
            (Stage::AwaitingEndpoint, _) => CallStage::AwaitingEndpoint,
            (Stage::AwaitingStream, _) => CallStage::AwaitingStream,
            (Stage::BackingOff, _) => CallStage::BackingOff,
            (Stage::Open { .. }, Response::Nothing) => CallStage::Sent,
            (Stage::Open { .. }, Response::Headers) => CallStage::Answering,
            (Stage::Open { .. }, Response::Complete) | (Stage::Answered, _) => CallStage::Answered,
        };
        let measured = &call.measured;
        let elapsed_ms = |since: u64| millis(self.now_ns.saturating_sub(since).cast_signed());
        CallView {
            worker,
            pod: target.origin.pod().map(|pod| pod.name.to_string()),
            service_port: port.map(ToString::to_string),
            endpoint: call.server.as_ref().map(|server| server.address),
            endpoint_pod: call.server.as_ref().and_then(|server| server.pod.as_deref()).map(str::to_owned),
            method: method(call).map(Cow::into_owned),
            is_grpc: call.is_grpc,
            stage,
            age_ms: elapsed_ms(call.arrived_ns),
            attempt_age_ms: (call.sent_ns > 0).then(|| elapsed_ms(call.sent_ns)),
            deadline_left_ms: call.timeout_ns.map(|timeout| {
                let spent = self.now_ns.saturating_sub(call.arrived_ns);
                millis(timeout.cast_signed().saturating_sub_unsigned(spent))
            }),
            attempts: measured.attempts,
            answered_after_ms: (measured.headers_ns > 0)
                .then(|| millis(measured.headers_ns.saturating_sub(call.arrived_ns).cast_signed())),
            request_bytes: measured.request_bytes,
            request_messages: measured.request_messages.count,
            response_bytes: measured.response_bytes,
            response_messages: measured.response_messages.count,
            request_ended: call.request_ended,
            held_bytes: call.charged,
        }
    }
}

fn standing_of_client(phase: downstream::Phase) -> Standing {
    match phase {
        downstream::Phase::Serving => Standing::Open,
        downstream::Phase::Announced | downstream::Phase::LastCalls => Standing::Draining,
        downstream::Phase::Closing | downstream::Phase::Lingering => Standing::Closing,
    }
}

fn standing_of_server(phase: upstream::Phase) -> Standing {
    match phase {
        upstream::Phase::Connecting => Standing::Connecting,
        upstream::Phase::Greeting => Standing::Greeting,
        upstream::Phase::Ready => Standing::Open,
        upstream::Phase::Retiring => Standing::Draining,
        upstream::Phase::Closing => Standing::Closing,
    }
}

/// A call's path without its query, which may hold what nobody is to see; `None` where it was let go of.
fn method(call: &Call) -> Option<Cow<'_, str>> {
    let path = call.request.find(Name::Path)?;
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    Some(String::from_utf8_lossy(&path[..path.len().min(SHOWN_PATH_BYTES)]))
}

fn seconds(nanoseconds: u64) -> f64 {
    millis(nanoseconds.cast_signed()) / 1_000.0
}

/// Milliseconds, to the microsecond.
fn millis(nanoseconds: i64) -> f64 {
    (nanoseconds / 1_000) as f64 / 1_000.0
}
