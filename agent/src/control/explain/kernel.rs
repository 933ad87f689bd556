//! What the programs at `connect()` would say, in their order (`decision.rs` of the kernel programs).

use super::{Facts, Heart, Live, Standing};
use evenkeel_common::Reason;
use std::net::SocketAddr;

/// A thing that the programs look at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) reason: Reason,
    /// Whether the connection goes straight because of it.
    pub(super) straight: bool,
    pub(super) text: String,
}

/// What is looked at for a connection to `address`. `known`: whether the kernel's map has it, and as one with an endpoint.
pub(super) fn checks(live: &Live, address: SocketAddr, known: Option<bool>) -> Vec<Check> {
    let Facts { loopback_down, at_connection_limit, ipv6_route, open_connections, connection_limit, .. } =
        match live.pod {
            Standing::Enrolled(facts) => facts,
            // As a pod is that has just been enrolled.
            Standing::Unknown | Standing::Waiting { .. } => Facts { ipv6_route: true, ..Facts::default() },
        };
    let check = |reason, straight, text: &str| Check { reason, straight, text: text.into() };
    let either = |straight: bool, yes: &str, no: &str| (if straight { yes } else { no }).to_owned();
    let mut checks = vec![
        check(
            Reason::OwnMark,
            false,
            &format!("the socket has not the agent's own mark ({:#x}), unless the app sets it", live.mark),
        ),
        check(
            Reason::UnknownDestination,
            known.is_none(),
            &either(known.is_none(), "the address is not one that is balanced", "the address is known"),
        ),
    ];
    if let Some(has_endpoint) = known {
        checks.push(check(
            Reason::NoEndpoint,
            !has_endpoint,
            &either(!has_endpoint, "no endpoint may serve a call", "it has an endpoint"),
        ));
    }
    checks.push(check(
        Reason::BoundToDevice,
        false,
        "the socket is bound to no device but lo, unless the app binds it to one (SO_BINDTODEVICE)",
    ));
    checks.push(check(Reason::PodLeaving, false, "the agent is not letting the pod go"));
    checks.push(check(
        Reason::LoopbackDown,
        loopback_down,
        &either(loopback_down, "the pod's lo is down", "the pod's lo is up"),
    ));
    let text = format!(
        "the pod has {open_connections} connections through the agent, of {connection_limit} at most"
    );
    if connection_limit > 0 || at_connection_limit {
        checks.push(check(Reason::ConnectionLimit, at_connection_limit, &text));
    }
    if address.is_ipv6() {
        checks.push(check(
            Reason::NoIpv6Route,
            !ipv6_route,
            &either(
                !ipv6_route,
                "an IPv6 address, and the pod has no route to the listener's network",
                "an IPv6 address, and the pod has a route to the listener",
            ),
        ));
    }
    let text = match live.heart {
        Heart::Beats => "the agent's heart beats".to_owned(),
        Heart::Stopped => "the agent does not serve yet, or no more".to_owned(),
        Heart::Silent(ms) => format!("a worker thread of the agent has been silent for {ms} ms"),
    };
    checks.push(check(Reason::AgentSilent, live.heart != Heart::Beats, &text));
    checks
}
