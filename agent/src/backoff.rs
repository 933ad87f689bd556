//! How long to wait before the next try: longer each time, and never in step with the other nodes' agents. Thousands that
//! list at the same moment have taken control planes down (kubernetes#85342).

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The pause after a first failure, before jitter.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause, before jitter.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double, each between half and one and a half times its length.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next pause; not shorter than what the server asked for.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        jittered(pause).max(asked.unwrap_or_default().min(LONGEST).mul_f64(1.0 + share() / 2.0))
    }

    /// Whether nothing has failed since it went well.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Between half of it and one and a half times it.
pub(crate) fn jittered(length: Duration) -> Duration {
    length.mul_f64(0.5 + share())
}

/// Between nothing and all of it.
pub(crate) fn within(length: Duration) -> Duration {
    length.mul_f64(share())
}

/// From 0 up to 1, another each time, and another in each process: not a secret.
fn share() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_heed_what_the_server_asks_for() {
        let mut backoff = Backoff::default();
        assert!(backoff.pause(None) <= FIRST.mul_f64(1.5));
        for _ in 0..100 {
            assert!(backoff.pause(None) <= LONGEST.mul_f64(1.5));
        }
        assert!(backoff.pause(None) >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.pause(Some(Duration::from_secs(7))) >= Duration::from_secs(7));
        assert!(
            backoff.pause(Some(Duration::MAX)) <= LONGEST.mul_f64(1.5),
            "a server can't send us away for good"
        );
    }
}
