//! What an app wants to reach, and the loopback address that carries it to the agent.

/// The first loopback address that stands for a destination: 127.1.0.0 for id 0, in host order.
pub const FIRST_LOOPBACK: u32 = 0x7f01_0000;

/// How many ids the loopback network has room for: 127.1.0.0 – 127.254.255.255.
pub const ID_SPACE: u32 = 254 << 16;

/// The /48 of the unique local addresses (RFC 4193) that stand for destinations towards IPv6 sockets that cannot reach an
/// IPv4-mapped one. The subnet is the listener's port, so that two agents that overlap do not share a route; the last
/// 32 bits are the loopback address.
pub const ULA_PREFIX: [u8; 6] = [0xfd, 0x65, 0x76, 0x6b, 0x65, 0x6c];

/// An address and port that apps dial: the key of [`DESTINATIONS`](crate::names::DESTINATIONS).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The IPv6 address, or the IPv4 address in its mapped form (`::ffff:a.b.c.d`).
    pub address: [u8; 16],
    /// The port, in host order.
    pub port: u16,
    /// Always zero: keys are compared byte for byte.
    pub padding: [u8; 2],
}

impl Destination {
    /// The key for an address in its 16-byte form.
    #[inline(always)]
    pub const fn new(address: [u8; 16], port: u16) -> Self {
        Self { address, port, padding: [0; 2] }
    }
}

/// Set in [`DestinationEntry::flags`] while no endpoint serves the destination: connections go straight, so that clients
/// see what they would see without the agent.
pub const DESTINATION_WITHOUT_ENDPOINT: u32 = 1;

/// What is known of a destination.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DestinationEntry {
    /// Its id, below [`ID_SPACE`] and below the size of [`ORIGINALS`](crate::names::ORIGINALS).
    pub id: u32,
    /// [`DESTINATION_WITHOUT_ENDPOINT`].
    pub flags: u32,
}

/// What an id stands for: the way back from [`DestinationEntry::id`]. All zero where the id stands for nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// As [`Destination::address`].
    pub address: [u8; 16],
    /// The port, in host order; 0 = the id stands for nothing.
    pub port: u16,
    /// Always zero.
    pub padding: [u8; 2],
}

/// The IPv4-mapped form of an IPv4 address.
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// The address in the unique local network of a listener's port that stands for an id.
pub const fn ula(listener_port: u16, id: u32) -> [u8; 16] {
    let [p0, p1, p2, p3, p4, p5] = ULA_PREFIX;
    let [s0, s1] = listener_port.to_be_bytes();
    let [a, b, c, d] = (FIRST_LOOPBACK + id).to_be_bytes();
    [p0, p1, p2, p3, p4, p5, s0, s1, 0, 0, 0, 0, a, b, c, d]
}

/// The id that a loopback address (in host order) stands for.
#[inline(always)]
pub const fn id_of_loopback(address: u32) -> Option<u32> {
    let id = address.wrapping_sub(FIRST_LOOPBACK);
    if id < ID_SPACE { Some(id) } else { None }
}

#[cfg(feature = "user")]
// SAFETY: repr(C), no implicit padding (see the layout test), any bytes are a value.
unsafe impl aya::Pod for Destination {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for DestinationEntry {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Original {}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layouts_have_no_hidden_padding() {
        assert_eq!((size_of::<Destination>(), align_of::<Destination>()), (16 + 2 + 2, 2));
        assert_eq!((offset_of!(Destination, port), offset_of!(Destination, padding)), (16, 18));
        assert_eq!((size_of::<Original>(), offset_of!(Original, port)), (16 + 2 + 2, 16));
        assert_eq!((size_of::<DestinationEntry>(), offset_of!(DestinationEntry, flags)), (4 + 4, 4));
    }

    #[test]
    fn only_the_id_range_of_loopback_carries_ids() {
        assert_eq!(id_of_loopback(0x7f00_0001), None);
        assert_eq!(id_of_loopback(0x7f00_ffff), None);
        assert_eq!(id_of_loopback(0x7f01_0000), Some(0));
        assert_eq!(id_of_loopback(0x7ffe_ffff), Some(ID_SPACE - 1));
        assert_eq!(id_of_loopback(0x7fff_0000), None);
        assert_eq!(id_of_loopback(0x0a60_0505), None);
    }

    #[test]
    fn a_unique_local_address_names_listener_and_id() {
        assert_eq!(
            ula(15810, 5),
            [0xfd, 0x65, 0x76, 0x6b, 0x65, 0x6c, 0x3d, 0xc2, 0, 0, 0, 0, 0x7f, 1, 0, 5],
            "15810 = 0x3dc2"
        );
    }
}
