//! Who wants to reach something: what the kernel side knows of an enrolled pod.

/// Set in [`PodEntry::flags`]: the pod's `lo` is down, its connections go straight.
pub const POD_LOOPBACK_DOWN: u32 = 1;
/// Set in [`PodEntry::flags`]: the pod has as many connections through the agent as it may, further ones go straight.
pub const POD_AT_CONNECTION_LIMIT: u32 = 1 << 1;
/// Set in [`PodEntry::flags`]: the route to the listener's unique local network stands, and the listener takes IPv6.
pub const POD_IPV6_ROUTE: u32 = 1 << 2;
/// Set in [`PodEntry::flags`]: the agent lets the pod go. Connections go straight; those it still holds keep the names
/// that their apps know.
pub const POD_LEAVING: u32 = 1 << 3;

/// An enrolled pod; its key in [`PODS`](crate::names::PODS) is its network namespace's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodEntry {
    /// `POD_…` bits.
    pub flags: u32,
    /// Index into [`COUNTERS`](crate::names::COUNTERS).
    pub counter_slot: u32,
    /// The pod's own IPv6 address, what its apps see as their own; zero = none.
    pub ipv6: [u8; 16],
    /// The pod's own IPv4 address; zero = none.
    pub ipv4: [u8; 4],
    /// The port of the agent's listener in the pod's network namespace, in host order.
    pub listener_port: u16,
    /// Always zero.
    pub padding: [u8; 2],
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no implicit padding (see the layout test), any bytes are a value.
unsafe impl aya::Pod for PodEntry {}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_has_no_hidden_padding() {
        assert_eq!((size_of::<PodEntry>(), align_of::<PodEntry>()), (4 + 4 + 16 + 4 + 2 + 2, 4));
        assert_eq!((offset_of!(PodEntry, ipv6), offset_of!(PodEntry, ipv4)), (8, 24));
        assert_eq!((offset_of!(PodEntry, listener_port), offset_of!(PodEntry, padding)), (28, 30));
    }
}
