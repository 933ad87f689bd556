//! What a call can go to.

use super::{Balancing, Load, ServicePort};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// A Service port with the endpoints that calls to it are spread over.
#[derive(Debug)]
pub struct Backend {
    /// The Service port, for messages, counters and policy.
    pub service_port: ServicePort,
    /// What may serve a call now, sorted by address, each address once. Ready endpoints, or, where none is ready,
    /// those that still serve while they terminate.
    pub endpoints: Arc<[Arc<Endpoint>]>,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// What the pickers that hash look up in, made by [`balance::prepare`](crate::balance::prepare).
    pub table: OnceLock<HashTable>,
}

impl Backend {
    /// A backend whose table, if it needs one, is yet to be made.
    pub fn new(
        service_port: ServicePort,
        endpoints: Arc<[Arc<Endpoint>]>,
        balancing: impl Into<Balancing>,
    ) -> Self {
        Self { service_port, endpoints, balancing: balancing.into(), table: OnceLock::new() }
    }
}

/// Which endpoint a hash leads to, by its index.
pub enum HashTable {
    /// The points of a ring, ascending, and whose each is.
    Ring {
        /// The points.
        points: Box<[u64]>,
        /// The endpoint of the point at the same position.
        owners: Box<[u32]>,
    },
    /// Maglev's: a hash modulo the length is the position of its endpoint. Empty where there is no endpoint.
    Maglev(Box<[u32]>),
}

impl fmt::Debug for HashTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring { points, .. } => write!(f, "Ring of {} points", points.len()),
            Self::Maglev(slots) => write!(f, "Maglev of {} slots", slots.len()),
        }
    }
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

impl Endpoint {
    /// An endpoint of which nothing else is known, with a load of its own.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, pod: None, zone: None, load: Arc::default() }
    }
}
