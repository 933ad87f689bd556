//! Sends everything back.

use anyhow::Result;
use clap::Args;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

const BUFFER_BYTES: usize = 64 * 1024;

/// Arguments of `peer echo`.
#[derive(Args)]
pub(super) struct Echo {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    udp: bool,
    /// Speak first, as mail and database servers do: one line that names the client's address.
    #[arg(long)]
    greet: bool,
}

impl Echo {
    pub(super) fn run(self) -> Result<()> {
        if self.udp {
            return self.udp();
        }
        let listener = TcpListener::bind(self.listen)?;
        println!("ready {}", listener.local_addr()?);
        for stream in listener.incoming() {
            let stream = stream?;
            let greet = self.greet;
            std::thread::spawn(move || {
                if let Err(error) = echo(&stream, greet) {
                    eprintln!("{error}");
                }
            });
        }
        Ok(())
    }

    fn udp(&self) -> Result<()> {
        let socket = UdpSocket::bind(self.listen)?;
        println!("ready {}", socket.local_addr()?);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let (length, peer) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..length], peer)?;
        }
    }
}

fn echo(mut stream: &TcpStream, greet: bool) -> Result<()> {
    let peer = stream.peer_addr()?.ip().to_canonical();
    println!("accepted {peer}");
    if greet {
        stream.write_all(format!("welcome {peer}\n").as_bytes())?;
    }
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            stream.shutdown(Shutdown::Write)?;
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
