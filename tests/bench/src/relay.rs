//! Copies bytes both ways between a client's connection and one to a backend, and reads none of them: the practical
//! limit for any proxy. It balances connections in turn, not calls.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};

use anyhow::{Context, Result};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

const LISTENER: Token = Token(usize::MAX);
/// One for all connections: what does not go on at once is copied aside.
const BUFFER: usize = 64 << 10;

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long, value_delimiter = ',', required = true)]
    to: Vec<SocketAddr>,
}

/// One direction's end of a relayed connection; its partner is the other slot of the pair.
struct End {
    socket: TcpStream,
    /// Bytes that this socket did not take yet.
    waiting: Vec<u8>,
    partner: usize,
    /// Whether its peer has said all.
    finished: bool,
}

/// Relays until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener =
        TcpListener::bind(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut ends: Slab<End> = Slab::new();
    let mut backends = options.to.iter().cycle();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let backend = TcpStream::connect(*backends.next().context("no backend")?)?;
                    pair(&poll, &mut ends, client, backend)?;
                }
                continue;
            }
            let end = event.token().0;
            if !ends.contains(end) {
                continue;
            }
            let mut alive = true;
            if event.is_writable() {
                alive = flush(&mut ends[end]).is_ok();
                // Its partner may have stopped reading for it.
                alive = alive && copy(&mut ends, end, true, &mut buffer).is_ok();
            }
            if alive && event.is_readable() {
                alive = copy(&mut ends, end, false, &mut buffer).is_ok();
            }
            let both_finished = ends[end].finished && ends[ends[end].partner].finished;
            if !alive || both_finished {
                let partner = ends[end].partner;
                ends.remove(end);
                ends.remove(partner);
            }
        }
    }
}

fn pair(poll: &Poll, ends: &mut Slab<End>, client: TcpStream, backend: TcpStream) -> Result<()> {
    let first = ends.vacant_key();
    for socket in [client, backend] {
        socket.set_nodelay(true)?;
        let slot = ends.insert(End { socket, waiting: Vec::new(), partner: first, finished: false });
        if slot != first {
            ends[first].partner = slot;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut ends[slot].socket, Token(slot), interest)?;
    }
    Ok(())
}

/// Copies from `end` to its partner (or back), until the source is empty or the target is full.
fn copy(ends: &mut Slab<End>, end: usize, back: bool, buffer: &mut [u8]) -> io::Result<()> {
    let partner = ends[end].partner;
    let (from, to) = if back { (partner, end) } else { (end, partner) };
    while ends[to].waiting.is_empty() && !ends[from].finished {
        let read = match ends[from].socket.read(buffer) {
            Ok(0) => {
                ends[from].finished = true;
                return ends[to].socket.shutdown(Shutdown::Write);
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // The connection to the backend is still being made.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
            Err(error) => return Err(error),
        };
        let written = write(&mut ends[to].socket, &buffer[..read])?;
        ends[to].waiting.extend_from_slice(&buffer[written..read]);
        // A short read has emptied the socket; an edge will tell of more.
        if read < buffer.len() {
            return Ok(());
        }
    }
    Ok(())
}

fn flush(end: &mut End) -> io::Result<()> {
    let written = write(&mut end.socket, &end.waiting)?;
    end.waiting.drain(..written);
    Ok(())
}

/// How many bytes the socket took.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => written += taken,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
