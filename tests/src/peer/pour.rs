//! Many bytes both ways, compared one by one, and the half-closed end of the connection.

use super::socket::SocketOptions;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

const CHUNK_BYTES: usize = 64 * 1024;

/// What the connection starts with, by which a proxy guesses what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Opening {
    /// The record header and first bytes of a TLS ClientHello.
    Tls,
    /// A request line and headers of HTTP/1.1.
    Http1,
    /// The client waits for the server's first line.
    Silent,
    /// The first half of HTTP/2's preface, and then something else.
    HalfPreface,
}

impl Opening {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Tls => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            Self::Http1 => b"POST /upload HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n",
            Self::Silent => b"",
            Self::HalfPreface => b"PRI * HTTP/2",
        }
    }
}

/// Arguments of `peer pour`.
#[derive(Args, Clone)]
pub(super) struct Pour {
    #[command(flatten)]
    socket: SocketOptions,
    #[arg(long, value_enum)]
    opening: Opening,
    #[arg(long)]
    bytes: u64,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poured {
    /// Bytes that came back as they were sent.
    pub bytes: u64,
}

impl Pour {
    pub(super) fn run(self) -> Result<()> {
        let stream = self.socket.connect()?;
        let mut incoming = BufReader::with_capacity(CHUNK_BYTES, stream.try_clone()?);
        if self.opening == Opening::Silent {
            let mut greeting = String::new();
            incoming.read_line(&mut greeting)?;
            ensure!(greeting.starts_with("welcome "), "the server's first line was {greeting:?}");
        }
        let writing = self.clone();
        let writer = std::thread::spawn(move || writing.write(&stream));
        let bytes = self.compare(incoming)?;
        writer.join().ok().context("the writer panicked")??;
        println!("poured {}", serde_json::to_string(&Poured { bytes })?);
        Ok(())
    }

    fn write(&self, mut stream: &TcpStream) -> Result<()> {
        stream.write_all(self.opening.bytes())?;
        let mut noise = Noise::new();
        let mut left = self.bytes;
        let mut chunk = vec![0; CHUNK_BYTES];
        while left > 0 {
            let length = left.min(CHUNK_BYTES as u64) as usize;
            noise.fill(&mut chunk[..length]);
            stream.write_all(&chunk[..length])?;
            left -= length as u64;
        }
        stream.shutdown(Shutdown::Write)?;
        Ok(())
    }

    fn compare(&self, mut incoming: impl Read) -> Result<u64> {
        let mut opening = vec![0; self.opening.bytes().len()];
        incoming.read_exact(&mut opening).context("the opening comes back")?;
        ensure!(opening == self.opening.bytes(), "the opening came back as {opening:?}");
        let mut noise = Noise::new();
        let mut expected = vec![0; CHUNK_BYTES];
        let mut received = vec![0; CHUNK_BYTES];
        let mut total = 0;
        while total < self.bytes {
            let length = (self.bytes - total).min(CHUNK_BYTES as u64) as usize;
            incoming.read_exact(&mut received[..length]).with_context(|| format!("after {total} bytes"))?;
            noise.fill(&mut expected[..length]);
            ensure!(received[..length] == expected[..length], "bytes differ after {total}");
            total += length as u64;
        }
        ensure!(incoming.read(&mut received)? == 0, "more came back than was sent");
        Ok(total)
    }
}

/// The same bytes for the writer and the reader, without a period that a shift could hide in (splitmix64).
struct Noise {
    state: u64,
}

impl Noise {
    fn new() -> Self {
        Self { state: 0x5eed }
    }

    /// Lengths are multiples of eight but for the last one: both sides call with the same.
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}
