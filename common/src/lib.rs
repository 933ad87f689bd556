//! What the kernel programs and the agent share: map keys and values, and the constants that both must agree on.
//!
//! [`destination`] is what an app wants to reach, [`pod`] who wants it, [`reason`] what became of it, [`event`] how a
//! pod is first heard of. Each type's layout is checked by a test: the kernel side is compiled for another target.
#![cfg_attr(not(any(feature = "user", test)), no_std)]

pub mod destination;
pub mod event;
pub mod pod;
pub mod reason;

pub use destination::{Destination, DestinationEntry, Original};
pub use event::CgroupEvent;
pub use pod::PodEntry;
pub use reason::{Counters, Reason};

/// How old the heartbeat may be before connections go straight, in nanoseconds. Ten times the workers' tick, so that a
/// busy node does not flap; short enough that clients of a hung agent lose one dial's patience, not more.
pub const HEARTBEAT_LIMIT_NS: u64 = 1_000_000_000;

/// The mark (`SO_MARK`) of the agent's own sockets, unless configured. Clear of kube-proxy (0x4000, 0x8000), portmap
/// (0x2000), Istio (0xfff), Cilium (0x0f00) and Calico (0xffff0000).
pub const DEFAULT_MARK: u32 = 0x1000;

/// The interface index of `lo`: the same in every network namespace (the kernel's `LOOPBACK_IFINDEX`).
pub const LOOPBACK_INTERFACE: u32 = 1;

/// Names of maps, and of the one constant that the agent sets before it loads the programs.
pub mod names {
    /// [`Destination`](crate::Destination) → [`DestinationEntry`](crate::DestinationEntry), a hash.
    pub const DESTINATIONS: &str = "DESTINATIONS";
    /// A destination's id → [`Original`](crate::Original), an array.
    pub const ORIGINALS: &str = "ORIGINALS";
    /// Network namespace cookie → [`PodEntry`](crate::PodEntry), a hash.
    pub const PODS: &str = "PODS";
    /// Counter slot → [`Counters`](crate::Counters), an array for each CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// One `u64`: when the agent's slowest thread was last seen alive, `CLOCK_MONOTONIC` nanoseconds. Mappable.
    pub const HEARTBEAT: &str = "HEARTBEAT";
    /// [`CgroupEvent`](crate::CgroupEvent)s, a ring buffer.
    pub const EVENTS: &str = "EVENTS";
    /// The mark of the agent's own sockets.
    pub const MARK: &str = "MARK";
}
