//! How each kind stands: when it was last in contact, and where it is. For people and programs that ask.

use crate::clock::monotonic_ns;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// How a kind stands, shared between its watch and whoever shows it.
#[derive(Clone, Debug)]
pub(super) struct Standing(Arc<Mutex<Facts>>);

#[derive(Debug)]
struct Facts {
    state: State,
    /// When something came from the API server last, be it to a process before this one, or when we began to wait for it:
    /// nanoseconds of the [`clock`](crate::clock).
    contact_ns: u64,
    version: String,
    objects: usize,
    bytes: u64,
    lists: u64,
    watches: u64,
    failures: u64,
    streaming: bool,
}

/// What a watch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It asks, or waits to ask again.
    Connecting,
    /// The list comes in.
    Listing,
    /// Changes come in.
    Watching,
}

/// How a kind stands now.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct KindView {
    /// Its name, as RBAC rules have it.
    pub kind: &'static str,
    /// What its watch is doing.
    pub state: State,
    /// Seconds since something came from the API server: changes, or the mark that it sends each minute where there are none.
    pub seconds_since_contact: f64,
    /// The resource version up to which everything is known.
    pub resource_version: String,
    /// How many objects are known.
    pub objects: usize,
    /// Whether lists come as streams.
    pub streaming_lists: bool,
    /// Bytes that came, after any decompression.
    pub bytes: u64,
    /// Lists begun.
    pub lists: u64,
    /// Watches begun.
    pub watches: u64,
    /// Tries that failed.
    pub failures: u64,
}

impl Standing {
    /// `contact_ns`: when something came last to a process before this one; 0: it is not known.
    pub(super) fn new(contact_ns: u64) -> Self {
        let now = monotonic_ns();
        Self(Arc::new(Mutex::new(Facts {
            state: State::Connecting,
            contact_ns: if contact_ns == 0 { now } else { contact_ns.min(now) },
            version: String::new(),
            objects: 0,
            bytes: 0,
            lists: 0,
            watches: 0,
            failures: 0,
            streaming: false,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Facts) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A list begins.
    pub(super) fn lists(&self, streaming: bool) {
        self.with(|facts| {
            (facts.state, facts.streaming) = (State::Listing, streaming);
            facts.lists += 1;
        });
    }

    /// A watch begins.
    pub(super) fn watches(&self) {
        self.with(|facts| facts.watches += 1);
    }

    /// Changes come in from now on.
    pub(super) fn is_watching(&self) {
        self.with(|facts| facts.state = State::Watching);
    }

    /// Something came.
    pub(super) fn heard(&self, bytes: usize) {
        self.with(|facts| {
            facts.bytes += bytes as u64;
            facts.contact_ns = monotonic_ns();
        });
    }

    /// Everything up to here is known.
    pub(super) fn is_at(&self, version: &str) {
        self.with(|facts| version.clone_into(&mut facts.version));
    }

    /// The watch has ended, well or not.
    pub(super) fn ended(&self, failed: bool) {
        self.with(|facts| {
            facts.state = State::Connecting;
            facts.failures += u64::from(failed);
        });
    }

    /// So many objects are known.
    pub(super) fn counts(&self, objects: usize) {
        self.with(|facts| facts.objects = objects);
    }

    /// When something came last, for the next process: nanoseconds of the [`clock`](crate::clock).
    pub(super) fn contact_ns(&self) -> u64 {
        self.with(|facts| facts.contact_ns)
    }

    /// How it stands now.
    pub(super) fn view(&self, kind: &'static str) -> KindView {
        self.with(|facts| KindView {
            kind,
            state: facts.state,
            seconds_since_contact: (monotonic_ns().saturating_sub(facts.contact_ns) / 100_000_000) as f64
                / 10.0,
            resource_version: facts.version.clone(),
            objects: facts.objects,
            streaming_lists: facts.streaming,
            bytes: facts.bytes,
            lists: facts.lists,
            watches: facts.watches,
            failures: facts.failures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_as_old_as_it_was_to_the_process_before() {
        let before = Standing::new(0);
        assert!(before.view("pods").seconds_since_contact < 60.0);
        let long_ago = monotonic_ns().saturating_sub(3_600_000_000_000);
        let standing = Standing::new(long_ago.max(1));
        let age = standing.view("pods").seconds_since_contact;
        assert!(age * 1e9 >= (monotonic_ns() - long_ago) as f64 * 0.9, "{age}");
        standing.heard(1);
        assert!(standing.view("pods").seconds_since_contact < 60.0);
        assert!(standing.contact_ns() > long_ago);
    }
}
