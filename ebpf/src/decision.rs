//! Taken or straight. When in doubt straight: the pod must reach whatever it could reach without the agent.

use crate::dial::{Dial, Kind};
use crate::maps::{DESTINATIONS, HEARTBEAT, MARK};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use evenkeel_common::destination::{DESTINATION_WITHOUT_ENDPOINT, ID_SPACE};
use evenkeel_common::pod::{POD_AT_CONNECTION_LIMIT, POD_IPV6_ROUTE, POD_LEAVING, POD_LOOPBACK_DOWN};
use evenkeel_common::{Destination, HEARTBEAT_LIMIT_NS, LOOPBACK_INTERFACE, PodEntry, Reason};

/// The destination's id if the connection is to be taken, else why it goes straight.
#[inline(always)]
pub(crate) fn decide(pod: &PodEntry, dial: &Dial) -> Result<u32, Reason> {
    if dial.mark == MARK.load() {
        return Err(Reason::OwnMark);
    }
    let key = Destination::new(dial.address, dial.port);
    // SAFETY: the agent replaces an entry as a whole, and an old one stays valid until this program has ended (RCU).
    let Some(destination) = (unsafe { DESTINATIONS.get(&key) }) else {
        return Err(Reason::UnknownDestination);
    };
    if destination.id >= ID_SPACE {
        return Err(Reason::UnknownDestination);
    }
    if destination.flags & DESTINATION_WITHOUT_ENDPOINT != 0 {
        return Err(Reason::NoEndpoint);
    }
    if dial.device != 0 && dial.device != LOOPBACK_INTERFACE {
        return Err(Reason::BoundToDevice);
    }
    let flags = pod.flags;
    if flags & POD_LEAVING != 0 {
        return Err(Reason::PodLeaving);
    }
    if flags & POD_LOOPBACK_DOWN != 0 {
        return Err(Reason::LoopbackDown);
    }
    if flags & POD_AT_CONNECTION_LIMIT != 0 {
        return Err(Reason::ConnectionLimit);
    }
    // A V6ONLY socket, or one bound to an IPv6 address, cannot reach a mapped address, and connect6 cannot see which it
    // is: so IPv6 destinations go by the unique local network or not at all.
    if dial.kind == Kind::V6 && flags & POD_IPV6_ROUTE == 0 {
        return Err(Reason::NoIpv6Route);
    }
    if agent_is_silent() {
        return Err(Reason::AgentSilent);
    }
    Ok(destination.id)
}

#[inline(always)]
fn agent_is_silent() -> bool {
    let Some(beat) = HEARTBEAT.get_ptr(0) else { return true };
    // SAFETY: the pointer is to the map's one element; volatile since the keeper writes it at any time.
    let beat = unsafe { core::ptr::read_volatile(beat) };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // A beat from the future is the keeper's on another CPU, just now.
    now.saturating_sub(beat) > HEARTBEAT_LIMIT_NS
}
