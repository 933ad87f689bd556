//! The project's one command line. `cargo xtask demo` and `cargo xtask test` do everything on a fresh machine.
//!
//! Every command is a file: [`setup`] finds or installs what is missing, [`build`] makes the kernel programs (by the
//! recipe in [`ebpf`]) and then the agent that carries them, and [`demo`],
//! [`mod@test`], [`mod@bench`], [`image`] and [`cluster`] start there; [`lint`] and [`chart`] check without building, [`kernel_test`]
//! emulates another kernel, [`mod@fuzz`] tries what nobody thought of.

mod bench;
mod build;
mod cache;
mod chart;
mod cluster;
mod consumers;
mod debian;
mod demo;
mod ebpf;
mod fuzz;
mod go_module;
mod image;
mod kernel_test;
mod lint;
mod process;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

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
    /// A real Kubernetes on this machine: nodes as namespaces, nothing but built from source (needs root)
    Cluster(cluster::Options),
    /// Runs every test: units, the suites that need a kernel, the peers (needs root)
    Test(test::Options),
    /// Checks the Helm chart, and that the kustomize base is the chart's
    Chart(chart::Options),
    /// Makes the agent's image, without a container engine
    Image(image::Options),
    /// Checks format, lints, documentation, licences and sources
    Lint,
    /// Fuzzes frames, header blocks and sniffing, each for a bounded time
    Fuzz(fuzz::Options),
    /// Measures what a call costs, beside other proxies (needs root)
    Bench(bench::Options),
    /// Runs the agent on another kernel, emulated: an enrolled pod's calls must be taken and spread there
    KernelTest(kernel_test::Options),
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    match Workspace::find().and_then(|workspace| run(&workspace, command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(workspace: &Workspace, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup => setup::everything().map(drop),
        Command::Build(options) => build::start(workspace, &options),
        Command::Demo(options) => demo::start(workspace, &options),
        Command::Cluster(options) => cluster::start(workspace, options),
        Command::Test(options) => test::start(workspace, &options),
        Command::Chart(options) => chart::start(workspace, &options),
        Command::Image(options) => image::start(workspace, &options),
        Command::Lint => lint::start(workspace),
        Command::Fuzz(options) => fuzz::start(workspace, &options),
        Command::Bench(options) => bench::start(workspace, &options),
        Command::KernelTest(options) => kernel_test::start(workspace, &options),
    }
}
