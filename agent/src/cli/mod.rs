//! What a person types.
//!
//! `agent` and `proxy` are thin calls into [`crate::app`]. What looks at agents that run is asked of their admin endpoints: `reach` finds
//! and asks them, `session` is one command's talk with them, `output` prints what they say.

use crate::app;
use crate::config::{AgentArgs, ProxyArgs};
use crate::telemetry::bears_colours;
use crate::telemetry::log::{LogFormat, start};
use anyhow::{Result, anyhow};
use clap::{ColorChoice, Parser, Subcommand};
use std::io::{stderr, stdout};
use std::process::ExitCode;

mod check;
mod completions;
mod endpoints;
mod explain;
mod log;
mod man;
mod output;
mod pods;
mod profile;
mod reach;
mod services;
mod session;
mod status;
mod tap;
mod top;

/// Balances every gRPC call of a Kubernetes node's pods over the Service's endpoints, without sidecars.
#[derive(Parser, Debug)]
#[command(name = "evenkeel", version, about, arg_required_else_help = true, color = colours_of_help())]
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
    /// Shows the agents: whether they are ready, how many pods they have enrolled, what is wrong
    Status(status::StatusArgs),
    /// Shows pods: enrolled, or why not; their connections
    Pods(pods::PodsArgs),
    /// Shows Service ports: balanced, or why not
    Services(services::ServicesArgs),
    /// Shows where calls go: each endpoint's calls, failures, latency, and whether it is left out
    Endpoints(endpoints::EndpointsArgs),
    /// Shows what happens now: calls a second, failures, latency
    Top(top::TopArgs),
    /// Shows calls as they end, one after the other
    Tap(tap::TapArgs),
    /// Says what would become of a call of a pod's, and why, without sending anything
    Explain(Box<explain::ExplainArgs>),
    /// Shows or changes what the agents log
    Log(log::LogArgs),
    /// Shows where an agent's CPU time or memory goes, by stack
    Profile(profile::ProfileArgs),
    /// Prints what a shell needs to complete these commands
    Completions(completions::CompletionsArgs),
    /// Writes the manual's pages
    Man(man::ManArgs),
}

/// As all that is printed; by itself clap writes them on a dumb terminal where `CI` is set.
fn colours_of_help() -> ColorChoice {
    if bears_colours(&stdout()) || bears_colours(&stderr()) { ColorChoice::Auto } else { ColorChoice::Never }
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = start_log(&cli).and_then(|()| match cli.command {
        Command::Agent(args) => app::agent(args.check().map_err(|message| anyhow!(message))?),
        Command::Proxy(args) => app::proxy(args.check().map_err(|message| anyhow!(message))?),
        Command::Check(args) => check::run(args),
        Command::Status(args) => status::run(&args),
        Command::Pods(args) => pods::run(&args),
        Command::Services(args) => services::run(&args),
        Command::Endpoints(args) => endpoints::run(&args),
        Command::Top(args) => top::run(args),
        Command::Tap(args) => tap::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    });
    outcome.unwrap_or_else(|error| {
        // One line, whatever the log's filter: what went wrong, and because of what.
        output::complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn start_log(cli: &Cli) -> Result<()> {
    start(&cli.log, cli.log_format).map_err(|error| anyhow!("--log {:?}: {error}", cli.log))
}
