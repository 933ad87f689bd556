//! How each kind stands: when it was last in contact, and where it is. For people and programs that ask.

use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How a kind stands, shared between its watch and whoever shows it.
#[derive(Clone, Debug)]
pub(super) struct Standing(Arc<Mutex<Facts>>);

#[derive(Debug)]
struct Facts {
    state: State,
    /// When something came from the API server last, and when we began to wait for it.
    contact: Instant,
    version: String,
    objects: usize,
    bytes: u64,
    lists: u64,
    watches: u64,
    failures: u64,
    streaming: bool,
}

/// What a watch is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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
    /// Bytes that came, before any decompression.
    pub bytes: u64,
    /// Lists begun.
    pub lists: u64,
    /// Watches begun.
    pub watches: u64,
    /// Tries that failed.
    pub failures: u64,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Facts {
            state: State::Connecting,
            contact: Instant::now(),
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
            facts.contact = Instant::now();
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

    /// How it stands now.
    pub(super) fn view(&self, kind: &'static str) -> KindView {
        self.with(|facts| KindView {
            kind,
            state: facts.state,
            seconds_since_contact: (facts.contact.elapsed().as_secs_f64() * 10.0).round() / 10.0,
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
