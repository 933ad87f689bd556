//! What the app sees of a taken connection: the peer that it dialled, and its own pod's address.
//!
//! Only for the pod's own listener port and an id that stands for something: the agent's other sockets in the pod's
//! namespace, and the app's own use of loopback, keep their names.

use crate::dial::{field, is_mapped};
use crate::enrolment;
use crate::maps::ORIGINALS;
use crate::rewrite::{ULA_WORD_0, set, ula_word_1, write_port, write_v6};
use aya_ebpf::programs::SockAddrContext;
use evenkeel_common::destination::id_of_loopback;
use evenkeel_common::{Original, PodEntry};

/// getpeername() on an AF_INET socket.
#[inline(always)]
pub(crate) fn peer_v4(ctx: &SockAddrContext) {
    let address = field!(ctx.sock_addr, user_ip4);
    let port = u16::from_be(field!(ctx.sock_addr, user_port) as u16);
    let Some(pod) = enrolment::of(ctx) else { return };
    let Some(original) = original(pod, address, port) else { return };
    let words = words(&original.address);
    if is_mapped(words) {
        set!(ctx, user_ip4, words[3]);
        write_port(ctx, original.port);
    }
}

/// getpeername() on an AF_INET6 socket.
#[inline(always)]
pub(crate) fn peer_v6(ctx: &SockAddrContext) {
    let address = read_v6(ctx);
    let port = u16::from_be(field!(ctx.sock_addr, user_port) as u16);
    let Some(pod) = enrolment::of(ctx) else { return };
    if !is_mapped(address) && !is_ula(address, pod.listener_port) {
        return;
    }
    let Some(original) = original(pod, address[3], port) else { return };
    write_v6(ctx, words(&original.address));
    write_port(ctx, original.port);
}

/// getsockname() on an AF_INET socket.
#[inline(always)]
pub(crate) fn own_v4(ctx: &SockAddrContext) {
    let own = field!(ctx.sock_addr, user_ip4);
    let sk = field!(ctx.sock_addr, __bindgen_anon_1.sk);
    let peer = field!(sk, dst_ip4);
    let peer_port = u16::from_be(field!(sk, dst_port));
    let Some(pod) = enrolment::of(ctx) else { return };
    if !is_loopback(own) || original(pod, peer, peer_port).is_none() {
        return;
    }
    let pod_address = u32::from_ne_bytes(pod.ipv4);
    if pod_address != 0 {
        set!(ctx, user_ip4, pod_address);
    }
}

/// getsockname() on an AF_INET6 socket.
#[inline(always)]
pub(crate) fn own_v6(ctx: &SockAddrContext) {
    let own = read_v6(ctx);
    let sk = field!(ctx.sock_addr, __bindgen_anon_1.sk);
    let peer =
        [field!(sk, dst_ip6[0]), field!(sk, dst_ip6[1]), field!(sk, dst_ip6[2]), field!(sk, dst_ip6[3])];
    let peer_port = u16::from_be(field!(sk, dst_port));
    let Some(pod) = enrolment::of(ctx) else { return };
    if original(pod, peer[3], peer_port).is_none() {
        return;
    }
    if is_mapped(peer) && is_mapped(own) && is_loopback(own[3]) {
        let pod_address = u32::from_ne_bytes(pod.ipv4);
        if pod_address != 0 {
            set!(ctx, user_ip6[3], pod_address);
        }
    } else if is_ula(peer, pod.listener_port) && (is_v6_loopback(own) || is_ula(own, pod.listener_port)) {
        let pod_address = words(&pod.ipv6);
        if pod_address != [0; 4] {
            write_v6(ctx, pod_address);
        }
    }
}

/// What the pod dialled, if this address (in network order) and port are its listener's.
#[inline(always)]
fn original<'a>(pod: &PodEntry, loopback: u32, port: u16) -> Option<&'a Original> {
    if port != pod.listener_port {
        return None;
    }
    let id = id_of_loopback(u32::from_be(loopback))?;
    ORIGINALS.get(id).filter(|original| original.port != 0)
}

#[inline(always)]
fn read_v6(ctx: &SockAddrContext) -> [u32; 4] {
    [
        field!(ctx.sock_addr, user_ip6[0]),
        field!(ctx.sock_addr, user_ip6[1]),
        field!(ctx.sock_addr, user_ip6[2]),
        field!(ctx.sock_addr, user_ip6[3]),
    ]
}

#[inline(always)]
fn words(address: &[u8; 16]) -> [u32; 4] {
    let a = address;
    [
        u32::from_ne_bytes([a[0], a[1], a[2], a[3]]),
        u32::from_ne_bytes([a[4], a[5], a[6], a[7]]),
        u32::from_ne_bytes([a[8], a[9], a[10], a[11]]),
        u32::from_ne_bytes([a[12], a[13], a[14], a[15]]),
    ]
}

/// Whether an IPv4 address in network order is in 127.0.0.0/8.
#[inline(always)]
fn is_loopback(v4: u32) -> bool {
    u32::from_be(v4) >> 24 == 127
}

#[inline(always)]
fn is_v6_loopback(words: [u32; 4]) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == 0 && words[3] == 1_u32.to_be()
}

#[inline(always)]
fn is_ula(words: [u32; 4], listener_port: u16) -> bool {
    words[0] == ULA_WORD_0 && words[1] == ula_word_1(listener_port) && words[2] == 0
}
