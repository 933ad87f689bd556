//! Who is enrolled: the network namespace's cookie says it in one lookup.

use crate::maps::PODS;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::programs::SockAddrContext;
use evenkeel_common::PodEntry;

/// The pod whose socket this is, if it is enrolled.
#[inline(always)]
pub(crate) fn of<'a>(ctx: &SockAddrContext) -> Option<&'a PodEntry> {
    // SAFETY: the context is the one that the kernel handed over.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: the agent replaces an entry as a whole, and an old one stays valid until this program has ended (RCU).
    unsafe { PODS.get(&cookie) }
}
