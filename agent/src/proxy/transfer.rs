//! What comes from a connection and goes to it: its socket, whether that is ready, one read or a few a turn, and one write. What was read
//! goes on to the [engine](super::engine).

use super::conns::ConnId;
use super::fairness::{self, READ_BUDGET_BYTES};
use super::socket;
use super::worker::Worker;
use crate::mesh::{DestinationId, PodKey};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::io::{self, ErrorKind};
use std::sync::atomic::Ordering::Relaxed;

/// The read buffer: the budget behind the longest frame start that a connection can have kept (16 KiB and a frame header).
pub(super) const READ_BUFFER_BYTES: usize = READ_BUDGET_BYTES + (17 << 10);

/// A connection's socket, and what is known of it.
pub(super) struct Socket {
    pub(super) stream: TcpStream,
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
    pub(super) stirred: bool,
    /// What it is read in a turn.
    read_budget: usize,
    /// A client's: what it counts as in the census.
    client: Option<(DestinationId, Option<PodKey>)>,
}

impl Worker {
    /// Takes in a connection.
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

    /// The kernel has something to tell of a connection.
    pub(super) fn socket_is_ready(&mut self, conn: ConnId, event: &Event) {
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

    pub(super) fn queue_read(&mut self, conn: ConnId) {
        if let Some(Some(socket)) = self.sockets.get_mut(conn.index())
            && socket.readable
            && !socket.ended
            && !socket.in_read_queue
        {
            socket.in_read_queue = true;
            self.read_queue.push_back(conn);
        }
    }

    pub(super) fn queue_flush(&mut self, conn: ConnId) {
        if let Some(Some(socket)) = self.sockets.get_mut(conn.index())
            && socket.writable
            && !socket.in_flush_queue
        {
            socket.in_flush_queue = true;
            self.flush_queue.push_back(conn);
        }
    }

    /// Reads until the kernel has no more, or the budget is used up.
    pub(super) fn read(&mut self, conn: ConnId) {
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
    pub(super) fn write(&mut self, conn: ConnId) {
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

    /// Lets go of a connection.
    pub(super) fn close(&mut self, mut socket: Socket, reset: bool) {
        if reset {
            socket::reset_on_close(&socket.stream);
        }
        let _ = self.poll.registry().deregister(&mut socket.stream);
        if let Some((destination, pod)) = &socket.client {
            self.shared.mailboxes[self.index].connections.fetch_sub(1, Relaxed);
            self.shared.census.leave(*destination, pod.as_ref());
        }
    }
}
