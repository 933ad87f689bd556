//! What became of an enrolled pod's TCP connection at `connect()`, and why.

/// Why a connection went where it went. The number is the index into [`Counters::by_reason`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Taken: the connection goes to the agent.
    Taken = 0,
    /// Straight: the destination is not one that the agent balances.
    UnknownDestination = 1,
    /// Straight: no endpoint of the destination is ready.
    NoEndpoint = 2,
    /// Straight: the agent's heartbeat is too old ([`HEARTBEAT_LIMIT_NS`](crate::HEARTBEAT_LIMIT_NS)), or has not begun.
    AgentSilent = 3,
    /// Straight: one of the agent's own sockets.
    OwnMark = 4,
    /// Straight: the socket is bound to a device other than `lo`, over which loopback cannot be reached.
    BoundToDevice = 5,
    /// Straight: the pod's `lo` is down.
    LoopbackDown = 6,
    /// Straight: the pod is at its connection limit.
    ConnectionLimit = 7,
    /// Straight: an IPv6 destination, and the pod has no route to the listener's unique local network.
    NoIpv6Route = 8,
    /// Straight: the agent is letting the pod go.
    PodLeaving = 9,
}

impl Reason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Taken,
        Self::UnknownDestination,
        Self::NoEndpoint,
        Self::AgentSilent,
        Self::OwnMark,
        Self::BoundToDevice,
        Self::LoopbackDown,
        Self::ConnectionLimit,
        Self::NoIpv6Route,
        Self::PodLeaving,
    ];

    /// The reason's name in metrics and at the admin endpoint.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::UnknownDestination => "unknown_destination",
            Self::NoEndpoint => "no_endpoint",
            Self::AgentSilent => "agent_silent",
            Self::OwnMark => "own_mark",
            Self::BoundToDevice => "bound_to_device",
            Self::LoopbackDown => "loopback_down",
            Self::ConnectionLimit => "connection_limit",
            Self::NoIpv6Route => "no_ipv6_route",
            Self::PodLeaving => "pod_leaving",
        }
    }
}

/// How many of a pod's connections met each reason, on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Indexed by [`Reason`].
    pub by_reason: [u64; Reason::ALL.len()],
}

impl Counters {
    /// The count for a reason.
    pub const fn of(&self, reason: Reason) -> u64 {
        self.by_reason[reason as usize]
    }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), an array of integers: no padding, any bytes are a value.
unsafe impl aya::Pod for Counters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
        assert_eq!(core::mem::size_of::<Counters>(), 8 * Reason::ALL.len());
    }
}
