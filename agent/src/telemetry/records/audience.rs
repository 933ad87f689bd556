//! Who wants to hear of single calls.

use super::call_record::CallRecord;
use super::filter::TapFilter;
use super::taps::{MOST_TAPS, OpenTap, Tap, TooManyTaps};
use crate::clock::monotonic_ns;
use crate::telemetry::{CallEnd, Outlet};
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// The calls that are in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LoggedCalls {
    /// Those that are errors ([`Status::is_error`](crate::telemetry::Status::is_error)).
    Errors,
    /// And of those that are none, this share, from 0 to 1.
    All(f64),
}

/// Who wants to hear of single calls: the access log, and taps. All worker threads share it.
#[derive(Debug, Default)]
pub struct Audience {
    /// [`HAS_LOG`] and [`HAS_TAPS`].
    who: AtomicU8,
    log: Option<(LoggedCalls, Outlet<CallRecord>)>,
    /// Locked for writing for as long as one comes or goes, and read by nobody while there is none.
    taps: RwLock<Vec<Tap>>,
    next_tap: AtomicU64,
}

const HAS_LOG: u8 = 1;
const HAS_TAPS: u8 = 2;

impl Audience {
    /// The access log alone.
    pub fn with_log(calls: LoggedCalls, log: Outlet<CallRecord>) -> Self {
        Self { who: AtomicU8::new(HAS_LOG), log: Some((calls, log)), ..Self::default() }
    }

    /// Whether anybody wants to hear of any call.
    #[inline]
    pub fn is_there(&self) -> bool {
        self.who.load(Relaxed) != 0
    }

    /// Tells of a call. Waits for nobody. `chance` gives a number from 0 on, below 1, each time another.
    #[inline(never)]
    pub fn tell(&self, end: &CallEnd<'_>, chance: impl FnOnce() -> f64) {
        if let Some((calls, log)) = &self.log {
            let is_logged = match *calls {
                _ if end.stats.status.is_error() => true,
                LoggedCalls::Errors => false,
                LoggedCalls::All(share) => share >= 1.0 || chance() < share,
            };
            if is_logged {
                log.tell(|| CallRecord::new(end, SystemTime::now(), false));
            }
        }
        if self.who.load(Relaxed) & HAS_TAPS != 0 {
            let mut is_any_abandoned = false;
            for tap in self.taps.read().unwrap_or_else(PoisonError::into_inner).iter() {
                is_any_abandoned |= tap.tell(end);
            }
            // A worker waits for no lock; there are more calls.
            if is_any_abandoned && let Ok(mut taps) = self.taps.try_write() {
                self.end_abandoned(&mut taps, end.stats.ended_ns);
            }
        }
    }

    /// Begins to tell of the calls that the filter takes, with their headers if those are wanted.
    ///
    /// # Errors
    /// There are [`MOST_TAPS`] already.
    pub fn tap(self: &Arc<Self>, filter: TapFilter, with_headers: bool) -> Result<OpenTap, TooManyTaps> {
        let mut taps = self.taps.write().unwrap_or_else(PoisonError::into_inner);
        // Those whose calls have ceased, too.
        self.end_abandoned(&mut taps, monotonic_ns());
        if taps.len() >= MOST_TAPS {
            return Err(TooManyTaps);
        }
        let id = self.next_tap.fetch_add(1, Relaxed);
        let (tap, open) = Tap::open(self, id, filter, with_headers);
        taps.push(tap);
        self.who.fetch_or(HAS_TAPS, Relaxed);
        Ok(open)
    }

    /// Ends a tap.
    pub(super) fn end_tap(&self, id: u64) {
        self.end_taps_that(|tap| tap.id == id);
    }

    /// Ends all taps: what is queued for them still comes out.
    pub fn end_taps(&self) {
        self.end_taps_that(|_| true);
    }

    fn end_taps_that(&self, ends: impl Fn(&Tap) -> bool) {
        let mut taps = self.taps.write().unwrap_or_else(PoisonError::into_inner);
        self.keep(&mut taps, |tap| !ends(tap));
    }

    /// Ends those that nobody reads any more, and lets go of what is in them.
    fn end_abandoned(&self, taps: &mut Vec<Tap>, now_ns: u64) {
        self.keep(taps, |tap| {
            let is_abandoned = tap.is_abandoned(now_ns);
            if is_abandoned {
                tap.give_up();
            }
            !is_abandoned
        });
    }

    fn keep(&self, taps: &mut Vec<Tap>, stays: impl Fn(&Tap) -> bool) {
        taps.retain(|tap| stays(tap));
        if taps.is_empty() {
            self.who.fetch_and(!HAS_TAPS, Relaxed);
        }
    }

    /// How many taps are open.
    pub fn taps(&self) -> usize {
        self.taps.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
