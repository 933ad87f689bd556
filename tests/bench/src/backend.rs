//! A gRPC server that answers as the request asks, on the project's own HTTP/2 layer: what it costs is as little as it gets, as it
//! shares its core with the load. What the load checks is not that layer's word.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use evenkeel::http2::{Connection, Event, FieldList, HeadersKind, Limits, StreamKey};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::wire::{ORDER, Order, PREFIX};

/// Windows that never make the proxy wait: what is measured is the proxy.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 64 << 20;
/// More than any scenario opens.
const CONCURRENT_STREAMS: u32 = 4096;
/// What is read at once.
const BUFFER: usize = 256 << 10;
/// The layer's owner tells it of the time.
const PERIOD: Duration = Duration::from_secs(1);
const LISTENER: Token = Token(usize::MAX);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What its answers call it
    #[arg(long)]
    number: u8,
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

struct Client {
    socket: TcpStream,
    http2: Connection,
    calls: Slab<Call>,
}

struct Call {
    stream: StreamKey,
    /// The request's beginning.
    head: [u8; PREFIX + ORDER],
    /// Bytes of the request so far.
    seen: usize,
    /// Messages of the answer so far.
    sent: u32,
}

/// What all clients share.
struct Server {
    number: u8,
    buffer: Vec<u8>,
    fields: FieldList,
    message: Vec<u8>,
    /// Calls whose answers have more messages to come: the client's slot and the call's.
    streaming: VecDeque<(usize, usize)>,
    progress: Vec<evenkeel::http2::Progress>,
}

/// Serves until it is killed; its first line is its port.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut listener =
        TcpListener::bind(options.listen).with_context(|| format!("cannot listen on {}", options.listen))?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    stdout.flush()?;

    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut clients: Slab<Client> = Slab::new();
    let mut server = Server {
        number: options.number,
        buffer: vec![0; BUFFER],
        fields: FieldList::new(),
        message: Vec::new(),
        streaming: VecDeque::new(),
        progress: Vec::new(),
    };
    let mut period = Instant::now();
    loop {
        let limit = if server.streaming.is_empty() { PERIOD } else { Duration::ZERO };
        match poll.poll(&mut events, Some(limit)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    accept(&poll, &mut clients, socket)?;
                }
                continue;
            }
            let slot = event.token().0;
            // A client that goes away is nothing to tell.
            if let Some(client) = clients.get_mut(slot)
                && server.serve(slot, client).and_then(|()| server.flush(client)).is_err()
            {
                server.streaming.retain(|(of, _)| *of != slot);
                clients.remove(slot);
            }
        }
        server.stream_on(&mut clients);
        if period.elapsed() > PERIOD {
            period = Instant::now();
            clients.iter_mut().for_each(|(_, client)| client.http2.begin_period());
        }
    }
}

fn accept(poll: &Poll, clients: &mut Slab<Client>, mut socket: TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    let entry = clients.vacant_entry();
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut socket, Token(entry.key()), interest)?;
    let limits = Limits {
        stream_window: STREAM_WINDOW,
        max_stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        max_concurrent_streams: CONCURRENT_STREAMS,
        ..Limits::default()
    };
    entry.insert(Client { socket, http2: Connection::server(&limits), calls: Slab::new() });
    Ok(())
}

