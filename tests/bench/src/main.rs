//! What a call costs, beside other proxies.
//!
//! The proxy under test is pinned to one core; the load and three backends to another. Every scenario is run against
//! every peer in turn, round after round (A B C, A B C), so that what happens to the machine happens to all of them.
//! What counts is CPU time of the proxy alone, over the calls that were answered, and in each round its ratio to one
//! peer's; the report gives medians. No call may be bad: a wrong, short or failed answer ends the run.
//!
//! The files, in the order of a run: [`rounds`] starts [`peers`] and [`backend`]s, shows that each balances, and runs
//! [`load`] for each [`scenario`]; `load` reads the proxy's [`cpu`] time; [`report`] makes the table.

mod backend;
mod collector;
mod cpu;
mod load;
mod peers;
mod pod;
mod process;
mod relay;
mod report;
mod rounds;
mod scenario;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An allocator for load and backends that costs little, since their core is the one that is short.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measures what a call costs, beside other proxies")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    rounds: rounds::Options,
}

/// The other processes of a run: the same program.
#[derive(Subcommand)]
enum Role {
    /// A gRPC server
    #[command(hide = true)]
    Backend(backend::Options),
    /// A gRPC client that counts and checks
    #[command(hide = true)]
    Load(load::Options),
    /// An OTLP collector
    #[command(hide = true)]
    Collector,
    /// A relay of bytes
    #[command(hide = true)]
    Relay(relay::Options),
}

fn main() -> ExitCode {
    let Arguments { role, rounds } = Arguments::parse();
    let outcome = match role {
        None => rounds::run(&rounds),
        Some(Role::Backend(options)) => backend::run(&options),
        Some(Role::Load(options)) => load::run(&options),
        Some(Role::Collector) => collector::run(),
        Some(Role::Relay(options)) => relay::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
