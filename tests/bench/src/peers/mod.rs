//! The proxies that are compared, each with one worker, no access log, and calls (not connections) in turn. The next
//! file is `rounds.rs`.

mod envoy;
mod haproxy;
mod objects;
mod redirect;
mod scraper;

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fmt, fs};

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
    /// `evenkeel agent`: the calls of an enrolled pod, taken by eBPF (needs root)
    Redirect,
    /// The same, which counts and tells nothing of calls
    Silent,
    /// The same, which tells all it can: Istio's metrics too, scraped each second, a log of failed calls, spans of 1% of the calls
    Telling,
    /// The redirect to a Service of 1,000 endpoints, of which each has been called
    Crowded,
    /// The same, scraped each second
    CrowdedScraped,
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
    /// For the redirect: the pod that the load must run in.
    inside: Option<redirect::Inside>,
}

impl Programs {
    /// The proxy's program, if it is here.
    pub(crate) fn of(&self, kind: Kind) -> Option<PathBuf> {
        let program = match kind {
            Kind::Relay => std::env::current_exe().ok(),
            Kind::Evenkeel
            | Kind::Redirect
            | Kind::Silent
            | Kind::Telling
            | Kind::Crowded
            | Kind::CrowdedScraped => self.evenkeel.clone(),
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

    /// Whether its Service has so many endpoints that chance decides which backend gets how many calls.
    pub(crate) fn is_crowded(self) -> bool {
        matches!(self, Self::Crowded | Self::CrowdedScraped)
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
            Self::Redirect | Self::Silent | Self::Telling | Self::Crowded | Self::CrowdedScraped => {
                return redirect::start(self, program, backends.len(), folder)
                    .with_context(|| format!("cannot start {self}"));
            }
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
        Ok(Peer { kind: self, address, process, inside: None })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Evenkeel => "evenkeel",
            Self::Redirect => "redirect",
            Self::Silent => "silent",
            Self::Telling => "telling",
            Self::Crowded => "crowded",
            Self::CrowdedScraped => "crowded-scraped",
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

    /// Whether each of its Service's endpoints has been called, where these are many.
    ///
    /// # Errors
    /// If its metrics are not to be had.
    pub(crate) fn are_all_called(&self) -> Result<bool> {
        self.inside.as_ref().map_or(Ok(true), redirect::Inside::are_all_called)
    }

    /// What a scrape of it is, and costs; `None` if it has no metrics.
    ///
    /// # Errors
    /// If they are not to be had.
    pub(crate) fn scrape(&self) -> Result<Option<String>> {
        self.inside.as_ref().map(|inside| inside.scrape(&self.pids())).transpose()
    }

    /// A command on the load's core, from where this peer can be called.
    pub(crate) fn load(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.inside {
            Some(inside) => inside.pod.command(Core::Load, program),
            None => pinned(Core::Load, program),
        }
    }
}

fn listening(command: &mut Command, address: SocketAddr, log: &Path) -> Result<Process> {
    let mut process = Process::start(command, log)?;
    wait_for(&mut process, log, "does not listen", || TcpStream::connect(address).is_ok())?;
    Ok(process)
}

/// Waits until a proxy is `up`.
fn wait_for(process: &mut Process, log: &Path, complaint: &str, up: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !up() {
        if process.has_ended() || start.elapsed() > START_LIMIT {
            let said = fs::read_to_string(log).unwrap_or_default();
            bail!("it {complaint}; it said: {}", said.trim());
        }
        sleep(START_POLL);
    }
    Ok(())
}

/// An address that nobody uses now.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}