impl Server {
    /// Reads what has come, and answers what is complete.
    fn serve(&mut self, slot: usize, client: &mut Client) -> Result<()> {
        loop {
            let held = client.http2.restore(&mut self.buffer);
            let read = match client.socket.read(&mut self.buffer[held..]) {
                Ok(0) => bail!("closed"),
                Ok(read) => read,
                Err(error) => {
                    client.http2.keep(&self.buffer[..held]);
                    match error.kind() {
                        ErrorKind::WouldBlock => return Ok(()),
                        ErrorKind::Interrupted => continue,
                        _ => return Err(error.into()),
                    }
                }
            };
            let buffer = std::mem::take(&mut self.buffer);
            let outcome = self.take(slot, client, &buffer[..held + read]);
            self.buffer = buffer;
            outcome?;
            // A short read has emptied the socket; an edge will tell of more.
            if held + read < self.buffer.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, slot: usize, client: &mut Client, mut input: &[u8]) -> Result<()> {
        while let Some(event) = client.http2.receive(&mut input, &mut self.fields)? {
            match event {
                Event::Headers { stream, kind: HeadersKind::Request, .. } => {
                    let call = Call { stream, head: [0; PREFIX + ORDER], seen: 0, sent: 0 };
                    let call = client.calls.insert(call);
                    client.http2.set_token(stream, call as u32);
                }
                Event::Data { stream, token, payload, end_stream } => {
                    client.http2.grant(stream, payload.len() as u32);
                    let call = &mut client.calls[token as usize];
                    if let Some(rest) = call.head.get_mut(call.seen..) {
                        let more = rest.len().min(payload.len());
                        rest[..more].copy_from_slice(&payload[..more]);
                    }
                    call.seen += payload.len();
                    if end_stream {
                        self.begin_answer(slot, client, token as usize)?;
                    }
                }
                Event::Reset { stream, token, .. } => {
                    self.streaming.retain(|it| *it != (slot, token as usize));
                    client.calls.remove(token as usize);
                    client.http2.release(stream);
                }
                Event::Headers { .. } => bail!("headers that no load sends"),
                Event::GoAway { .. } | Event::Refused { .. } | Event::Settings | Event::Pong(_) => {}
            }
        }
        client.http2.keep(input);
        Ok(())
    }

    fn begin_answer(&mut self, slot: usize, client: &mut Client, call: usize) -> Result<()> {
        let Call { stream, ref head, .. } = client.calls[call];
        let order = Order::decode(head).context("a request without an order")?;
        self.fields.clear();
        self.fields.push(b":status", b"200");
        self.fields.push(b"content-type", b"application/grpc");
        client.http2.send_headers(stream, &self.fields, false);
        if order.messages == 1 {
            while !self.go_on(client, call) {}
        } else {
            self.streaming.push_back((slot, call));
        }
        Ok(())
    }

    /// Sends the next message of an answer, or its end; whether that was the end.
    fn go_on(&mut self, client: &mut Client, call: usize) -> bool {
        let Call { stream, ref head, seen, sent } = client.calls[call];
        let Some(order) = Order::decode(head) else { return true };
        if sent < order.messages {
            self.message.clear();
            order.write_answer(self.number, sent, &mut self.message);
            client.http2.send_data(stream, &self.message, false);
            client.calls[call].sent += 1;
            return false;
        }
        let length = head.get(1..PREFIX).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
        // A request that lost bytes on the way must not be answered as a good one.
        let is_whole = length.is_some_and(|length| seen == PREFIX + length as usize);
        self.fields.clear();
        self.fields.push(b"grpc-status", if is_whole { b"0" } else { b"13" });
        client.http2.send_trailers(stream, &self.fields);
        if client.http2.is_closed(stream) {
            client.http2.release(stream);
            client.calls.remove(call);
        }
        true
    }

    /// One message of each streamed answer: they come one by one, not in a block.
    fn stream_on(&mut self, clients: &mut Slab<Client>) {
        let mut touched = Vec::new();
        for _ in 0..self.streaming.len() {
            let Some((slot, call)) = self.streaming.pop_front() else { break };
            let client = &mut clients[slot];
            let waits = client.http2.queued(client.calls[call].stream) > 0;
            if waits || !self.go_on(client, call) {
                self.streaming.push_back((slot, call));
            }
            if !touched.contains(&slot) {
                touched.push(slot);
            }
        }
        for slot in touched {
            if self.flush(&mut clients[slot]).is_err() {
                self.streaming.retain(|(of, _)| *of != slot);
                clients.remove(slot);
            }
        }
    }

    /// Writes what the socket takes.
    fn flush(&mut self, client: &mut Client) -> Result<()> {
        loop {
            if client.http2.wants_advance() {
                client.http2.advance(&mut self.progress);
                for step in self.progress.drain(..).filter(|step| step.finished) {
                    client.http2.release(step.stream);
                    client.calls.remove(step.token as usize);
                }
            }
            let output = client.http2.output();
            if output.is_empty() {
                return Ok(());
            }
            match client.socket.write(output) {
                Ok(0) => bail!("closed"),
                Ok(written) => client.http2.sent(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
