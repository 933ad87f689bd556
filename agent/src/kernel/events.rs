//! When to look for a pod: its cgroup was made or removed, or a process entered. Next: [`netns`](super::netns).

use super::cgroups::uid_in_path;
use super::error::KernelError;
use super::load::Kernel;
use aya::maps::{Map, MapData, RingBuf};
use evenkeel_common::event::{CGROUP_ENTERED, CGROUP_MADE, CGROUP_PATH_BYTES, CGROUP_REMOVED};
use evenkeel_common::names;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Something happened in a pod's cgroup. With cgroup v1 the same comes once a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The pod's UID (or, of a static pod, its `kubernetes.io/config.hash`), dashes restored.
    pub uid: String,
    /// The cgroup's path from the root of its hierarchy.
    pub path: String,
    /// What happened.
    pub kind: PodEventKind,
}

/// What happened in a pod's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodEventKind {
    /// It was made. A process may follow, with or without an event.
    Made,
    /// A process entered it.
    Entered,
    /// It was removed: its last process had ended.
    Removed,
}

impl PodEvent {
    /// Whether the cgroup is a container's (the sandbox's is one of them), not the pod's own, which holds them.
    pub fn is_of_container(&self) -> bool {
        self.path.rsplit('/').next().is_some_and(|last| uid_in_path(last).is_none())
    }
}

impl Kernel {
    /// The events from now on, and those that wait unread. One reader at a time.
    ///
    /// # Errors
    /// The map refuses.
    pub fn pod_events(&self) -> Result<PodEvents, KernelError> {
        let wrong = |e| KernelError::refused("reading the cgroup events", e);
        let data = MapData::from_fd(self.map_fd(names::EVENTS)?).map_err(wrong)?;
        Ok(PodEvents { ring: Map::RingBuf(data).try_into().map_err(wrong)? })
    }
}

/// The stream of events. Readable (epoll) when there are some; [`PodEvents::try_next`] never waits.
pub struct PodEvents {
    ring: RingBuf<MapData>,
}

impl PodEvents {
    /// The next event of a pod that waits, if one does.
    pub fn try_next(&mut self) -> Option<PodEvent> {
        loop {
            // An event that names no pod's UID, as one of `kubepods` itself, is passed over.
            let item = self.ring.next()?;
            if let Some(event) = parse(&item) {
                return Some(event);
            }
        }
    }

    /// Waits for events on the current tokio runtime.
    ///
    /// # Errors
    /// No runtime.
    pub fn into_async(self) -> Result<AsyncPodEvents, KernelError> {
        // SAFETY: the map's descriptor stays the same, and open, for as long as `self` lives.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        let inner = registered
            .map_err(|refused| KernelError::refused("waiting for cgroup events", refused.into_parts().1))?;
        Ok(AsyncPodEvents { inner })
    }
}

impl AsFd for PodEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for PodEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// [`PodEvents`] for async code.
pub struct AsyncPodEvents {
    inner: AsyncFd<PodEvents>,
}

impl AsyncPodEvents {
    /// The next event. Safe to cancel: an event is read or it waits.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn next(&mut self) -> io::Result<PodEvent> {
        loop {
            if let Some(event) = self.inner.get_mut().try_next() {
                return Ok(event);
            }
            let mut ready = self.inner.readable_mut().await?;
            // One that came between the look and now: seen by a look after the flag is down.
            ready.clear_ready();
            if let Some(event) = ready.get_inner_mut().try_next() {
                return Ok(event);
            }
        }
    }
}

/// Reads an event's bytes, which come from the kernel programs: [`evenkeel_common::CgroupEvent`].
fn parse(bytes: &[u8]) -> Option<PodEvent> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, path) = rest.split_first_chunk::<4>()?;
    let length = (u32::from_ne_bytes(*length) as usize).min(CGROUP_PATH_BYTES);
    let path = std::str::from_utf8(path.get(..length)?).ok()?;
    Some(PodEvent {
        uid: uid_in_path(path)?,
        path: path.to_owned(),
        kind: match u32::from_ne_bytes(*kind) {
            CGROUP_MADE => PodEventKind::Made,
            CGROUP_ENTERED => PodEventKind::Entered,
            CGROUP_REMOVED => PodEventKind::Removed,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, path: &str) -> Vec<u8> {
        let mut bytes = (path.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(path.as_bytes());
        bytes.resize(8 + CGROUP_PATH_BYTES, 0xee);
        bytes
    }

    #[test]
    fn an_event_names_its_pod() {
        let path = "/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef/c0ffee";
        let parsed = parse(&event(CGROUP_ENTERED, path)).unwrap();
        assert_eq!(parsed.uid, "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!((parsed.path.as_str(), parsed.kind), (path, PodEventKind::Entered));
        assert!(parsed.is_of_container());
        let removed = parse(&event(CGROUP_REMOVED, path.rsplit_once('/').unwrap().0)).unwrap();
        assert_eq!((removed.uid, removed.kind), (parsed.uid, PodEventKind::Removed));
        assert!(
            !parse(&event(CGROUP_MADE, "/kubepods.slice/kubepods-podab_c.slice")).unwrap().is_of_container()
        );
    }

    #[test]
    fn bytes_that_are_no_pods_event_are_passed_over() {
        assert_eq!(parse(&event(CGROUP_MADE, "/kubepods/burstable")), None);
        assert_eq!(parse(&event(7, "/kubepods/podab")), None, "of no known kind");
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[1, 0, 0, 0, 0, 0, 0]), None);
        let mut claims_too_much = event(CGROUP_MADE, "/kubepods/podab");
        claims_too_much[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(parse(&claims_too_much), None, "the rest is not UTF-8");
        assert_eq!(parse(&claims_too_much[..20]), None, "and shorter than it says");
    }
}
