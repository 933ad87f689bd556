//! A real Kubernetes on this machine: its programs are built from source and kept in the cache ([`recipe`] says what from
//! what, [`programs`] does it), and the `cluster` program of the tests' crate runs them.

pub(crate) mod programs;
mod recipe;

use std::ffi::OsString;

use anyhow::{Result, ensure};

use crate::process::{become_program, is_root, step};
use crate::workspace::Workspace;
use crate::{chart, image, setup};

/// Names the folder of Kubernetes' programs to the tests.
pub(crate) const PROGRAMS_VARIABLE: &str = "EVENKEEL_CLUSTER_BIN";
/// Names the archive with the agent's image to them.
pub(crate) const IMAGE_VARIABLE: &str = "EVENKEEL_IMAGE";

#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Builds Kubernetes' programs, if they are not in the cache
    Build,
    /// Starts a cluster that stays up, with the images of the agent and of the test peers
    Up(Arguments),
    /// Ends that cluster, and all that was made for it
    Down,
    /// Says what of that cluster runs
    Status,
    /// Runs kubectl on that cluster
    Kubectl(Arguments),
    /// Shows Evenkeel on a cluster as a user types it, and ends with 0 only if it went as it should. On the cluster that is up,
    /// first and last, it uninstalls Evenkeel and deletes the namespaces `grpc`, `test` and `evenkeel-system`
    Demo(Arguments),
}

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Arguments {
    /// Arguments of the command itself
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// # Errors
/// If we are not root, something is missing, a build fails, or the command does.
pub(crate) fn start(workspace: &Workspace, options: Options) -> Result<()> {
    if matches!(options.command, Command::Build) {
        return programs::find_or_build(workspace)
            .map(|folder| step(&format!("Kubernetes' programs are in {}", folder.display())));
    }
    ensure!(is_root(), "the cluster's nodes are namespaces and cgroups of this machine: run it as root");
    let (name, arguments) = match options.command {
        Command::Build => unreachable!("it has returned"),
        Command::Up(Arguments { arguments }) => ("up", arguments),
        Command::Down => ("down", Vec::new()),
        Command::Status => ("status", Vec::new()),
        Command::Kubectl(Arguments { arguments }) => ("kubectl", arguments),
        Command::Demo(Arguments { arguments }) => ("demo", arguments),
    };
    let mut cargo = workspace.cargo();
    // What is taken down needs nothing built: perhaps it cannot be any more.
    if name != "down" {
        cargo.env(PROGRAMS_VARIABLE, programs::find_or_build(workspace)?);
    }
    if matches!(name, "up" | "demo") {
        setup::everything()?;
        cargo
            .env(IMAGE_VARIABLE, image::of_tests_agent(workspace)?)
            .env(chart::TOOLS_VARIABLE, chart::Tools::find_or_build(workspace)?.folder());
    }
    become_program(
        cargo
            .env("EVENKEEL_BIN", workspace.agent(false))
            // With the same selection as `build`'s, so that nothing is built again.
            .args(["run", "--quiet", "--bin", "cluster", "--", name])
            .args(arguments),
    )
}
