//! What a person types. Each subcommand is a thin call into [`crate::app`].

use crate::app;
use crate::config::{AgentArgs, ProxyArgs};
use crate::telemetry::log::{self, LogFormat};
use anyhow::{Result, anyhow};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod check;

/// Balances every gRPC call of a Kubernetes node's pods over the Service's endpoints, without sidecars.
#[derive(Parser, Debug)]
#[command(name = "evenkeel", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What is logged: error, warn, info, debug or trace, also per module, as info,evenkeel::proxy=debug
    #[arg(long, env = "EVENKEEL_LOG", value_name = "FILTER", default_value = "info", global = true)]
    log: String,
    /// Log lines as text or JSON
    #[arg(long, env = "EVENKEEL_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Takes the gRPC connections of enrolled pods of this node and balances their calls
    Agent(AgentArgs),
    /// The same call path without eBPF: listens, and balances every call over the endpoints
    Proxy(ProxyArgs),
    /// Says what this node has and lacks for the agent
    Check(check::CheckArgs),
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = start_log(&cli).and_then(|()| match cli.command {
        Command::Agent(args) => app::agent(args.check().map_err(|message| anyhow!(message))?),
        Command::Proxy(args) => app::proxy(args.check().map_err(|message| anyhow!(message))?),
        Command::Check(args) => Ok(check::run(args)),
    });
    outcome.unwrap_or_else(|error| {
        // One line, whatever the log's filter: what went wrong, and because of what.
        eprintln!("evenkeel: {error:#}");
        ExitCode::FAILURE
    })
}

fn start_log(cli: &Cli) -> Result<()> {
    log::start(&cli.log, cli.log_format).map_err(|error| anyhow!("--log {:?}: {error}", cli.log))
}
