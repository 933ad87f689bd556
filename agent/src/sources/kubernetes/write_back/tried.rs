//! What was written of each pod, and when: what holds is not written again, and what was refused not at once.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// What was tried last, each until its time is over.
#[derive(Debug)]
pub(super) struct Tried<What>(HashMap<What, Attempt>);

#[derive(Debug)]
struct Attempt {
    until: Instant,
    /// Why it failed, if it did.
    cause: Option<String>,
}

impl<What> Default for Tried<What> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<What: Eq + Hash> Tried<What> {
    /// Forgets what may be tried again.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, attempt| now < attempt.until);
    }

    /// Forgets what is of no interest any more.
    pub(super) fn keep(&mut self, is_wanted: impl Fn(&What) -> bool) {
        self.0.retain(|what, _| is_wanted(what));
    }

    /// Forgets what failed and is of no interest any more.
    pub(super) fn keep_failures(&mut self, is_wanted: impl Fn(&What) -> bool) {
        self.0.retain(|what, attempt| attempt.cause.is_none() || is_wanted(what));
    }

    pub(super) fn contains(&self, what: &What) -> bool {
        self.0.contains_key(what)
    }

    /// It was tried, with success or (`cause`) without, and is not again for so long.
    pub(super) fn insert(&mut self, what: What, now: Instant, lasts: Duration, cause: Option<String>) {
        self.0.insert(what, Attempt { until: now + lasts, cause });
    }

    /// Why one of them failed: the same each time it is asked, for as long as that stands.
    pub(super) fn cause(&self) -> Option<String> {
        self.0.values().filter_map(|attempt| attempt.cause.as_ref()).min().cloned()
    }
}
