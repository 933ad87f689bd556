//! What a worker thread counts: plain integers in the engine, published once a turn. A counter's words are also its metric's.

use crate::telemetry::RetryCause;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What has happened since the start, and what is open now.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
        pub struct Counters { $($(#[doc = $doc])* pub $name: u64,)* }

        impl Counters {
            /// Each with its name and what it counts.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),*), self.$name),)*].into_iter()
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
    accepted,
    /// Connections from clients to a destination that is not known, which are reset.
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
    /// Calls that a server answered with a status that says it failed.
    server_failures,
    /// Calls that ended with an answer of the agent's own.
    own_errors,
    /// Calls that the agent answered as their deadline had passed.
    deadlines,
    /// Calls that ended with their clients: cancelled, broken, or gone with their connection.
    cancelled,
    /// Attempts after one whose connection was refused, or lost before a byte of the call was written, or whose endpoint had gone by then.
    reconnects,
    /// Attempts after one whose stream the server had refused.
    retries,
    /// Attempts that the Service's retry policy asked for.
    policy_retries,
    /// Calls that would have been sent again by policy, had not too many been under way for it.
    retries_over_budget,
    /// Streams that a server reset.
    resets,
    /// Client connections ended because of broken HTTP/2.
    protocol_errors,
    /// Client connections ended because they had too many frames that are no part of a message.
    floods_of_control,
    /// Client connections ended because they reset too many requests before their answer.
    floods_of_cancels,
    /// Client connections ended because too many of their streams broke the protocol.
    floods_of_faults,
    /// Client connections ended because their header blocks were too large or in too many pieces.
    floods_of_headers,
    /// Client connections ended because they made the agent answer and did not read.
    floods_unread,
    /// Client connections ended because they never acknowledged the agent's SETTINGS.
    settings_timeouts,
    /// Streams of clients that broke HTTP/2, or were refused above the limit, and were reset for it.
    client_faults,
    /// Streams of servers that broke HTTP/2, and were reset for it.
    server_faults,
    /// Connections to servers ended because of broken HTTP/2.
    server_protocol_errors,
    /// CONNECT requests, which are answered and not forwarded.
    connect_requests,
    /// Calls whose header lists were too large: for the agent, for the server or for the client.
    headers_too_large,
    /// Calls that were answered or ended because their source's memory was used up.
    memory_refusals,
    /// Calls that were answered because their source had as many calls, waiting calls or connections as it may.
    circuit_refusals,
    /// Calls that ended because one side took nothing of what the other had sent.
    stalled_streams,
    /// Connections of clients that did not read.
    stalled_clients,
    /// Connections to servers that did not read.
    stalled_servers,
    /// Connections of clients that never ended a frame or a header block.
    unfinished_headers,
    /// Answers cut off at a drain's end because their clients did not read them.
    cut_off,
    /// Endpoints that were left out for a time, each time by one source's calls.
    ejections,
    /// Connections to servers that did not answer a PING.
    silent_servers,
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
