//! `evenkeel profile`: where an agent's CPU time or memory goes, by stack.

use super::output::print;
use super::reach::{self, Agent, Ask, AskError, ReachArgs};
use super::session::{self, complain};
use crate::admin::table::printable;
use crate::telemetry::profile::NOTE;
use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// For how long CPU is looked at if nobody says: a thousand samples of each thread that is busy.
const USUAL_SECONDS: u32 = 10;

/// What `evenkeel profile` takes.
#[derive(Args, Debug)]
pub(super) struct ProfileArgs {
    /// What is looked at
    #[arg(value_enum)]
    what: What,
    /// For how long CPU is looked at; 10 without it
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Write what `go tool pprof` reads into this file; without it, stacks are printed a line each, as flame graphs take them
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    reach: ReachArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// CPU time, of the kernel's functions too
    Cpu,
    /// Memory that is held
    Heap,
}

/// Runs it.
pub(super) fn run(args: &ProfileArgs) -> Result<ExitCode> {
    let (ask, looks) = args.ask()?;
    session::run(async {
        let found = reach::find(&args.reach).await?;
        for (node, why) in &found.missing {
            complain(node, why);
        }
        let agent = match &found.agents[..] {
            [agent] => agent,
            // What is missing is said.
            [] => return Ok(ExitCode::FAILURE),
            agents => {
                bail!("there are {} agents, and a profile is one's: name it by --node or --pod", agents.len())
            }
        };
        let profile = fetch(agent, &ask, args.reach.limit() + looks).await;
        let profile = profile.map_err(|error| anyhow!("{}: {error}", agent.node))?;
        match &args.output {
            None => {
                let lines = String::from_utf8_lossy(&profile);
                let (notes, stacks): (Vec<_>, Vec<_>) =
                    lines.lines().partition(|line| line.starts_with(NOTE));
                for note in notes {
                    complain(&agent.node, note.trim_start_matches(NOTE));
                }
                print(&stacks.into_iter().map(|line| printable(line) + "\n").collect::<String>())?;
            }
            Some(file) => {
                fs::write(file, &profile).with_context(|| format!("cannot write {}", file.display()))?;
                let (file, node, bytes) = (file.display(), printable(&agent.node), profile.len());
                print(&format!("{file}: {bytes} bytes, of {node}; go tool pprof -http=: {file} shows it\n"))?;
            }
        }
        Ok(if found.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

async fn fetch(agent: &Agent, ask: &Ask, limit: Duration) -> Result<Vec<u8>, AskError> {
    let answer = timeout(limit, agent.fetch(ask)).await;
    Ok(answer.unwrap_or(Err(AskError::Silent(limit)))?.to_vec())
}

impl ProfileArgs {
    /// What the agent is asked for, and for how long it looks.
    fn ask(&self) -> Result<(Ask, Duration)> {
        let format = if self.output.is_some() { "pprof" } else { "folded" };
        match (self.what, self.seconds) {
            (What::Cpu, seconds) => {
                let seconds = seconds.unwrap_or(USUAL_SECONDS);
                let parameters = [("format", format), ("seconds", &seconds.to_string())];
                Ok((Ask::get_with("/profile/cpu", parameters), Duration::from_secs(seconds.into())))
            }
            (What::Heap, None) => Ok((Ask::get_with("/profile/heap", [("format", format)]), Duration::ZERO)),
            (What::Heap, Some(_)) => bail!("--seconds is for cpu: what memory is held is so at one moment"),
        }
    }
}
