//! The access log: a line for each call that somebody wants to read of.
//!
//! Worker threads tell their [`Audience`](super::Audience), which puts records into an [`Outlet`]. A thread of the log's own ([`writer`]) makes
//! [`mod@line`]s of them and writes those to the [`sink`]: if that is slow, or takes nothing, records are dropped, and counted.

mod line;
mod sink;
mod writer;

pub use line::{AccessLogFormat, text_line};
pub use sink::AccessLogTo;

use super::{CallRecord, DropCount, Outlet, outlet};
use sink::Sink;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

/// Records that wait for the log's thread, some hundred bytes each: between two batches 400,000 calls a second have room.
const ROOM: usize = 8_192;

/// How long the last lines may take when the program ends: what takes nothing until then takes nothing.
const END_LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked whether records were dropped.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And how often it is said at most.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The access log cannot be opened.
#[derive(Debug)]
pub struct NoAccessLog {
    to: AccessLogTo,
    error: io::Error,
}

impl fmt::Display for NoAccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to, error } = self;
        write!(f, "the access log cannot go to {to}: {error}: choose another place with --access-log-to")
    }
}

impl std::error::Error for NoAccessLog {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// An access log that is written.
#[derive(Debug)]
pub struct AccessLog {
    counts: AccessLogCounts,
    end: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl AccessLog {
    /// Opens the log and starts its thread. What is told at the outlet is written.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn start(
        format: AccessLogFormat,
        to: &AccessLogTo,
    ) -> Result<(Outlet<CallRecord>, Self), NoAccessLog> {
        let wrong = |error| NoAccessLog { to: to.clone(), error };
        let sink = Sink::open(to).map_err(wrong)?;
        let (outlet, inlet) = outlet(ROOM);
        let counts = AccessLogCounts { written: Arc::default(), dropped: inlet.dropped() };
        let (end, end_wanted) = oneshot::channel();
        let (has_ended, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(wrong)?;
        let written = Arc::clone(&counts.written);
        let thread = thread::Builder::new().name("access-log".into()).spawn(move || {
            runtime.block_on(writer::write(inlet, end_wanted, format, sink, &written));
            let _ = has_ended.send(());
        });
        thread.map_err(wrong)?;
        Ok((outlet, Self { counts, end, ended }))
    }

    /// What becomes of the records.
    pub fn counts(&self) -> AccessLogCounts {
        self.counts.clone()
    }

    /// Writes what has been told until now, and ends. Whether all of it could be written.
    pub async fn end(self) -> bool {
        // It may have ended by itself.
        let _ = self.end.send(());
        let is_written = timeout(END_LIMIT, self.ended).await.is_ok();
        if !is_written {
            warn!("the access log takes nothing more: what waits to be written is lost");
        }
        let dropped = self.counts.dropped();
        if dropped > 0 {
            warn!(dropped, written = self.counts.written(), "records of the access log had no room");
        }
        is_written
    }
}

/// What became of the access log's records.
#[derive(Debug, Clone, Default)]
pub struct AccessLogCounts {
    written: Arc<Written>,
    dropped: DropCount,
}

#[derive(Debug, Default)]
struct Written {
    lines: AtomicU64,
    /// That the sink did not take.
    lost: AtomicU64,
    /// Why, the last time.
    error: Mutex<Option<String>>,
}

impl AccessLogCounts {
    /// Lines that were written.
    pub fn written(&self) -> u64 {
        self.written.lines.load(Relaxed)
    }

    /// Records that were not: they had no room, or could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped.count() + self.written.lost.load(Relaxed)
    }

    /// Says in the program's own log that records were dropped, soon, and then once a minute at most.
    pub async fn tell_drops(self) {
        let mut told = 0;
        loop {
            sleep(LOOK_EVERY).await;
            let dropped = self.dropped();
            if dropped == told {
                continue;
            }
            let error = self.written.error.lock().unwrap_or_else(PoisonError::into_inner).take();
            let why = error.unwrap_or_else(|| "it is not written as fast as calls end".to_owned());
            warn!(
                dropped = dropped - told,
                in_all = dropped,
                "records of the access log were dropped: {why}"
            );
            told = dropped;
            let next = Instant::now() + TELL_EVERY;
            tokio::time::sleep_until(next).await;
        }
    }
}
