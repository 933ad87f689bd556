//! Where a taken connection goes: to the listener in its own pod, at the loopback address that names its destination.

use crate::dial::Kind;
use aya_ebpf::programs::SockAddrContext;
use evenkeel_common::destination::{FIRST_LOOPBACK, ULA_PREFIX};

/// Writes a field of a context.
macro_rules! set {
    ($ctx:expr, $field:ident $([$index:literal])?, $value:expr) => {
        // SAFETY: the kernel hands over a valid context, and the verifier knows which fields may be written.
        unsafe { core::ptr::write_volatile(&raw mut (*$ctx.sock_addr).$field $([$index])?, $value) }
    };
}
pub(crate) use set;

/// `::ffff:0:0`, third word.
const MAPPED_WORD: u32 = 0x0000_ffff_u32.to_be();

/// The first word of the unique local network.
pub(crate) const ULA_WORD_0: u32 =
    u32::from_ne_bytes([ULA_PREFIX[0], ULA_PREFIX[1], ULA_PREFIX[2], ULA_PREFIX[3]]);

/// The second word of a listener's unique local network: its subnet is the port.
#[inline(always)]
pub(crate) fn ula_word_1(listener_port: u16) -> u32 {
    let [high, low] = listener_port.to_be_bytes();
    u32::from_ne_bytes([ULA_PREFIX[4], ULA_PREFIX[5], high, low])
}

/// Sends the connection to the listener.
#[inline(always)]
pub(crate) fn towards_listener(ctx: &SockAddrContext, kind: Kind, listener_port: u16, id: u32) {
    let loopback = (FIRST_LOOPBACK + id).to_be();
    match kind {
        Kind::V4 => set!(ctx, user_ip4, loopback),
        Kind::Mapped => write_v6(ctx, [0, 0, MAPPED_WORD, loopback]),
        Kind::V6 => write_v6(ctx, [ULA_WORD_0, ula_word_1(listener_port), 0, loopback]),
    }
    write_port(ctx, listener_port);
}

/// Writes the IPv6 address, in network order.
#[inline(always)]
pub(crate) fn write_v6(ctx: &SockAddrContext, words: [u32; 4]) {
    set!(ctx, user_ip6[0], words[0]);
    set!(ctx, user_ip6[1], words[1]);
    set!(ctx, user_ip6[2], words[2]);
    set!(ctx, user_ip6[3], words[3]);
}

/// Writes the port, given in host order.
#[inline(always)]
pub(crate) fn write_port(ctx: &SockAddrContext, port: u16) {
    set!(ctx, user_port, u32::from(port.to_be()));
}
