//! What a person types: `cargo xtask cluster up`, `down`, `status`, `kubectl`; and the parts of a cluster that are this program too.

use super::cluster::{Cluster, Options};
use super::daemon::Daemon;
use super::images::ImageStore;
use super::{node_init, registry};
use crate::{host, interrupt};
use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Parser)]
#[command(name = "cargo xtask cluster", about = "A real Kubernetes on this machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a cluster that stays up
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 2)]
        nodes: u8,
        /// Show the nodes nothing but cgroup2
        #[arg(long)]
        cgroup2_only: bool,
        /// IPv6 beside IPv4
        #[arg(long)]
        dual_stack: bool,
    },
    /// Ends it, and removes all that was made for it
    Down,
    /// Says what of it runs
    Status,
    /// Runs kubectl on it
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Shows Evenkeel on it, or on one of its own, as a user types it; ends with 0 only if all went as it should.
    /// On the cluster that is up, first and last, it uninstalls Evenkeel and deletes the namespaces `grpc`, `test` and `evenkeel-system`
    Demo,
    /// Is the first process of a node
    #[command(hide = true)]
    Node(node_init::Arguments),
    /// Serves images to the nodes
    #[command(hide = true)]
    Registry {
        #[arg(long)]
        store: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// Does what the arguments ask for; whether it went as it should.
///
/// # Errors
/// When it cannot be done.
pub fn run() -> Result<bool> {
    let command = Arguments::parse().command;
    ensure!(
        host::privileged(),
        "the cluster's nodes are namespaces and cgroups of this machine: run it as root"
    );
    match command {
        Command::Up { nodes, cgroup2_only, dual_stack } => up(Options { nodes, cgroup2_only, dual_stack }),
        Command::Down => Cluster::end_lasting().map(|()| true),
        Command::Status => status(),
        Command::Kubectl { arguments } => {
            Ok(find()?.command(&[]).args(arguments).status().context("kubectl")?.success())
        }
        Command::Demo => crate::demo::cluster::run(),
        Command::Node(node) => node.run().map(|()| true),
        Command::Registry { store, listen } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(registry::serve(ImageStore::at(&store), listen)).map(|()| true)
        }
    }
}

fn find() -> Result<Cluster> {
    Cluster::find()?.context("no cluster is up: `cargo xtask cluster up` starts one")
}

fn up(options: Options) -> Result<bool> {
    interrupt::listen();
    let start = std::time::Instant::now();
    let cluster = Cluster::start_lasting(options)?;
    cluster.add_agent_image()?;
    println!(
        "{} nodes are Ready and DNS answers, after {:.1} s; try `cargo xtask cluster kubectl get pods -A`",
        options.nodes,
        start.elapsed().as_secs_f64()
    );
    println!("logs and certificates are in {}", cluster.folder().display());
    Ok(true)
}

fn status() -> Result<bool> {
    let cluster = find()?;
    let plane = &cluster.control_plane;
    let nodes = cluster.nodes.iter().map(|node| &node.processes);
    let parts = [&plane.etcd, &plane.api_server, &plane.controllers, &plane.scheduler, &cluster.registry];
    let mut all_run = true;
    for daemon in parts.into_iter().chain(nodes) {
        all_run &= daemon.is_running();
        println!("{:<26}{:<10}{}", daemon.name(), state(daemon), daemon.log().display());
    }
    println!();
    print!("{}", cluster.run(&["get", "nodes", "-o", "wide"])?);
    Ok(all_run)
}

fn state(daemon: &Daemon) -> &'static str {
    if daemon.is_running() { "runs" } else { "ended" }
}
