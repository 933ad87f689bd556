//! The moments at which calls of an open loop are due.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use mio::Waker;

/// Moments with exponential gaps, each sent when it has come, and `waker` woken. A thread of its own sleeps more precisely than a
/// poll, which counts in milliseconds; what it comes late shows in the latency, as that counts from the due time.
pub(super) fn poisson(per_second: f64, waker: Waker) -> Receiver<Instant> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut random = fastrand::Rng::new();
        let mut due = Instant::now();
        loop {
            // 1 - f64() is in (0, 1], so that its logarithm is finite.
            due += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / per_second);
            if let Some(rest) = due.checked_duration_since(Instant::now()) {
                thread::sleep(rest);
            }
            if sender.send(due).is_err() || waker.wake().is_err() {
                return;
            }
        }
    });
    receiver
}
