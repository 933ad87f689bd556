//! A worker's listeners: whose a fresh connection is, where it wanted to go, and which worker has it. Its bytes go on in
//! [`super::worker`].

use super::mailbox::{Command, Source};
use super::socket;
use super::spread;
use super::target::Origin;
use super::worker::{LONGEST_SLEEP, Worker};
use super::workers::ListenerId;
use crate::clock::monotonic_ns;
use crate::mesh::DestinationId;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;

/// Connections accepted in a turn.
const ACCEPT_BUDGET: usize = 64;
/// Tokens from here on are listeners'; those below are connections'.
pub(super) const FIRST_LISTENER: usize = 1 << 32;

pub(super) struct Listener {
    id: ListenerId,
    socket: TcpListener,
    source: Source,
    waiting: bool,
}

impl Worker {
    pub(super) fn queue_accept(&mut self, listener: usize) {
        if let Some(slot) = self.listeners.get_mut(listener)
            && !slot.waiting
        {
            slot.waiting = true;
            self.accept_queue.push_back(listener);
        }
    }

    pub(super) fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPT_BUDGET {
            let Some(slot) = self.listeners.get_mut(listener) else { return };
            slot.waiting = false;
            match slot.socket.accept() {
                Ok((stream, _)) => {
                    let source = slot.source.clone();
                    self.place(stream, &source);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client has gone while it waited.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
                Err(error) => {
                    // Out of descriptors or memory: the backlog holds the connections meanwhile.
                    tracing::warn!(%error, "cannot accept a connection");
                    self.accept_later.push(listener);
                    self.accept_later_ns = monotonic_ns() + LONGEST_SLEEP.as_nanos() as u64;
                    return;
                }
            }
        }
        self.queue_accept(listener);
    }

    /// Finds a fresh connection its destination and its worker.
    fn place(&mut self, stream: TcpStream, source: &Source) {
        let destination = match source {
            Source::Fixed(destination) => Some(*destination),
            Source::Pod(_) => stream.local_addr().ok().and_then(|local| socket::destination_of(local.ip())),
        };
        let Some(destination) = destination else { return socket::reset_on_close(&stream) };
        let pod = match source {
            Source::Pod(pod) => Some(&pod.key),
            Source::Fixed(_) => None,
        };
        self.shared.census.enter(destination, pod);
        let mailboxes = &self.shared.mailboxes;
        let worker = match source {
            Source::Pod(_) => {
                let busy = |worker: usize| mailboxes[worker].busy_permille.load(Relaxed);
                spread::worker_for(self.index, busy, mailboxes.len())
            }
            Source::Fixed(_) => {
                let least = (mailboxes.iter().enumerate())
                    .min_by_key(|(index, mailbox)| (mailbox.connections.load(Relaxed), *index != self.index));
                least.map_or(self.index, |(index, _)| index)
            }
        };
        mailboxes[worker].connections.fetch_add(1, Relaxed);
        if worker == self.index {
            self.take_in(stream, source.origin(), destination);
        } else {
            mailboxes[worker].tell(Command::Adopt(stream, source.origin(), destination));
        }
    }

    /// A connection that is counted already becomes this worker's.
    pub(super) fn take_in(&mut self, stream: TcpStream, origin: Origin, destination: DestinationId) {
        // Without the options it still works.
        let _ = socket::set_up(&stream).and_then(|()| socket::cap_buffers(&stream));
        let pod = match &origin {
            Origin::Pod(pod) => Some(pod.key.clone()),
            Origin::Agent => None,
        };
        if let Some(conn) = self.engine.accepted(origin, destination) {
            if self.add(conn, stream, true, Some((destination, pod.clone()))).is_ok() {
                return;
            }
            self.engine.failed(conn);
        } else {
            socket::reset_on_close(&stream);
        }
        self.shared.mailboxes[self.index].connections.fetch_sub(1, Relaxed);
        self.shared.census.leave(destination, pod.as_ref());
    }

    pub(super) fn listen(&mut self, id: ListenerId, listener: std::net::TcpListener, source: Source) {
        let entry = self.listeners.vacant_entry();
        let index = entry.key();
        let mut socket = TcpListener::from_std(listener);
        let token = Token(FIRST_LISTENER + index);
        match self.poll.registry().register(&mut socket, token, Interest::READABLE) {
            Ok(()) => {
                entry.insert(Listener { id, socket, source, waiting: false });
                // The backlog may hold connections from before.
                self.queue_accept(index);
            }
            Err(error) => tracing::error!(%error, "cannot watch a listener"),
        }
    }

    pub(super) fn unlisten(&mut self, id: ListenerId) {
        let found = self.listeners.iter().find(|(_, listener)| listener.id == id).map(|(index, _)| index);
        if let Some(index) = found {
            let mut listener = self.listeners.remove(index);
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
    }
}
