//! All that the programs share with the agent. The sizes here are defaults: the agent sets its own at load.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use evenkeel_common::{Counters, DEFAULT_MARK, Destination, DestinationEntry, Original, PodEntry};

/// What the agent balances. Not preallocated: most nodes know a tenth of what the map may hold.
#[map]
pub(crate) static DESTINATIONS: HashMap<Destination, DestinationEntry> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// What each id stands for.
#[map]
pub(crate) static ORIGINALS: Array<Original> = Array::with_max_entries(65_536, 0);

/// Who is enrolled, by network namespace cookie.
#[map]
pub(crate) static PODS: HashMap<u64, PodEntry> = HashMap::with_max_entries(1_024, BPF_F_NO_PREALLOC);

/// What became of the pods' connections, by the pod's slot.
#[map]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1_024, 0);

/// When the agent was last seen alive. The keeper writes it through a memory mapping, without system calls.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Pods' cgroups made, entered and removed.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// The mark of the agent's own sockets.
#[unsafe(no_mangle)]
pub(crate) static MARK: Global<u32> = Global::new(DEFAULT_MARK);
