//! A connection of the load: calls go out, answers come in and are checked. It knows just as much of HTTP/2 as that takes, so that
//! the load's core is not the one that is busy first. [`blocks`](super::blocks) are the requests' headers.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use loona_hpack::Decoder;
use mio::net::TcpStream;

use super::blocks::Blocks;
use super::frame::{self, Frame};
use crate::backend::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::scenario::Scenario;
use crate::wire::{Answer, Order, PREFIX};

/// How long a proxy may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The windows' value before anybody says otherwise (RFC 9113 §6.9.2).
const INITIAL_WINDOW: u32 = 65_535;
const INITIAL_WINDOW_SIZE: u16 = 4;
const HEADER_TABLE_SIZE: u16 = 1;
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// The table that [`Blocks`] were encoded for.
const BLOCKS_TABLE: u32 = 4096;

/// A call that is to be made, or is under way.
#[derive(Clone, Copy)]
pub(super) struct Begun {
    pub(super) order: Order,
    /// When it was due.
    pub(super) due: Instant,
}

/// A call that has ended, and who answered; an error is whatever makes it a bad one.
pub(super) struct Ended {
    pub(super) begun: Begun,
    pub(super) outcome: Result<u8, String>,
}

struct Call {
    begun: Begun,
    answer: Answer,
    has_status: bool,
}

pub(super) struct Connection {
    pub(super) socket: TcpStream,
    scenario: &'static Scenario,
    blocks: Blocks,
    /// A frame's beginning.
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    decoder: Decoder<'static>,
    /// A header block that is to be continued: its stream, the flags of its HEADERS, its bytes.
    block: Option<(u32, u8, Vec<u8>)>,
    calls: HashMap<u32, Call>,
    /// Calls that wait for a stream or for credit.
    waiting: VecDeque<Begun>,
    next_stream: u32,
    max_streams: u32,
    /// Credit for what is sent on the connection.
    credit: i64,
    stream_credit: u32,
    /// Bytes of bodies since the last credit given.
    received: u32,
}

