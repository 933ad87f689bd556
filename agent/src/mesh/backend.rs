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
    /// Where hints keep calls near: these and the farther ones, sorted alike, for when the near ones fail. Empty where there is nothing
    /// farther.
    pub wider: Arc<[Arc<Endpoint>]>,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// The largest weight of an endpoint, be it near or farther away.
    pub heaviest: u32,
    /// All endpoints have the same weight.
    equal_weights: bool,
    /// When the slow start of the last one that came is over.
    warm_from_ns: u64,
    /// What the pickers that hash look up in, made by [`balance::prepare`](crate::balance::prepare).
    pub table: OnceLock<Arc<HashTable>>,
}

impl Backend {
    /// A backend whose table, if it needs one, is yet to be made.
    pub fn new(
        service_port: ServicePort,
        endpoints: Arc<[Arc<Endpoint>]>,
        balancing: impl Into<Balancing>,
    ) -> Self {
        let backend = Self {
            service_port,
            endpoints,
            wider: Arc::default(),
            balancing: balancing.into(),
            heaviest: Endpoint::WEIGHT,
            equal_weights: true,
            warm_from_ns: 0,
            table: OnceLock::new(),
        };
        backend.compared()
    }

    /// With farther endpoints to go to when the near ones fail.
    #[must_use]
    pub fn with_wider(self, wider: Arc<[Arc<Endpoint>]>) -> Self {
        Self { wider, ..self }.compared()
    }

    /// Knows how its endpoints differ, the farther ones among them: calls may go to both at a time.
    fn compared(mut self) -> Self {
        let all = || self.endpoints.iter().chain(&*self.wider);
        let heaviest = all().map(|endpoint| endpoint.weight).max().unwrap_or(Endpoint::WEIGHT);
        let equal_weights = all().all(|endpoint| endpoint.weight == heaviest);
        let last_came_ns = all().map(|endpoint| endpoint.ready_since_ns).max().unwrap_or(0);
        let slow_start_ns = self.balancing.slow_start.as_ns();
        let warm_from_ns = if last_came_ns > 0 { last_came_ns + slow_start_ns } else { 0 };
        (self.heaviest, self.equal_weights, self.warm_from_ns) = (heaviest, equal_weights, warm_from_ns);
        self
    }

    /// Whether all endpoints count alike: none is heavier, or new.
    pub fn is_even(&self, now_ns: u64) -> bool {
        self.equal_weights && now_ns >= self.warm_from_ns
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
    Maglev(Box<[u16]>),
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
    /// The node that it is on, if the source names one.
    pub node: Option<Arc<str>>,
    /// Its topology zone, if the source names one.
    pub zone: Option<Arc<str>>,
    /// Its weight, from 1 to [`Endpoint::MOST_WEIGHT`].
    pub weight: u32,
    /// Since when it is ready, in nanoseconds of the monotonic clock; 0 if it was when the Service was first seen.
    pub ready_since_ns: u64,
    /// What the node's workers know of its load.
    pub load: Arc<Load>,
}

impl Endpoint {
    /// The weight where nothing is said.
    pub const WEIGHT: u32 = 100;
    /// The largest weight: a tenth of a share is as far from the usual one as ten shares are.
    pub const MOST_WEIGHT: u32 = 1000;

    /// An endpoint of which nothing else is known, with a load of its own.
    pub fn at(address: SocketAddr) -> Self {
        let load = Arc::default();
        Self { address, pod: None, node: None, zone: None, weight: Self::WEIGHT, ready_since_ns: 0, load }
    }
}
