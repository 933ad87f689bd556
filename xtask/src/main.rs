//! The project's one command line. `cargo xtask demo` and `cargo xtask test` do everything on a fresh machine.
//!
//! Every command is a file: [`setup`] finds or installs what is missing, [`build`] makes the kernel programs (by the
//! recipe in [`ebpf`]) and then the agent that carries them, and [`demo`], [`test`], [`lint`], [`bench`] start there.

mod bench;
mod build;
mod debian;
mod demo;
mod ebpf;
mod lint;
mod process;
mod setup;
mod test;
mod workspace;

use clap::{Parser, Subcommand};
use workspace::Workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, shows, tests and measures Evenkeel"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds or installs what the build and the tests need, and says what it does
    Setup,
    /// Builds the kernel programs, then the agent that carries them
    Build(build::Options),
    /// Shows Evenkeel at work on this machine, with real pods, servers and a client (needs root)
    Demo(demo::Options),
    /// Runs every test: units, the suites that need a kernel, the peers (needs root)
    Test(test::Options),
    /// Checks format, lints, documentation, licences and sources
    Lint,
    /// Measures what a call costs, beside other proxies (needs root)
    Bench(bench::Options),
}

fn main() -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match Arguments::parse().command {
        Command::Setup => setup::everything().map(drop),
        Command::Build(options) => build::run_options(&workspace, &options),
        Command::Demo(options) => demo::run_options(&workspace, &options),
        Command::Test(options) => test::run_options(&workspace, &options),
        Command::Lint => lint::run_all(&workspace),
        Command::Bench(options) => bench::run_options(&workspace, &options),
    }
}
