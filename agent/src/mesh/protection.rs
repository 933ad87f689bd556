//! What one source of calls may cost the node: memory, connections, calls.

use schemars::JsonSchema;
use serde::Serialize;

/// What a pod's connections and calls may hold in memory: some 30,000 small calls in flight, or 32 streams at the largest
/// window. A node's pods seldom come near it together.
pub const POD_MEMORY_BYTES: u64 = 128 << 20;
/// `evenkeel proxy`: what all its clients together may hold. As eight busy pods.
pub const PROXY_MEMORY_BYTES: u64 = 1 << 30;
/// Connections of a pod through the agent: each may then hold 32 KiB of the pod's memory. A pod with more of them is a proxy.
pub const MAX_POD_CONNECTIONS: u32 = 4_096;
/// Calls of a pod to a Service port that are under way: beyond any client that waits for its answers; the pod's memory is as
/// a rule used up before.
pub const MAX_CALLS: u32 = 65_536;
/// Of these, those that wait for an endpoint or a stream: a second's worth of what the busiest pods call.
pub const MAX_PENDING_CALLS: u32 = 16_384;
/// Connections of a pod to the servers of a Service port: eight to each of 128 endpoints.
pub const MAX_SERVER_CONNECTIONS: u32 = 1_024;

/// Beyond these, the circuit from a source to a Service port is open: further calls are answered and not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CircuitLimits {
    /// Calls under way.
    pub calls: u32,
    /// Calls that wait for an endpoint or a stream.
    pub pending: u32,
    /// Connections to servers.
    pub connections: u32,
}

impl Default for CircuitLimits {
    fn default() -> Self {
        Self { calls: MAX_CALLS, pending: MAX_PENDING_CALLS, connections: MAX_SERVER_CONNECTIONS }
    }
}

/// What the call path holds each source of calls to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Protection {
    /// Bytes that a pod's connections and calls may hold.
    pub pod_memory: u64,
    /// Bytes that connections and calls of no pod may hold: those of `evenkeel proxy`, and servers' connections that pods share.
    #[serde(skip)]
    pub own_memory: u64,
    /// For each pod and Service port.
    pub circuit: CircuitLimits,
}

impl Default for Protection {
    fn default() -> Self {
        Self {
            pod_memory: POD_MEMORY_BYTES,
            own_memory: PROXY_MEMORY_BYTES,
            circuit: CircuitLimits::default(),
        }
    }
}
