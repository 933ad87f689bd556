//! Clients that ask for much and hardly read it, each in a manner of its own, in HTTP/2 frames made by hand: a gRPC library would
//! not do it.

use super::socket::SocketOptions;
use crate::greeter::HelloRequest;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use prost::Message;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How a client does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manner {
    /// The streams' windows are zero, for ever.
    ZeroWindow,
    /// A stream's window is one byte, and one byte more when that has come.
    ByteByByte,
    /// The windows are wide open, and nobody reads the socket.
    Unread,
    /// The streams' windows open and shut again and again, by SETTINGS.
    Flips,
}

/// Arguments of `peer stall`.
#[derive(Args, Clone)]
pub(super) struct Stall {
    #[command(flatten)]
    socket: SocketOptions,
    #[arg(long, value_enum)]
    manner: Manner,
    #[arg(long)]
    connections: u32,
    /// Calls on each connection.
    #[arg(long)]
    streams: u32,
    /// Half of a flip; and the time in which a byte-by-byte reader takes what has come.
    #[arg(long, default_value_t = 5)]
    pause_milliseconds: u64,
}

/// What each call asks for: far more than windows and buffers on the way hold.
const REPLIES: u32 = 200;
const REPLY_BYTES: u32 = 60_000;

const MAX_WINDOW: u32 = (1 << 31) - 1;
/// What the connection's window is without a word (RFC 9113 §6.9.2).
const FIRST_WINDOW: u32 = 65_535;
/// SETTINGS_INITIAL_WINDOW_SIZE.
const INITIAL_WINDOW_SIZE: u16 = 4;
/// By how much a window that flips is wider each time.
const FLIP_BYTES: u32 = 1_000;
/// Frame types and flags (RFC 9113 §6).
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const WINDOW_UPDATE: u8 = 0x8;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const ACK: u8 = 0x1;
const FRAME_HEADER_BYTES: usize = 9;

impl Stall {
    pub(super) fn run(self) -> Result<()> {
        let connections = (0..self.connections).map(|_| self.ask()).collect::<Result<Vec<TcpStream>>>()?;
        println!("stalling");
        std::thread::scope(|scope| {
            for connection in &connections {
                scope.spawn(|| {
                    // The agent may end such a connection: that is not this client's failure.
                    if let Err(error) = self.stall(connection) {
                        eprintln!("{error:#}");
                    }
                });
            }
        });
        // Connections that are not read stay open until somebody kills the process.
        loop {
            std::thread::park();
        }
    }

    /// A connection with all its calls asked for.
    fn ask(&self) -> Result<TcpStream> {
        let window = match self.manner {
            Manner::ZeroWindow | Manner::Flips => 0,
            Manner::ByteByByte => 1,
            Manner::Unread => MAX_WINDOW,
        };
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        settings(&mut bytes, window);
        // The peer's SETTINGS are its first frame; they are acknowledged without being looked at.
        frame(&mut bytes, SETTINGS, ACK, 0, &[]);
        window_update(&mut bytes, 0, MAX_WINDOW - FIRST_WINDOW);
        let request = HelloRequest { replies: REPLIES, reply_bytes: REPLY_BYTES, ..HelloRequest::default() };
        for number in 0..self.streams {
            let stream = 2 * number + 1;
            frame(&mut bytes, HEADERS, END_HEADERS, stream, &header_block());
            frame(&mut bytes, DATA, END_STREAM, stream, &grpc_message(&request));
        }
        let mut connection = self.socket.connect()?;
        connection.write_all(&bytes).context("asking")?;
        Ok(connection)
    }

    fn stall(&self, connection: &TcpStream) -> Result<()> {
        let pause = Duration::from_millis(self.pause_milliseconds);
        match self.manner {
            Manner::ZeroWindow => read_all(connection, pause, |_, _, _| ()),
            Manner::ByteByByte => read_all(connection, pause, |stream, bytes, answer| {
                window_update(answer, stream, bytes);
            }),
            Manner::Unread => Ok(()),
            Manner::Flips => flip(connection, pause),
        }
    }
}

/// Reads frames until the connection's end; `answer` gets each DATA frame's stream and length, and a buffer for what to say.
fn read_all(
    mut connection: &TcpStream,
    pause: Duration,
    mut answer: impl FnMut(u32, u32, &mut Vec<u8>),
) -> Result<()> {
    let mut incoming = std::io::BufReader::new(connection);
    let (mut header, mut payload, mut output) = ([0; FRAME_HEADER_BYTES], Vec::new(), Vec::new());
    loop {
        incoming.read_exact(&mut header)?;
        let [a, b, c, kind, _, stream @ ..] = header;
        let length = u32::from_be_bytes([0, a, b, c]);
        payload.resize(length as usize, 0);
        incoming.read_exact(&mut payload)?;
        if kind == DATA && length > 0 {
            answer(u32::from_be_bytes(stream), length, &mut output);
        }
        if incoming.buffer().is_empty() && !output.is_empty() {
            std::thread::sleep(pause);
            connection.write_all(&output)?;
            output.clear();
        }
    }
}

/// Opens and shuts the streams' windows until the connection's end, and reads what comes.
fn flip(mut connection: &TcpStream, pause: Duration) -> Result<()> {
    connection.set_read_timeout(Some(pause))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut open = 0;
    loop {
        open = (open + FLIP_BYTES).min(MAX_WINDOW);
        for window in [open, 0] {
            let mut bytes = Vec::new();
            settings(&mut bytes, window);
            connection.write_all(&bytes)?;
            match connection.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => std::thread::sleep(pause),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = (payload.len() as u32).to_be_bytes();
    out.extend([length[1], length[2], length[3], kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

fn settings(out: &mut Vec<u8>, initial_window: u32) {
    let mut setting = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    setting.extend(initial_window.to_be_bytes());
    frame(out, SETTINGS, 0, 0, &setting);
}

fn window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    frame(out, WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// A request for a stream of replies, without any table (RFC 7541 §6).
fn header_block() -> Vec<u8> {
    const POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    /// Literals without indexing whose names are the static table's.
    const AUTHORITY: &[u8] = &[0x01];
    const PATH: &[u8] = &[0x04];
    const CONTENT_TYPE: &[u8] = &[0x0f, 0x10];
    /// A literal without indexing, its name behind it.
    const TE: &[u8] = b"\x00\x02te";
    let mut block = vec![POST, SCHEME_HTTP];
    for (name, value) in [
        (PATH, "/evenkeel.test.Greeter/Download"),
        (AUTHORITY, "greeter.shop"),
        (CONTENT_TYPE, "application/grpc"),
        (TE, "trailers"),
    ] {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block
}

fn grpc_message(message: &HelloRequest) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(message);
    bytes
}
