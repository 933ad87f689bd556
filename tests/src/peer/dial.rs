//! One connection, and what the app sees of it.

use super::socket::SocketOptions;
use anyhow::Result;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// A datagram that nobody answers must not hold the test.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Arguments of `peer dial`.
#[derive(Args)]
pub(super) struct Dial {
    #[command(flatten)]
    socket: SocketOptions,
    #[arg(long)]
    udp: bool,
    /// A line to send; the echo's answer is one line too.
    #[arg(long, default_value = "hello")]
    send: String,
}

/// What a dial came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dialled {
    /// Connected and answered.
    Answered {
        /// `getpeername`.
        peername: SocketAddr,
        /// `getsockname`.
        sockname: SocketAddr,
        /// The answer's first line.
        reply: String,
    },
    /// The error, by the name of its kind.
    Failed(String),
}

impl Dial {
    pub(super) fn run(self) -> Result<()> {
        let dialled = match if self.udp { self.udp() } else { self.tcp() } {
            Ok(answered) => answered,
            Err(error) => Dialled::Failed(format!("{error:#}")),
        };
        println!("dialled {}", serde_json::to_string(&dialled)?);
        Ok(())
    }

    fn tcp(&self) -> Result<Dialled> {
        let mut stream = self.socket.connect()?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(format!("{}\n", self.send).as_bytes())?;
        let mut reply = String::new();
        BufReader::new(&stream).read_line(&mut reply)?;
        Ok(Dialled::Answered {
            peername: stream.peer_addr()?,
            sockname: stream.local_addr()?,
            reply: reply.trim_end().to_owned(),
        })
    }

    fn udp(&self) -> Result<Dialled> {
        let socket = self.socket.connect_udp()?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        socket.send(format!("{}\n", self.send).as_bytes())?;
        let mut reply = [0; 1024];
        let length = socket.recv(&mut reply)?;
        Ok(Dialled::Answered {
            peername: socket.peer_addr()?,
            sockname: socket.local_addr()?,
            reply: String::from_utf8_lossy(&reply[..length]).trim_end().to_owned(),
        })
    }
}
