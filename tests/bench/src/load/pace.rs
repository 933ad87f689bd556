//! The moments at which calls of an open loop are due.

use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Moments with exponential gaps, each sent when it has come. A thread of its own sleeps more precisely than tokio's
/// timer, which counts in milliseconds; what it comes late shows in the latency, as that counts from the due time.
pub(super) fn poisson(per_second: f64) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    thread::spawn(move || {
        let mut random = fastrand::Rng::new();
        let mut due = Instant::now();
        loop {
            // 1 - f64() is in (0, 1], so that its logarithm is finite.
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / per_second);
            if let Some(rest) = due.checked_duration_since(Instant::now()) {
                thread::sleep(rest);
            }
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}
