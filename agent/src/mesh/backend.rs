//! What a call can go to.

use super::{Load, ServicePort};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// A Service port with the endpoints that calls to it are spread over.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The Service port, for messages, counters and policy.
    pub service_port: ServicePort,
    /// What may serve a call now, sorted by address, each address once. Ready endpoints, or, where none is ready,
    /// those that still serve while they terminate.
    pub endpoints: Arc<[Arc<Endpoint>]>,
    /// How an endpoint is chosen.
    pub picker: Picker,
}

/// An address that serves calls.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// The pod behind it (`targetRef`), if the source names one: `namespace/name`.
    pub pod: Option<Arc<str>>,
    /// Its topology zone, if the source names one.
    pub zone: Option<Arc<str>>,
    /// What the node's workers know of its load.
    pub load: Arc<Load>,
}

/// How an endpoint is chosen for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Picker {
    /// The better of two random endpoints by EWMA latency × (active calls + 1).
    #[default]
    Ewma,
    /// Each endpoint in turn.
    RoundRobin,
    /// All calls of a source pod go to one endpoint, for as long as that may serve (`sessionAffinity: ClientIP`).
    SourceHash,
}
