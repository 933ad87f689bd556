//! How other threads talk to a worker, and what they see of it.

use super::census::Census;
use super::counters::SharedCounters;
use super::look::{CallView, ConnectionView, Shown, Wanted};
use super::shared_use::Ledger;
use super::socket::Dialer;
use super::target::Origin;
use super::workers::{Applied, ListenerId};
use crate::mesh::{DestinationId, Pod, Snapshot};
use mio::Waker;
use mio::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc::Sender;
use tokio::sync::oneshot;

/// What a listener's connections are.
#[derive(Debug, Clone)]
pub enum Source {
    /// A pod's, redirected: the local address carries the destination.
    Pod(Arc<Pod>),
    /// Anyone's, and all to one destination (`evenkeel proxy`); connections to servers are opened in the agent's own
    /// network namespace.
    Fixed(DestinationId),
}

impl Source {
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Pod(pod) => Origin::Pod(Arc::clone(pod)),
            Self::Fixed(_) => Origin::Agent,
        }
    }
}

/// What a worker is told.
pub(super) enum Command {
    Publish(Arc<Snapshot>),
    Listen(ListenerId, std::net::TcpListener, Source),
    Unlisten(ListenerId),
    /// Reset every connection of the origin (to the destination).
    End(Origin, Option<DestinationId>),
    /// A connection that another worker has accepted.
    Adopt(TcpStream, Origin, DestinationId),
    LookAtConnections(Wanted, oneshot::Sender<Shown<ConnectionView>>),
    LookAtCalls(Wanted, oneshot::Sender<Shown<CallView>>),
    Drain {
        deadline_ns: u64,
    },
    Stop,
}

/// What other threads see of a worker, and how they talk to it.
pub(super) struct Mailbox {
    pub(super) inbox: Sender<Command>,
    pub(super) waker: Waker,
    /// Client connections, with those that are on their way here.
    pub(super) connections: AtomicU64,
    /// How much of its time it has worked of late, in thousandths.
    pub(super) busy_permille: AtomicU32,
    /// When it was last alive.
    pub(super) tick: &'static AtomicU64,
    pub(super) counters: SharedCounters,
    pub(super) drained: AtomicBool,
}

impl Mailbox {
    /// Hands the worker a command. One that has stopped does not hear it.
    pub(super) fn tell(&self, command: Command) {
        if self.inbox.send(command).is_ok() {
            // A full eventfd is a wake-up that is on its way already.
            let _ = self.waker.wake();
        }
    }
}

/// What all workers share.
pub(super) struct Shared {
    pub(super) mailboxes: Vec<Mailbox>,
    pub(super) census: Census,
    pub(super) applied: Applied,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) ledger: Ledger,
}
