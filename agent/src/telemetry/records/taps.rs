//! Taps: somebody looks at calls as they end, for as long as they look.

use super::audience::Audience;
use super::call_record::CallRecord;
use super::filter::TapFilter;
use crate::telemetry::{CallEnd, DropCount, Inlet, Outlet, outlet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// Taps that may be open at a time: each is a pass over a filter for each call of the node, and [`TAP_ROOM`] records.
pub const MOST_TAPS: usize = 8;

/// Records that wait for who looks: some hundred bytes each, 8 KiB more at most where headers are wanted.
pub(super) const TAP_ROOM: usize = 1_024;

/// A tap that has something to read which nobody has come for in this time is ended. Its reader sleeps, or hangs behind a forwarder that keeps
/// the connection: it would keep its place for hours. A slow one comes for more each time that some 400 KiB have gone.
pub(super) const LONGEST_UNREAD: Duration = Duration::from_secs(60);

/// A tap, as the worker threads have it.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) id: u64,
    filter: TapFilter,
    with_headers: bool,
    outlet: Outlet<CallRecord>,
    unread: Arc<Unread>,
}

/// What both ends of a tap have.
#[derive(Debug)]
struct Unread {
    /// Since when there has been something to read, in nanoseconds of the monotonic clock; 0: nothing that anybody waits for.
    since_ns: AtomicU64,
    /// `None`: it was given up with what was in it.
    inlet: Mutex<Option<Inlet<CallRecord>>>,
}

impl Tap {
    /// A tap, and its reader's end.
    pub(super) fn open(
        audience: &Arc<Audience>,
        id: u64,
        filter: TapFilter,
        with_headers: bool,
    ) -> (Self, OpenTap) {
        let (outlet, inlet) = outlet(TAP_ROOM);
        let dropped = inlet.dropped();
        let unread = Arc::new(Unread { since_ns: AtomicU64::new(0), inlet: Mutex::new(Some(inlet)) });
        let open = OpenTap { unread: Arc::clone(&unread), dropped, audience: Arc::clone(audience), id };
        (Self { id, filter, with_headers, outlet, unread }, open)
    }

    /// Tells of the call if it is wanted. Whether the tap is to be ended.
    pub(super) fn tell(&self, end: &CallEnd<'_>) -> bool {
        if !self.filter.takes(end) {
            return false;
        }
        // Before the record is there: after it, who has just read it would seem not to have come.
        if self.unread.since_ns.load(Relaxed) == 0 {
            self.unread.since_ns.store(end.stats.ended_ns, Relaxed);
        }
        self.outlet.tell(|| CallRecord::new(end, SystemTime::now(), self.with_headers));
        self.is_abandoned(end.stats.ended_ns)
    }

    /// Whether nobody has come for what there is to read, for too long.
    pub(super) fn is_abandoned(&self, now_ns: u64) -> bool {
        let since_ns = self.unread.since_ns.load(Relaxed);
        since_ns > 0 && u128::from(now_ns.saturating_sub(since_ns)) > LONGEST_UNREAD.as_nanos()
    }

    /// Lets go of what is in it: its reader, if it ever comes back, is told that it was dropped.
    pub(super) fn give_up(&self) {
        self.unread.inlet.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// A tap, as who looks has it. It ends with this.
#[derive(Debug)]
pub struct OpenTap {
    unread: Arc<Unread>,
    dropped: DropCount,
    audience: Arc<Audience>,
    id: u64,
}

impl OpenTap {
    /// Waits for records; none: the agent ends, or the tap was given up as nobody came for them.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        batch: &mut Vec<CallRecord>,
        most: usize,
    ) -> Poll<usize> {
        let mut inlet = self.unread.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(inlet) = &mut *inlet else { return Poll::Ready(0) };
        let taken = inlet.poll_next(context, batch, most);
        // After that: what comes in between is told of by a poll that is still to come.
        self.unread.since_ns.store(0, Relaxed);
        taken
    }

    /// Records that had no room, so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.count()
    }
}

impl Drop for OpenTap {
    fn drop(&mut self) {
        self.audience.end_tap(self.id);
    }
}

/// There are as many taps as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTaps;

impl fmt::Display for TooManyTaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MOST_TAPS} taps are open, which is the most that there may be: end one")
    }
}
