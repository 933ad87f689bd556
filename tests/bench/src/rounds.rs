//! The order of a run: start all, show that each balances, then round after round every scenario against every peer.
//! The next file is `load.rs`.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cpu;
use crate::load::Seen;
use crate::peers::{Kind, Peer, Programs};
use crate::process::{Core, Process, check_cores, pinned};
use crate::report::{Measured, Report};
use crate::scenario::{self, Scenario};

const BACKENDS: u16 = 3;
/// Divides by the number of backends.
const BALANCE_CALLS: u64 = 600;
/// Twenty for each of a thousand endpoints: hardly one is left out by chance.
const CROWD_CALLS: u64 = 20_000;
/// And then there is something else that leaves it out.
const CROWD_ROUNDS: usize = 5;
/// A machine that others use is not waited for longer than this before a round; the report says so.
const QUIET_LIMIT: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds: each runs every scenario against every peer
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Scenarios, by default all
    #[arg(long = "scenario", value_delimiter = ',', value_parser = scenario::named)]
    scenarios: Vec<&'static Scenario>,
    /// Peers, by default all that are here; the ratios are to haproxy if it is among them, else to the first
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Kind>,
    /// Seconds that each scenario is measured for
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Print JSON, with every round's figures, instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    programs: Programs,
}

/// # Errors
/// If a peer that was asked for is missing, does not balance, or a call is bad.
pub(crate) fn run(options: &Options) -> Result<()> {
    check_cores()?;
    ensure!(options.rounds > 0, "at least one round");
    let folder = tempfile::tempdir().context("cannot make a folder for the peers' files")?;
    let (_backend_processes, backends) = start_backends()?;
    let peers = start_peers(options, &backends, folder.path())?;
    let scenarios =
        if options.scenarios.is_empty() { scenario::ALL.iter().collect() } else { options.scenarios.clone() };

    for peer in &peers {
        if peer.kind.is_crowded() {
            call_all(peer)?;
        } else if peer.kind.balances_calls() {
            show_balance(peer)?;
        }
    }
    let mut report = Report::new(peers.iter().map(|peer| peer.kind).collect(), scenarios.clone());
    for round in 0..options.rounds {
        for scenario in &scenarios {
            if !cpu::wait_for_quiet(QUIET_LIMIT) {
                report.was_not_quiet();
            }
            for peer in &peers {
                progress(&format!(
                    "round {}/{}: {} through {}",
                    round + 1,
                    options.rounds,
                    scenario.name,
                    peer.kind
                ));
                let seen = load(peer, scenario, &["--seconds", &options.seconds.to_string()])
                    .with_context(|| format!("{} through {}", scenario.name, peer.kind))?;
                report.add(Measured { peer: peer.kind, scenario: scenario.name, round, seen });
            }
        }
    }
    progress("");
    report.resident_kib = peers.iter().map(|peer| (peer.kind, cpu::resident_kib(&peer.pids()))).collect();
    if options.json { report.print_json() } else { report.print_table() }
}

/// Shows what is going on, in one line of a terminal; elsewhere it would only be noise.
fn progress(what: &str) {
    /// Longer than any of our lines.
    const WIDTH: usize = 60;
    if std::io::stderr().is_terminal() {
        eprint!("\r{what:<WIDTH$}\r");
    }
}

fn start_backends() -> Result<(Vec<Process>, Vec<SocketAddr>)> {
    let program = std::env::current_exe()?;
    let mut started = Vec::new();
    for number in 0..BACKENDS {
        let mut command = pinned(Core::Load, &program);
        command.args(["backend", "--number", &number.to_string()]);
        let (process, port) = Process::start_and_read_line(&mut command)?;
        let port = port.parse::<u16>().context("a backend's first line is its port")?;
        started.push((process, SocketAddr::from(([127, 0, 0, 1], port))));
    }
    Ok(started.into_iter().unzip())
}

fn start_peers(options: &Options, backends: &[SocketAddr], folder: &Path) -> Result<Vec<Peer>> {
    let all = [Kind::Relay, Kind::Evenkeel, Kind::Redirect, Kind::Haproxy, Kind::Envoy];
    let wanted = if options.peers.is_empty() { &all[..] } else { &options.peers };
    let mut peers = Vec::new();
    for &kind in wanted {
        match options.programs.of(kind) {
            Some(program) => peers.push(kind.start(&program, backends, folder)?),
            None if options.peers.is_empty() => eprintln!("{kind} is not here: run without it"),
            None => anyhow::bail!("{kind} was asked for, and its program is not here"),
        }
    }
    Ok(peers)
}

/// Whether the calls of one connection fall on all backends alike; a proxy that does less work is no peer.
fn show_balance(peer: &Peer) -> Result<()> {
    let seen = load(peer, &scenario::ALL[0], &["--calls", &BALANCE_CALLS.to_string()])
        .with_context(|| format!("{} was to show that it balances", peer.kind))?;
    let share = BALANCE_CALLS / u64::from(BACKENDS);
    let alike =
        seen.by_backend.len() == usize::from(BACKENDS) && seen.by_backend.iter().all(|calls| *calls == share);
    eprintln!("{}: {BALANCE_CALLS} calls on one connection: {:?}", peer.kind, seen.by_backend);
    ensure!(alike, "{} does not give each backend {share} calls", peer.kind);
    Ok(())
}

/// Has each of very many endpoints called, and says what a scrape costs then.
fn call_all(peer: &Peer) -> Result<()> {
    let what = || format!("{} was to call all its endpoints", peer.kind);
    for _ in 0..CROWD_ROUNDS {
        load(peer, &scenario::ALL[0], &["--calls", &CROWD_CALLS.to_string()]).with_context(what)?;
        if peer.are_all_called().with_context(what)? {
            let scrape = peer.scrape()?.unwrap_or_default();
            eprintln!("{}: all endpoints are called; {scrape}", peer.kind);
            return Ok(());
        }
    }
    anyhow::bail!("{} does not call all its endpoints", peer.kind)
}

fn load(peer: &Peer, scenario: &Scenario, more: &[&str]) -> Result<Seen> {
    let pids = peer.pids().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let output = peer
        .load(std::env::current_exe()?)
        .args(["load", "--to", &peer.address.to_string(), "--scenario", scenario.name, "--pids", &pids])
        .args(more)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the load")?;
    ensure!(output.status.success(), "the load failed");
    serde_json::from_slice(&output.stdout).context("the load's answer is not what it should be")
}
