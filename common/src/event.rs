//! How a pod is heard of: its cgroup is made, a process enters it, it is removed.

/// The longest cgroup path that an event carries, its closing zero included. A systemd path of a container, nested in a node
/// that is itself a container, is about 330 bytes.
pub const CGROUP_PATH_BYTES: usize = 512;

/// Something happened to a pod's cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CgroupEvent {
    /// How much of [`Self::path`] is used, without a closing zero.
    pub length: u32,
    /// [`CGROUP_MADE`], [`CGROUP_ENTERED`] or [`CGROUP_REMOVED`].
    pub kind: u32,
    /// The cgroup's path, from the root of its hierarchy.
    pub path: [u8; CGROUP_PATH_BYTES],
}

/// The cgroup was made. Runtimes that start a process right inside of its cgroup (`CLONE_INTO_CGROUP`) give no other event.
pub const CGROUP_MADE: u32 = 0;
/// A process was moved into the cgroup.
pub const CGROUP_ENTERED: u32 = 1;
/// The cgroup was removed: nothing runs in it any more.
pub const CGROUP_REMOVED: u32 = 2;

#[cfg(feature = "user")]
// SAFETY: repr(C), no implicit padding (see the layout test), any bytes are a value.
unsafe impl aya::Pod for CgroupEvent {}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, offset_of, size_of};

    #[test]
    fn layout_has_no_hidden_padding() {
        assert_eq!((size_of::<CgroupEvent>(), align_of::<CgroupEvent>()), (4 + 4 + CGROUP_PATH_BYTES, 4));
        assert_eq!(offset_of!(CgroupEvent, path), 8);
    }
}
