//! What a worker thread counts: plain integers in the engine, published once a turn.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What has happened since the start, and what is open now.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Adds up what several workers counted.
            #[must_use]
            pub fn plus(mut self, other: &Self) -> Self {
                $(self.$name += other.$name;)*
                self
            }
        }

        /// A worker's counters where other threads read them.
        #[derive(Debug, Default)]
        pub(super) struct SharedCounters { $($name: AtomicU64,)* }

        impl SharedCounters {
            pub(super) fn publish(&self, counters: &Counters) {
                $(self.$name.store(counters.$name, Relaxed);)*
            }

            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Connections accepted from clients.
    accepted,
    /// Of these: to a destination that is not known, and reset.
    unknown_destination,
    /// Client connections that are open and speak HTTP/2.
    http2_open,
    /// Client connections that are open and relayed untouched.
    tunnels_open,
    /// Connections opened to servers.
    connects,
    /// Connections to servers that could not be opened.
    connect_failures,
    /// Connections to servers that are open.
    upstreams_open,
    /// Calls begun.
    calls,
    /// Calls that are under way.
    calls_open,
    /// Calls that a server answered in full, with whatever status.
    answered,
    /// Of these: with a status that says the server failed.
    server_failures,
    /// Calls that ended with an answer of the agent's own.
    own_errors,
    /// Of these: calls whose deadline passed.
    deadlines,
    /// Calls that the client cancelled.
    cancelled,
    /// Calls sent to another endpoint after a refused connection.
    reconnects,
    /// Calls sent to another endpoint after a server had refused the stream.
    retries,
    /// Streams that a server reset.
    resets,
    /// Client connections ended because of broken HTTP/2.
    protocol_errors,
}
