//! How the agent hears of a pod without polling: its cgroup is made, a process enters it, it is removed.

use crate::maps::EVENTS;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::warn;
use evenkeel_common::CgroupEvent;
use evenkeel_common::event::CGROUP_PATH_BYTES;

/// The argument of all three tracepoints that holds the cgroup's path.
const PATH_ARGUMENT: usize = 1;

/// Tells the agent of the cgroup, if its path is one of a pod.
#[inline(always)]
pub(crate) fn announce(ctx: &RawTracePointContext, kind: u32) {
    let path: *const u8 = ctx.arg(PATH_ARGUMENT);
    let Some(mut event) = EVENTS.reserve::<CgroupEvent>(0) else {
        warn!(ctx, "no room for another cgroup event: the agent reads them too slowly");
        return;
    };
    let event_ptr = event.as_mut_ptr();
    // SAFETY: the event is reserved memory of that type.
    let buffer = unsafe { &raw mut (*event_ptr).path }.cast::<u8>();
    // SAFETY: the buffer is as long as said, and the kernel's path is a string that ends in a zero.
    let length = unsafe { bpf_probe_read_kernel_str(buffer.cast(), CGROUP_PATH_BYTES as u32, path.cast()) };
    if !names_a_pod(buffer, length) {
        event.discard(0);
        return;
    }
    // SAFETY: as above. The closing zero is counted in the length.
    unsafe {
        (&raw mut (*event_ptr).length).write(length as u32 - 1);
        (&raw mut (*event_ptr).kind).write(kind);
    }
    event.submit(0);
}

/// Whether "pod" stands anywhere in the path: in `kubepods`, or, seen from a private cgroup namespace, in `pod<UID>` alone.
#[inline(always)]
fn names_a_pod(path: *const u8, length: i64) -> bool {
    // The bound is the buffer's, a constant: the verifier follows the loop.
    for i in 0..CGROUP_PATH_BYTES - 3 {
        if i as i64 + 3 >= length {
            return false;
        }
        // SAFETY: i + 2 is within the buffer.
        let found = unsafe { *path.add(i) == b'p' && *path.add(i + 1) == b'o' && *path.add(i + 2) == b'd' };
        if found {
            return true;
        }
    }
    false
}
