//! Taps: somebody looks at calls as they end, for as long as they look.

use super::audience::Audience;
use super::call_record::CallRecord;
use super::filter::TapFilter;
use crate::telemetry::{CallEnd, DropCount, Inlet, Outlet};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

/// Taps that may be open at a time: each is a pass over a filter for each call of the node, and [`TAP_ROOM`] records.
pub const MOST_TAPS: usize = 8;

/// Records that wait for who looks: some hundred bytes each, 8 KiB more at most where headers are wanted.
pub(super) const TAP_ROOM: usize = 1_024;

/// A tap, as the worker threads have it.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) id: u64,
    pub(super) filter: TapFilter,
    pub(super) with_headers: bool,
    pub(super) outlet: Outlet<CallRecord>,
}

impl Tap {
    pub(super) fn tell(&self, end: &CallEnd<'_>) {
        if self.filter.takes(end) {
            self.outlet.tell(|| CallRecord::new(end, SystemTime::now(), self.with_headers));
        }
    }
}

/// A tap, as who looks has it. It ends with this.
#[derive(Debug)]
pub struct OpenTap {
    inlet: Inlet<CallRecord>,
    dropped: DropCount,
    audience: Arc<Audience>,
    id: u64,
}

impl OpenTap {
    pub(super) fn new(inlet: Inlet<CallRecord>, audience: Arc<Audience>, id: u64) -> Self {
        Self { dropped: inlet.dropped(), inlet, audience, id }
    }

    /// Waits for records; none: the agent ends.
    pub fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        batch: &mut Vec<CallRecord>,
        most: usize,
    ) -> Poll<usize> {
        self.inlet.poll_next(context, batch, most)
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
