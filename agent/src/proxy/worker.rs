//! A worker thread: its own epoll loop around its own [`Engine`]. Nothing in it waits but the poll, nothing is locked for a
//! call, and what a turn wrote to a connection goes out in one write.

use super::census::Census;
use super::counters::SharedCounters;
use super::engine::{Action, ConnId, Engine};
use super::socket::{self, Dialer};
use super::target::Origin;
use super::workers::{Applied, ListenerId};
use crate::clock::monotonic_ns;
use crate::mesh::{DestinationId, Pod, PodKey, Snapshot};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// What one connection may be read in a turn: many small calls do not wait for another connection's bulk.
const READ_BUDGET_BYTES: usize = 64 << 10;
/// The read buffer: the budget behind the longest frame start that a connection can have kept (16 KiB and a frame header).
const READ_BUFFER_BYTES: usize = READ_BUDGET_BYTES + (17 << 10);
/// Connections accepted in a turn.
const ACCEPT_BUDGET: usize = 64;
/// The longest sleep: the heartbeat that the kernel programs watch stands still meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

pub(super) const WAKE: Token = Token(usize::MAX);
/// Tokens from here on are listeners'; those below are connections'.
const FIRST_LISTENER: usize = 1 << 32;

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
    Adopt(TcpStream, DestinationId),
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
}

struct Listener {
    id: ListenerId,
    socket: TcpListener,
    source: Source,
    waiting: bool,
}

struct Socket {
    stream: TcpStream,
    connected: bool,
    /// The kernel has said so, and no read or write has found the opposite since.
    readable: bool,
    writable: bool,
    /// The peer's end is in the kernel: read on until it comes out.
    read_closed: bool,
    ended: bool,
    /// A write has found the connection gone; what the peer had said before is still to be read.
    broken: bool,
    in_read_queue: bool,
    in_flush_queue: bool,
    /// A client's: what it counts as in the census.
    client: Option<(DestinationId, Option<PodKey>)>,
}

pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    inbox: Receiver<Command>,
    tick: &'static AtomicU64,
    poll: Poll,
    engine: Engine,
    sockets: Vec<Option<Socket>>,
    listeners: slab::Slab<Listener>,
    accept_queue: VecDeque<usize>,
    /// Listeners that could not accept for want of descriptors or memory, and when they try again.
    accept_later: Vec<usize>,
    accept_later_ns: u64,
    read_queue: VecDeque<ConnId>,
    flush_queue: VecDeque<ConnId>,
    buffer: Box<[u8]>,
    flush: Vec<ConnId>,
    actions: Vec<Action>,
    stopped: bool,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        inbox: Receiver<Command>,
        tick: &'static AtomicU64,
        poll: Poll,
        engine: Engine,
    ) -> Self {
        Self {
            index,
            shared,
            inbox,
            tick,
            poll,
            engine,
            sockets: Vec::new(),
            listeners: slab::Slab::new(),
            accept_queue: VecDeque::new(),
            accept_later: Vec::new(),
            accept_later_ns: 0,
            read_queue: VecDeque::new(),
            flush_queue: VecDeque::new(),
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            flush: Vec::new(),
            actions: Vec::new(),
            stopped: false,
        }
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// If polling fails, which the kernel has no reason for.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stopped {
            match self.poll.poll(&mut events, Some(self.sleep())) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = monotonic_ns();
            self.tick.store(now, Relaxed);
            self.engine.tick(now);
            if !self.accept_later.is_empty() && now >= self.accept_later_ns {
                for listener in std::mem::take(&mut self.accept_later) {
                    self.queue_accept(listener);
                }
            }
            for event in &events {
                self.dispatch(event);
            }
            self.turn();
        }
        Ok(())
    }

    fn sleep(&self) -> Duration {
        if !(self.read_queue.is_empty() && self.flush_queue.is_empty() && self.accept_queue.is_empty()) {
            return Duration::ZERO;
        }
        // A timer that is due in less than a poll's resolution is due a moment later: rounded up, or the loop would spin.
        match self.engine.next_tick_in_ns(monotonic_ns()) {
            Some(due) => Duration::from_nanos(due).max(Duration::from_millis(1)).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        }
    }

    fn dispatch(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKE {
            while let Ok(command) = self.inbox.try_recv() {
                self.obey(command);
            }
        } else if token.0 >= FIRST_LISTENER {
            self.queue_accept(token.0 - FIRST_LISTENER);
        } else {
            self.socket_is_ready(ConnId(token.0 as u32), event);
        }
    }

    fn socket_is_ready(&mut self, conn: ConnId, event: &Event) {
        let Some(Some(socket)) = self.sockets.get_mut(conn.index()) else { return };
        if !socket.connected {
            return self.check_connect(conn);
        }
        let is_error = event.is_error();
        if is_error
            && (socket.ended || !self.engine.reads(conn))
            && let Ok(Some(_)) = socket.stream.take_error()
        {
            self.engine.failed(conn);
            return;
        }
        // What the peer said before it went comes first: the error is behind it.
        socket.read_closed |= event.is_read_closed() || is_error;
        if event.is_readable() || socket.read_closed {
            socket.readable = true;
            self.queue_read(conn);
        }
        if event.is_writable() {
            let Some(Some(socket)) = self.sockets.get_mut(conn.index()) else { return };
            socket.writable = true;
            self.queue_flush(conn);
        }
    }

    fn check_connect(&mut self, conn: ConnId) {
        let Some(Some(socket)) = self.sockets.get_mut(conn.index()) else { return };
        if !matches!(socket.stream.take_error(), Ok(None)) {
            return self.engine.connect_failed(conn);
        }
        match socket.stream.peer_addr() {
            Ok(_) => {
                socket.connected = true;
                socket.writable = true;
                // What has come meanwhile has had its edge.
                socket.readable = true;
                self.engine.connected(conn);
                self.queue_read(conn);
                self.queue_flush(conn);
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(_) => self.engine.connect_failed(conn),
        }
    }

    /// Everything that is ready: accept, read, then write what came of it.
    fn turn(&mut self) {
        for _ in 0..self.accept_queue.len() {
            if let Some(listener) = self.accept_queue.pop_front() {
                self.accept(listener);
            }
        }
        for _ in 0..self.read_queue.len() {
            if let Some(conn) = self.read_queue.pop_front() {
                self.read(conn);
            }
        }
        self.settle();
        for _ in 0..self.flush_queue.len() {
            if let Some(conn) = self.flush_queue.pop_front() {
                self.write(conn);
            }
        }
        // What drained has made room: it is written in the next turn, when others have had theirs.
        self.settle();
        let mailbox = &self.shared.mailboxes[self.index];
        mailbox.counters.publish(&self.engine.counters());
        if self.engine.is_drained() && mailbox.connections.load(Relaxed) == 0 {
            mailbox.drained.store(true, Relaxed);
        }
    }

    fn settle(&mut self) {
        loop {
            let mut flush = std::mem::take(&mut self.flush);
            self.engine.settle(&mut flush);
            for conn in flush.drain(..) {
                self.queue_flush(conn);
            }
            self.flush = flush;
            let mut actions = std::mem::take(&mut self.actions);
            self.engine.take_actions(&mut actions);
            let idle = actions.is_empty();
            for action in actions.drain(..) {
                self.act(action);
            }
            self.actions = actions;
            if idle {
                break;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { conn, pod, address } => {
                let started = (self.shared.dialer.socket(pod.as_deref(), &address))
                    .and_then(|socket| socket::connect(socket, address))
                    .and_then(|(stream, connected)| {
                        self.add(conn, stream, connected, None)?;
                        Ok(connected)
                    });
                match started {
                    Ok(true) => self.engine.connected(conn),
                    Ok(false) => {}
                    Err(_) => self.engine.connect_failed(conn),
                }
            }
            Action::ShutdownWrite { conn } => {
                if let Some(Some(socket)) = self.sockets.get(conn.index()) {
                    // It fails where the peer has gone already.
                    let _ = socket.stream.shutdown(Shutdown::Write);
                }
            }
            Action::Resume { conn } => self.queue_read(conn),
            Action::Close { conn, reset } => {
                if let Some(socket) = self.sockets.get_mut(conn.index()).and_then(Option::take) {
                    self.close(socket, reset);
                }
                self.engine.closed(conn);
            }
        }
    }

    fn close(&mut self, mut socket: Socket, reset: bool) {
        if reset {
            socket::reset_on_close(&socket.stream);
        }
        let _ = self.poll.registry().deregister(&mut socket.stream);
        if let Some((destination, pod)) = &socket.client {
            self.shared.mailboxes[self.index].connections.fetch_sub(1, Relaxed);
            self.shared.census.leave(*destination, pod.as_ref());
        }
    }

    fn add(
        &mut self,
        conn: ConnId,
        mut stream: TcpStream,
        connected: bool,
        client: Option<(DestinationId, Option<PodKey>)>,
    ) -> io::Result<()> {
        let token = Token(conn.index());
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        if self.sockets.len() <= conn.index() {
            self.sockets.resize_with(conn.index() + 1, || None);
        }
        self.sockets[conn.index()] = Some(Socket {
            stream,
            connected,
            readable: false,
            writable: connected,
            read_closed: false,
            ended: false,
            broken: false,
            in_read_queue: false,
            in_flush_queue: false,
            client,
        });
        Ok(())
    }

    fn queue_read(&mut self, conn: ConnId) {
        if let Some(Some(socket)) = self.sockets.get_mut(conn.index())
            && socket.readable
            && !socket.ended
            && !socket.in_read_queue
        {
            socket.in_read_queue = true;
            self.read_queue.push_back(conn);
        }
    }

    fn queue_flush(&mut self, conn: ConnId) {
        if let Some(Some(socket)) = self.sockets.get_mut(conn.index())
            && socket.writable
            && !socket.in_flush_queue
        {
            socket.in_flush_queue = true;
            self.flush_queue.push_back(conn);
        }
    }

    /// Reads until the kernel has no more, or the budget is used up.
    fn read(&mut self, conn: ConnId) {
        let mut budget = READ_BUDGET_BYTES;
        if let Some(Some(socket)) = self.sockets.get_mut(conn.index()) {
            socket.in_read_queue = false;
        }
        while budget > 0 {
            let Some(Some(socket)) = self.sockets.get_mut(conn.index()) else { return };
            if !self.engine.reads(conn) {
                if socket.broken {
                    self.engine.failed(conn);
                }
                return;
            }
            let broken = socket.broken;
            let held = self.engine.restore(conn, &mut self.buffer);
            let space = &mut self.buffer[held..][..budget];
            let size = space.len();
            match socket.stream.read(space) {
                Ok(0) => {
                    socket.ended = true;
                    return if broken { self.engine.failed(conn) } else { self.engine.eof(conn) };
                }
                Ok(read) => {
                    budget -= read;
                    let drained = read < size && !socket.read_closed;
                    socket.readable = !drained;
                    self.engine.receive(conn, &self.buffer[..held + read]);
                    if drained {
                        return;
                    }
                }
                Err(error) => {
                    if error.kind() == ErrorKind::WouldBlock {
                        socket.readable = false;
                    }
                    if held > 0 {
                        self.engine.receive(conn, &self.buffer[..held]);
                    }
                    match error.kind() {
                        ErrorKind::WouldBlock if !broken => return,
                        ErrorKind::Interrupted => {}
                        _ => return self.engine.failed(conn),
                    }
                }
            }
        }
        self.queue_read(conn);
    }

    /// One write of what there is.
    fn write(&mut self, conn: ConnId) {
        let Some(Some(socket)) = self.sockets.get_mut(conn.index()) else { return };
        socket.in_flush_queue = false;
        let output = self.engine.output(conn);
        if output.is_empty() {
            return;
        }
        match socket.stream.write(output) {
            Ok(written) => {
                socket.writable = written == output.len();
                self.engine.sent(conn, written);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.queue_flush(conn),
            Err(_) if !socket.ended && self.engine.reads(conn) => {
                socket.broken = true;
                socket.writable = false;
                socket.readable = true;
                socket.read_closed = true;
                self.queue_read(conn);
            }
            Err(_) => self.engine.failed(conn),
        }
    }

    // ---- listeners

    fn queue_accept(&mut self, listener: usize) {
        if let Some(slot) = self.listeners.get_mut(listener)
            && !slot.waiting
        {
            slot.waiting = true;
            self.accept_queue.push_back(listener);
        }
    }

    fn accept(&mut self, listener: usize) {
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
        match source {
            Source::Pod(_) => {
                self.shared.mailboxes[self.index].connections.fetch_add(1, Relaxed);
                self.take_in(stream, source.origin(), destination);
            }
            Source::Fixed(_) => {
                let least = (self.shared.mailboxes.iter().enumerate())
                    .min_by_key(|(index, mailbox)| (mailbox.connections.load(Relaxed), *index != self.index));
                let worker = least.map_or(self.index, |(index, _)| index);
                self.shared.mailboxes[worker].connections.fetch_add(1, Relaxed);
                if worker == self.index {
                    self.take_in(stream, Origin::Agent, destination);
                } else {
                    self.shared.mailboxes[worker].tell(Command::Adopt(stream, destination));
                }
            }
        }
    }

    /// A connection that is counted already becomes this worker's.
    fn take_in(&mut self, stream: TcpStream, origin: Origin, destination: DestinationId) {
        // Without the options it still works.
        let _ = socket::set_up(&stream);
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

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish(snapshot) => {
                let version = snapshot.version;
                self.engine.publish(snapshot);
                self.shared.applied.set(self.index, version);
            }
            Command::Listen(id, listener, source) => self.listen(id, listener, source),
            Command::Unlisten(id) => self.unlisten(id),
            Command::End(origin, destination) => self.engine.end_origin(&origin, destination),
            Command::Adopt(stream, destination) => self.take_in(stream, Origin::Agent, destination),
            Command::Drain { deadline_ns } => self.engine.drain(deadline_ns),
            Command::Stop => self.stopped = true,
        }
    }

    fn listen(&mut self, id: ListenerId, listener: std::net::TcpListener, source: Source) {
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

    fn unlisten(&mut self, id: ListenerId) {
        let found = self.listeners.iter().find(|(_, listener)| listener.id == id).map(|(index, _)| index);
        if let Some(index) = found {
            let mut listener = self.listeners.remove(index);
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
    }
}
