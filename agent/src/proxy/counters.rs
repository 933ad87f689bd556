//! What a worker thread counts: plain integers in the engine, published once a turn. A counter's words are also its metric's; a
//! gauge says how many there are now.

use crate::telemetry::{PathCount, RetryCause};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    (@is_gauge total) => { false };
    (@is_gauge gauge) => { true };
    ($($(#[doc = $doc:literal])* $name:ident: $kind:ident,)*) => {
        /// What has happened since the start, and what is open now.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Counters {
            /// Each, as metrics tell of it.
            pub fn each(&self) -> impl Iterator<Item = PathCount> {
                [$(PathCount {
                    name: stringify!($name),
                    help: concat!($($doc),*),
                    is_gauge: counters!(@is_gauge $kind),
                    value: self.$name,
                },)*].into_iter()
            }

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
    accepted: total,
    /// Connections from clients to a destination that is not known, which are reset.
    unknown_destination: total,
    /// Client connections that are open and speak HTTP/2.
    http2_open: gauge,
    /// Client connections that are open and relayed untouched.
    tunnels_open: gauge,
    /// Connections opened to servers.
    connects: total,
    /// Connections to servers that could not be opened.
    connect_failures: total,
    /// Connections to servers that are open.
    upstreams_open: gauge,
    /// Calls begun.
    calls: total,
    /// Calls that are under way.
    calls_open: gauge,
    /// Calls that a server answered in full, with whatever status.
    answered: total,
    /// Calls that a server answered with a status that says it failed.
    server_failures: total,
    /// Calls that ended with an answer of the agent's own.
    own_errors: total,
    /// Calls that the agent answered as their deadline had passed.
    deadlines: total,
    /// Calls that ended with their clients: cancelled, broken, or gone with their connection.
    cancelled: total,
    /// Attempts after one whose connection was refused, or lost before a byte of the call was written, or whose endpoint had gone by then.
    reconnects: total,
    /// Attempts after one whose stream the server had refused.
    retries: total,
    /// Attempts that the Service's retry policy asked for.
    policy_retries: total,
    /// Calls that would have been sent again by policy, had not too many been under way for it.
    retries_over_budget: total,
    /// Streams that a server reset.
    resets: total,
    /// Client connections ended because of broken HTTP/2.
    protocol_errors: total,
    /// Client connections ended because they had too many frames that are no part of a message.
    floods_of_control: total,
    /// Client connections ended because they reset too many requests before their answer.
    floods_of_cancels: total,
    /// Client connections ended because too many of their streams broke the protocol.
    floods_of_faults: total,
    /// Client connections ended because their header blocks were too large or in too many pieces.
    floods_of_headers: total,
    /// Client connections ended because they made the agent answer and did not read.
    floods_unread: total,
    /// Client connections ended because they never acknowledged the agent's SETTINGS.
    settings_timeouts: total,
    /// Streams of clients that broke HTTP/2, or were refused above the limit, and were reset for it.
    client_faults: total,
    /// Streams of servers that broke HTTP/2, and were reset for it.
    server_faults: total,
    /// Connections to servers ended because of broken HTTP/2.
    server_protocol_errors: total,
    /// CONNECT requests, which are answered and not forwarded.
    connect_requests: total,
    /// Calls whose header lists were too large: for the agent, for the server or for the client.
    headers_too_large: total,
    /// Calls that were answered or ended because their source's memory was used up.
    memory_refusals: total,
    /// Calls that were answered because their source had as many calls, waiting calls or connections as it may.
    circuit_refusals: total,
    /// Calls that ended because one side took nothing of what the other had sent.
    stalled_streams: total,
    /// Connections of clients that did not read.
    stalled_clients: total,
    /// Connections to servers that did not read.
    stalled_servers: total,
    /// Connections of clients that never ended a frame or a header block.
    unfinished_headers: total,
    /// Answers cut off at a drain's end because their clients did not read them.
    cut_off: total,
    /// Endpoints that were left out for a time, each time by one source's calls.
    ejections: total,
    /// Connections to servers that did not answer a PING.
    silent_servers: total,
}

impl Counters {
    /// Counts an attempt that is not a call's first: so a call has one attempt, if an endpoint was ever chosen for it, and those counted here.
    pub(super) fn count_again(&mut self, cause: RetryCause) {
        match cause {
            RetryCause::ConnectionRefused | RetryCause::ConnectionLost | RetryCause::EndpointGone => {
                self.reconnects += 1;
            }
            RetryCause::StreamRefused => self.retries += 1,
            RetryCause::Status(_) => self.policy_retries += 1,
        }
    }
}
