//! What is counted: for each pod and reason, on each CPU.

use crate::maps::COUNTERS;
use core::arch::asm;
use evenkeel_common::{PodEntry, Reason};

/// Counts a connection of the pod.
#[inline(always)]
pub(crate) fn count(pod: &PodEntry, reason: Reason) {
    let Some(counters) = COUNTERS.get_ptr_mut(pod.counter_slot) else { return };
    let index = reason as usize;
    // Tells the verifier that the index is within the array's bounds.
    if index < Reason::ALL.len() {
        // SAFETY: in bounds, as just checked.
        let counter = unsafe { (&raw mut (*counters).by_reason).cast::<u64>().add(index) };
        // Atomic since a program may be preempted by another on its CPU; by hand since core has no atomic addition for this
        // target.
        // SAFETY: an aligned u64 of the map's.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64) };
    }
}
