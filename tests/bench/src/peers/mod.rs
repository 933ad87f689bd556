//! The proxies that are compared, each with one worker, no access log, and calls (not connections) in turn. The next
//! file is `rounds.rs`.

mod envoy;
mod haproxy;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cpu;
use crate::process::{Core, Process, pinned};

/// How long a proxy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(50);

/// A proxy to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Copies bytes and reads none: the limit
    Relay,
    /// `evenkeel proxy`: the call path without eBPF
    Evenkeel,
    Haproxy,
    Envoy,
}

/// Where the programs are.
#[derive(clap::Args)]
pub(crate) struct Programs {
    /// The evenkeel program, built with --release
    #[arg(long, env = "EVENKEEL_BIN")]
    evenkeel: Option<PathBuf>,
    #[arg(long, default_value = "/usr/sbin/haproxy")]
    haproxy: PathBuf,
    #[arg(long)]
    envoy: Option<PathBuf>,
}

/// A proxy that runs.
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Programs {
    /// The proxy's program, if it is here.
    pub(crate) fn of(&self, kind: Kind) -> Option<PathBuf> {
        let program = match kind {
            Kind::Relay => std::env::current_exe().ok(),
            Kind::Evenkeel => self.evenkeel.clone(),
            Kind::Haproxy => Some(self.haproxy.clone()),
            Kind::Envoy => self.envoy.clone(),
        };
        program.filter(|program| program.exists())
    }
}

impl Kind {
    /// Whether it sees calls, so that those of one connection can go to several backends.
    pub(crate) fn balances_calls(self) -> bool {
        self != Self::Relay
    }

    /// Starts it on the proxy's core, its files and log in `folder`.
    ///
    /// # Errors
    /// If it does not listen in time; the message has what it said.
    pub(crate) fn start(self, program: &Path, backends: &[SocketAddr], folder: &Path) -> Result<Peer> {
        let address = free_address()?;
        let mut command = pinned(Core::Proxy, program);
        let to = backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let listen = address.to_string();
        match self {
            Self::Relay => command.args(["relay", "--listen", &listen, "--to", &to]),
            Self::Evenkeel => command
                .args([
                    "proxy",
                    "--listen",
                    &listen,
                    "--to",
                    &to,
                    "--workers",
                    "1",
                    "--picker",
                    "round-robin",
                ])
                .args(["--log", "warn"]),
            Self::Haproxy => haproxy::arguments(&mut command, address, backends, folder)?,
            Self::Envoy => envoy::arguments(&mut command, address, backends, folder)?,
        };
        let log = folder.join(format!("{self}.log"));
        let process =
            listening(&mut command, address, &log).with_context(|| format!("cannot start {self}"))?;
        Ok(Peer { kind: self, address, process })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Evenkeel => "evenkeel",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        })
    }
}

impl Peer {
    /// Its process and those that it started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        cpu::family(self.process.pid())
    }
}

fn listening(command: &mut Command, address: SocketAddr, log: &Path) -> Result<Process> {
    let mut process = Process::start(command, log)?;
    let start = std::time::Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if process.has_ended() || start.elapsed() > START_LIMIT {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("it does not listen on {address}; it said: {}", said.trim());
        }
        std::thread::sleep(START_POLL);
    }
    Ok(process)
}

/// An address that nobody uses now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}
