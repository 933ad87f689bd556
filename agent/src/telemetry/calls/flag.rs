//! What went wrong with a call, in a word: what a person who looks for the cause sorts by.

macro_rules! flags {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $envoy:literal;)*) => {
        /// What went wrong with a call, where something did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(u8)]
        pub enum Flag { $($(#[$doc])* $variant,)* }

        impl Flag {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name; `-` where nothing went wrong.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether it was the client that gave the call up, or ended it by a fault of its own.
            pub fn is_of_client(self) -> bool {
                matches!(self, Self::ClientCancelled | Self::ClientGone | Self::ClientFault | Self::ClientStalled)
            }

            /// What Envoy calls it (`%RESPONSE_FLAGS%`), which is what Istio's metrics have.
            pub fn envoy(self) -> &'static str {
                match self { $(Self::$variant => $envoy,)* }
            }
        }
    };
}

flags! {
    /// Nothing: a server answered, with whatever status, and the client has the answer.
    #[default]
    None = "-", "-";
    /// The destination has no route for the request.
    NoRoute = "no_route", "NR";
    /// The Service has no endpoint that could serve.
    NoEndpoint = "no_endpoint", "UH";
    /// Every endpoint tried refused the connection, or did not answer in time.
    Refused = "refused", "UF";
    /// The server reset the stream.
    ServerReset = "server_reset", "UR";
    /// The server broke HTTP/2's rules.
    ServerFault = "server_fault", "UPE";
    /// The connection to the server was lost.
    ServerLost = "server_lost", "UC";
    /// The server did not read the request.
    ServerStalled = "server_stalled", "SI";
    /// The call's own deadline passed, be it the agent or its client that ended it then.
    Deadline = "deadline", "UT";
    /// The agent went away and could not wait any longer.
    Draining = "draining", "LR";
    /// The request's header list was larger than somebody takes.
    RequestTooLarge = "request_too_large", "DPE";
    /// The response's header list or trailers were larger than somebody takes.
    ResponseTooLarge = "response_too_large", "UPE";
    /// It was a CONNECT request.
    Connect = "connect", "NR";
    /// What its source may hold in memory was used up.
    Memory = "memory", "OM";
    /// Its source had as many calls, waiting calls or connections to the Service as it may.
    Circuit = "circuit", "UO";
    /// The client cancelled it.
    ClientCancelled = "client_cancelled", "DC";
    /// The client's connection was lost, or its pod has gone.
    ClientGone = "client_gone", "DC";
    /// The client broke HTTP/2's rules.
    ClientFault = "client_fault", "DPE";
    /// The client did not read the answer.
    ClientStalled = "client_stalled", "SI";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_flag_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Flag::ALL.iter().map(|flag| flag.name()).collect();
        assert_eq!(names.len(), Flag::ALL.len());
        assert!(Flag::ALL.iter().all(|flag| !flag.envoy().is_empty()));
    }
}
