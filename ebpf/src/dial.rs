//! Where a connection wants to go, and what matters of the socket that dials.
//!
//! Each field of the context is read once, volatile, before anything branches on it: LLVM otherwise merges loads of two
//! arms into one of a computed address, which the verifier refuses ("dereference of modified ctx ptr").

use aya_ebpf::programs::SockAddrContext;
use evenkeel_common::destination::mapped;

const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

/// The address family that the socket speaks and the one that it wants to reach.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An AF_INET socket.
    V4,
    /// An AF_INET6 socket and an IPv4-mapped address: Java, Go and Node dial so.
    Mapped,
    /// An AF_INET6 socket and an IPv6 address.
    V6,
}

/// A `connect()` under way.
pub(crate) struct Dial {
    pub(crate) kind: Kind,
    /// The address to reach, IPv4 in its mapped form.
    pub(crate) address: [u8; 16],
    /// The port to reach, in host order.
    pub(crate) port: u16,
    pub(crate) mark: u32,
    /// The device that the socket is bound to, 0 = none.
    pub(crate) device: u32,
    socket_type: u32,
    protocol: u32,
}

impl Dial {
    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        self.socket_type == SOCK_STREAM && (self.protocol == IPPROTO_TCP || self.protocol == IPPROTO_MPTCP)
    }
}

/// Reads a field of a context or of a socket.
macro_rules! field {
    ($base:expr, $($path:tt)+) => {
        // SAFETY: the kernel hands over a valid context, and with it a valid socket.
        unsafe { core::ptr::read_volatile(&raw const (*$base).$($path)+) }
    };
}
pub(crate) use field;

/// What `connect()` on an AF_INET socket is about.
#[inline(always)]
pub(crate) fn v4(ctx: &SockAddrContext) -> Dial {
    let addr = ctx.sock_addr;
    let sk = field!(addr, __bindgen_anon_1.sk);
    let v4 = field!(addr, user_ip4).to_ne_bytes();
    Dial {
        kind: Kind::V4,
        address: mapped(v4),
        port: u16::from_be(field!(addr, user_port) as u16),
        mark: field!(sk, mark),
        device: field!(sk, bound_dev_if),
        socket_type: field!(addr, type_),
        protocol: field!(addr, protocol),
    }
}

/// What `connect()` on an AF_INET6 socket is about.
#[inline(always)]
pub(crate) fn v6(ctx: &SockAddrContext) -> Dial {
    let addr = ctx.sock_addr;
    let sk = field!(addr, __bindgen_anon_1.sk);
    let words = [
        field!(addr, user_ip6[0]),
        field!(addr, user_ip6[1]),
        field!(addr, user_ip6[2]),
        field!(addr, user_ip6[3]),
    ];
    Dial {
        kind: if is_mapped(words) { Kind::Mapped } else { Kind::V6 },
        address: bytes(words),
        port: u16::from_be(field!(addr, user_port) as u16),
        mark: field!(sk, mark),
        device: field!(sk, bound_dev_if),
        socket_type: field!(addr, type_),
        protocol: field!(addr, protocol),
    }
}

/// Whether an address in network order is `::ffff:a.b.c.d`.
#[inline(always)]
pub(crate) fn is_mapped(words: [u32; 4]) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == 0x0000_ffff_u32.to_be()
}

#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = words.map(u32::to_ne_bytes);
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
}
