//! One consistent state of everything that decides where a call goes.

use super::{Backend, DestinationId};
use std::net::SocketAddr;
use std::sync::Arc;

/// What is true at one moment. Cheap to clone and to change: maps share what did not change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts up with each change.
    pub version: u64,
    /// Where calls to a captured destination go. An id that is not here is unknown, and its connections are reset.
    /// Several ids lead to one backend where a Service has several addresses.
    pub destinations: imbl::HashMap<DestinationId, Destination>,
}

/// A captured destination.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The address that the app dialled: where a connection that is not HTTP/2 is relayed to, untouched.
    pub original: SocketAddr,
    /// Where its calls go.
    pub backend: Arc<Backend>,
}
