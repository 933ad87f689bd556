//! A worker thread: its own epoll loop around its own [`Engine`]. Nothing in it waits but the poll, nothing is locked for a
//! call, and what a turn wrote to a connection goes out in one write.

use super::accept::{FIRST_LISTENER, Listener};
use super::conns::ConnId;
use super::engine::{Action, Engine};
use super::fairness::{self, READ_BUDGET_BYTES};
use super::idle::Idle;
use super::mailbox::{Command, Shared};
use super::socket;
use crate::clock::monotonic_ns;
use crate::mesh::{DestinationId, PodKey};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The read buffer: the budget behind the longest frame start that a connection can have kept (16 KiB and a frame header).
const READ_BUFFER_BYTES: usize = READ_BUDGET_BYTES + (17 << 10);
/// The longest sleep: the heartbeat that the kernel programs watch stands still meanwhile.
pub(super) const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// How often a worker looks at itself: how busy it is, and what the kernel holds of its connections, a tenth of them each time.
const MEASURE_EVERY_NS: u64 = 100_000_000;
const MEASURED_SHARE: usize = 10;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

pub(super) const WAKE: Token = Token(usize::MAX);

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
    /// The kernel may hold something of it.
    stirred: bool,
    /// What it is read in a turn.
    read_budget: usize,
    /// A client's: what it counts as in the census.
    client: Option<(DestinationId, Option<PodKey>)>,
}

pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared>,
    inbox: Receiver<Command>,
    tick: &'static AtomicU64,
    pub(super) poll: Poll,
    pub(super) engine: Engine,
    sockets: Vec<Option<Socket>>,
    pub(super) listeners: slab::Slab<Listener>,
    pub(super) accept_queue: VecDeque<usize>,
    /// Listeners that could not accept for want of descriptors or memory, and when they try again.
    pub(super) accept_later: Vec<usize>,
    pub(super) accept_later_ns: u64,
    read_queue: VecDeque<ConnId>,
    flush_queue: VecDeque<ConnId>,
    buffer: Box<[u8]>,
    flush: Vec<ConnId>,
    actions: Vec<Action>,
    /// Turns in which timers have waited for events that the kernel still has.
    postponed: usize,
    measured_ns: u64,
    idle: Idle,
    /// Time spent in the poll since then.
    slept_ns: u64,
    /// The next connection to be measured.
    measured: usize,
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
            postponed: 0,
            measured_ns: monotonic_ns(),
            idle: Idle::default(),
            slept_ns: 0,
            measured: 0,
            stopped: false,
        }
    }

    /// Turns until told to stop.
    ///
    /// # Errors
    /// If polling fails, which the kernel has no reason for.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Self::events();
        while !self.stopped {
            let sleep = self.sleep();
            let from = if sleep.is_zero() { None } else { Some(monotonic_ns()) };
            match self.poll.poll(&mut events, Some(sleep)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = monotonic_ns();
            self.slept_ns += from.map_or(0, |from| now - from);
            self.turn(&events, now);
            if now - self.measured_ns >= MEASURE_EVERY_NS {
                self.measure_time(now);
                self.measure_buffers();
            }
        }
        Ok(())
    }

    /// Room for what the kernel has to tell.
    pub(super) fn events() -> Events {
        Events::with_capacity(EVENTS)
    }

    /// Tells the other workers how busy this one is: half by the last period, half by those before.
    fn measure_time(&mut self, now: u64) {
        let period = now - self.measured_ns;
        let worked = period.saturating_sub(std::mem::take(&mut self.slept_ns));
        self.measured_ns = now;
        let busy_permille = (worked * 1_000 / period) as u32;
        let busy = &self.shared.mailboxes[self.index].busy_permille;
        busy.store((busy.load(Relaxed) + busy_permille) / 2, Relaxed);
        if self.idle.gives_back(busy_permille, self.engine.held_bytes(), now) {
            self.engine.trim();
            (self.shared.give_memory_back)();
        }
    }

    /// Tells the engine what the kernel holds of the next few connections.
    fn measure_buffers(&mut self) {
        for _ in 0..self.sockets.len().div_ceil(MEASURED_SHARE) {
            let index = self.measured % self.sockets.len();
            self.measured = index + 1;
            if let Some(socket) = &mut self.sockets[index]
                && socket.stirred
            {
                let bytes = socket::kernel_bytes(&socket.stream);
                // What is written or left unread later stirs it again.
                socket.stirred = bytes > 0;
                self.engine.kernel_holds(ConnId(index as u32), bytes);
            }
        }
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
            socket.stirred = true;
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

    /// Everything that is ready: accept, read, see what is overdue, then write what came of it.
    pub(super) fn turn(&mut self, events: &Events, now_ns: u64) {
        self.tick.store(now_ns, Relaxed);
        self.engine.set_time(now_ns);
        if !self.accept_later.is_empty() && now_ns >= self.accept_later_ns {
            for listener in std::mem::take(&mut self.accept_later) {
                self.queue_accept(listener);
            }
        }
        let mut told = 0;
        for event in events {
            told += 1;
            self.dispatch(event);
        }
        for _ in 0..self.accept_queue.len() {
            if let Some(listener) = self.accept_queue.pop_front() {
                self.accept(listener);
            }
        }
        for _ in 0..self.read_queue.len() {
            match self.read_queue.pop_front() {
                Some(conn) if self.engine.has_had_its_share(conn) => self.read_queue.push_back(conn),
                Some(conn) => self.read(conn),
                None => break,
            }
        }
        self.expire(told);
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

    /// Timers, behind the reads. After a long pause the kernel may have more to tell than fits: they wait for that too, but no
    /// longer than it takes to hear of every connection once.
    fn expire(&mut self, told: usize) {
        if told == EVENTS && self.postponed < self.sockets.len() / EVENTS {
            self.postponed += 1;
        } else {
            self.postponed = 0;
            self.engine.expire();
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

    pub(super) fn add(
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
            stirred: true,
            read_budget: READ_BUDGET_BYTES,
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
        let Some(Some(socket)) = self.sockets.get_mut(conn.index()) else { return };
        socket.in_read_queue = false;
        let mut budget = socket.read_budget;
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
            match socket::read(&socket.stream, space) {
                Ok(0) => {
                    socket.ended = true;
                    return if broken { self.engine.failed(conn) } else { self.engine.eof(conn) };
                }
                Ok(read) => {
                    budget -= read;
                    let drained = read < size && !socket.read_closed;
                    socket.readable = !drained;
                    let this = socket.read_budget;
                    self.engine.receive(conn, &self.buffer[..held + read]);
                    let next = fairness::next_read(this, read, self.engine.input_frames());
                    if next != this
                        && let Some(Some(socket)) = self.sockets.get_mut(conn.index())
                    {
                        socket.read_budget = next;
                        if next < this {
                            budget = 0;
                        }
                    }
                    if drained {
                        return;
                    }
                }
                Err(error) => {
                    if error.kind() == ErrorKind::WouldBlock {
                        socket.readable = false;
                    }
                    self.engine.put_back(conn, &self.buffer[..held]);
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
        match socket::write(&socket.stream, output) {
            Ok(written) => {
                socket.writable = written == output.len();
                socket.stirred = true;
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

    fn obey(&mut self, command: Command) {
        match command {
            Command::Publish(snapshot) => {
                let version = snapshot.version;
                self.engine.publish(snapshot);
                self.shared.applied.set(self.index, version);
            }
            Command::Listen(id, listener, source) => self.listen(id, listener, source),
            Command::Unlisten { id, end } => {
                self.unlisten(id);
                if let Some((origin, destination)) = end {
                    for mailbox in &self.shared.mailboxes {
                        mailbox.tell(Command::End(origin.clone(), destination));
                    }
                }
            }
            Command::End(origin, destination) => self.engine.end_origin(&origin, destination),
            Command::Adopt(stream, origin, destination) => self.take_in(stream, origin, destination),
            // Whoever has asked may have gone.
            Command::LookAtConnections(wanted, answer) => {
                drop(answer.send(self.engine.look_at_connections(&wanted, self.index)));
            }
            Command::LookAtCalls(wanted, answer) => {
                drop(answer.send(self.engine.look_at_calls(&wanted, self.index)));
            }
            Command::Drain { deadline_ns } => self.engine.drain(deadline_ns),
            Command::Stop => self.stopped = true,
        }
    }
}