impl Connection {
    pub(super) fn open(to: SocketAddr, scenario: &'static Scenario, blocks: Blocks) -> Result<Self> {
        ensure!(
            scenario.messages * (scenario.message + PREFIX) < STREAM_WINDOW as usize,
            "an answer fits into its stream's window, which is never topped up"
        );
        let socket = std::net::TcpStream::connect_timeout(&to, CONNECT_LIMIT)
            .with_context(|| format!("cannot connect to {to}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let mut output = frame::PREFACE.to_vec();
        let mut settings = vec![0, 2, 0, 0, 0, 0];
        settings.extend_from_slice(&INITIAL_WINDOW_SIZE.to_be_bytes());
        settings.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
        frame::write(&mut output, frame::SETTINGS, 0, 0, &settings);
        let more = CONNECTION_WINDOW - INITIAL_WINDOW;
        frame::write(&mut output, frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        Ok(Self {
            socket: TcpStream::from_std(socket),
            scenario,
            blocks,
            input: Vec::new(),
            output,
            sent: 0,
            decoder: Decoder::new(),
            block: None,
            calls: HashMap::new(),
            waiting: VecDeque::new(),
            next_stream: 1,
            max_streams: u32::MAX,
            credit: INITIAL_WINDOW.into(),
            stream_credit: INITIAL_WINDOW,
            received: 0,
        })
    }

    /// Makes a call, as soon as the peer lets it.
    pub(super) fn begin(&mut self, begun: Begun) {
        self.waiting.push_back(begun);
        self.begin_waiting();
    }

    fn begin_waiting(&mut self) {
        let size = PREFIX + self.scenario.request;
        while self.calls.len() < self.max_streams as usize
            && self.credit >= size as i64
            && self.stream_credit as usize >= size
            && let Some(begun) = self.waiting.pop_front()
        {
            let stream = self.next_stream;
            self.next_stream += 2;
            frame::write(&mut self.output, frame::HEADERS, frame::END_HEADERS, stream, self.blocks.next());
            let at = self.output.len();
            frame::write(&mut self.output, frame::DATA, frame::END_STREAM, stream, &[]);
            begun.order.write(self.scenario.request, &mut self.output);
            self.output[at..at + 3].copy_from_slice(&(size as u32).to_be_bytes()[1..]);
            self.credit -= size as i64;
            self.calls.insert(stream, Call { begun, answer: Answer::new(begun.order), has_status: false });
        }
    }

    /// Reads what has come; `ended` gets the calls that it ends.
    ///
    /// # Errors
    /// The connection is over, or the peer breaks the protocol.
    pub(super) fn read(&mut self, buffer: &mut [u8], ended: &mut Vec<Ended>) -> Result<()> {
        loop {
            let held = self.input.len();
            buffer[..held].copy_from_slice(&self.input);
            let read = match self.socket.read(&mut buffer[held..]) {
                Ok(0) => bail!("the connection was closed"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..held + read];
            while let Some((frame, after)) = Frame::first(rest) {
                self.take(&frame, ended)?;
                rest = after;
            }
            self.input.clear();
            self.input.extend_from_slice(rest);
            self.begin_waiting();
            // A short read has emptied the socket; an edge will tell of more.
            if held + read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, frame: &Frame<'_>, ended: &mut Vec<Ended>) -> Result<()> {
        let is_ack = frame.flags & frame::ACK != 0;
        match frame.kind {
            frame::DATA => {
                self.received += frame.payload.len() as u32;
                if self.received >= CONNECTION_WINDOW / 2 {
                    let received = std::mem::take(&mut self.received).to_be_bytes();
                    frame::write(&mut self.output, frame::WINDOW_UPDATE, 0, 0, &received);
                }
                let content = frame.content().context("DATA with too much padding")?;
                let Some(call) = self.calls.get_mut(&frame.stream) else { return Ok(()) };
                let taken = call.answer.take(content);
                if taken.is_err() || frame.flags & frame::END_STREAM != 0 {
                    self.end(frame.stream, taken.and(Err("no trailers".to_owned())), ended);
                }
            }
            frame::HEADERS => {
                let content = frame.content().context("HEADERS with too much padding")?;
                if frame.flags & frame::END_HEADERS != 0 {
                    self.headers(frame.stream, frame.flags, content, ended)?;
                } else {
                    self.block = Some((frame.stream, frame.flags, content.to_vec()));
                }
            }
            frame::CONTINUATION => {
                let (stream, flags, mut block) = self.block.take().context("CONTINUATION of nothing")?;
                block.extend_from_slice(frame.payload);
                if frame.flags & frame::END_HEADERS != 0 {
                    self.headers(stream, flags, &block, ended)?;
                } else {
                    self.block = Some((stream, flags, block));
                }
            }
            frame::RST_STREAM => {
                let code = frame.number().unwrap_or_default();
                self.end(frame.stream, Err(format!("reset with code {code}")), ended);
            }
            frame::SETTINGS if !is_ack => {
                self.settings(frame.payload)?;
                frame::write(&mut self.output, frame::SETTINGS, frame::ACK, 0, &[]);
            }
            frame::PING if !is_ack => {
                frame::write(&mut self.output, frame::PING, frame::ACK, 0, frame.payload);
            }
            frame::GOAWAY => bail!("the proxy goes away: {:?}", frame.payload),
            // A stream's own credit is never topped up: a request fits into what it begins with.
            frame::WINDOW_UPDATE if frame.stream == 0 => {
                self.credit += i64::from(frame.number().context("WINDOW_UPDATE without a number")?);
            }
            _ => {}
        }
        Ok(())
    }

    fn settings(&mut self, payload: &[u8]) -> Result<()> {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                HEADER_TABLE_SIZE => {
                    ensure!(value >= BLOCKS_TABLE, "the proxy's HPACK table has {value} bytes");
                }
                MAX_CONCURRENT_STREAMS => self.max_streams = value,
                INITIAL_WINDOW_SIZE => self.stream_credit = value,
                _ => {}
            }
        }
        Ok(())
    }

    fn headers(&mut self, stream: u32, flags: u8, block: &[u8], ended: &mut Vec<Ended>) -> Result<()> {
        let (mut status, mut bad) = (false, None);
        let decoded = self.decoder.decode_with_cb(block, |name, value| match &*name {
            b":status" if *value != *b"200" => {
                bad = Some(format!("HTTP status {}", value.escape_ascii()));
            }
            b"grpc-status" => {
                status = true;
                if *value != *b"0" {
                    bad = Some(format!("grpc-status {}", value.escape_ascii()));
                }
            }
            b"grpc-message" => bad = Some(format!("grpc-message {}", value.escape_ascii())),
            _ => {}
        });
        if let Err(error) = decoded {
            bail!("a header block that cannot be decoded: {error:?}");
        }
        let Some(call) = self.calls.get_mut(&stream) else { return Ok(()) };
        call.has_status |= status;
        if let Some(bad) = bad {
            self.end(stream, Err(bad), ended);
        } else if flags & frame::END_STREAM != 0 {
            let outcome = if call.has_status { Ok(()) } else { Err("no grpc-status".to_owned()) };
            self.end(stream, outcome, ended);
        }
        Ok(())
    }

    fn end(&mut self, stream: u32, outcome: Result<(), String>, ended: &mut Vec<Ended>) {
        if let Some(Call { begun, answer, .. }) = self.calls.remove(&stream) {
            ended.push(Ended { begun, outcome: outcome.and_then(|()| answer.finish()) });
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn flush(&mut self) -> Result<()> {
        while self.sent < self.output.len() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(0) => bail!("the connection was closed"),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(())
    }

    /// The call that has been under way for the longest time.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let waiting = self.waiting.front().map(|begun| begun.due);
        self.calls.values().map(|call| call.begun.due).chain(waiting).min()
    }
}
