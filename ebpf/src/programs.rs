//! The entry points. Each lets the system call go on whatever happens: 1 is "allow".

use crate::{arrival, counting, decision, dial, enrolment, identity, rewrite};
use aya_ebpf::macros::{cgroup_sock_addr, raw_tracepoint};
use aya_ebpf::programs::{RawTracePointContext, SockAddrContext};
use aya_log_ebpf::debug;
use evenkeel_common::Reason;
use evenkeel_common::event::{CGROUP_ENTERED, CGROUP_MADE, CGROUP_REMOVED};

const ALLOW: i32 = 1;

#[cgroup_sock_addr(connect4)]
pub(crate) fn evenkeel_connect4(ctx: SockAddrContext) -> i32 {
    let dial = dial::v4(&ctx);
    connect(&ctx, &dial);
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn evenkeel_connect6(ctx: SockAddrContext) -> i32 {
    let dial = dial::v6(&ctx);
    connect(&ctx, &dial);
    ALLOW
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, dial: &dial::Dial) {
    if !dial.is_tcp() {
        return;
    }
    let Some(pod) = enrolment::of(ctx) else { return };
    let outcome = decision::decide(pod, dial);
    counting::count(pod, outcome.err().unwrap_or(Reason::Taken));
    if let Ok(id) = outcome {
        rewrite::towards_listener(ctx, dial.kind, pod.listener_port, id);
        debug!(ctx, "took a connection to destination {} on port {}", id, pod.listener_port);
    }
}

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn evenkeel_getpeername4(ctx: SockAddrContext) -> i32 {
    identity::peer_v4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn evenkeel_getpeername6(ctx: SockAddrContext) -> i32 {
    identity::peer_v6(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getsockname4)]
pub(crate) fn evenkeel_getsockname4(ctx: SockAddrContext) -> i32 {
    identity::own_v4(&ctx);
    ALLOW
}

#[cgroup_sock_addr(getsockname6)]
pub(crate) fn evenkeel_getsockname6(ctx: SockAddrContext) -> i32 {
    identity::own_v6(&ctx);
    ALLOW
}

#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub(crate) fn evenkeel_cgroup_made(ctx: RawTracePointContext) -> i32 {
    arrival::announce(&ctx, CGROUP_MADE);
    0
}

#[raw_tracepoint(tracepoint = "cgroup_attach_task")]
pub(crate) fn evenkeel_cgroup_entered(ctx: RawTracePointContext) -> i32 {
    arrival::announce(&ctx, CGROUP_ENTERED);
    0
}

#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub(crate) fn evenkeel_cgroup_removed(ctx: RawTracePointContext) -> i32 {
    arrival::announce(&ctx, CGROUP_REMOVED);
    0
}
