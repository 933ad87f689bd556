//! The programs that run inside pods: gRPC servers and clients (tonic), and plain sockets of every kind.
//!
//! One binary, `peer`, with a subcommand each: [`serve`], [`load`], [`stall`], [`dial`], [`echo`], [`pour`]. What they say on standard output are
//! lines of a keyword and, mostly, JSON: [`crate::peers`] reads them.

mod call;
mod dial;
mod echo;
mod load;
mod pour;
mod serve;
mod socket;
mod stall;

pub use call::{SeenCall, SeenEnd};
pub use dial::Dialled;
pub use load::Kind;
pub use pour::{Opening, Poured};
pub use socket::Family;
pub use stall::Manner;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "peer", about = "Servers and clients for Evenkeel's tests", args_override_self = true)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// A gRPC greeter that answers with its name and whom it saw.
    Serve(serve::Serve),
    /// A gRPC client that calls at a steady rate and counts who answered.
    Load(load::Load),
    /// Clients that ask for much and do not read it.
    Stall(stall::Stall),
    /// One connection: what the app's own socket says of its ends, and the first line of the answer.
    Dial(dial::Dial),
    /// A TCP or UDP server that sends everything back.
    Echo(echo::Echo),
    /// Sends many bytes to an echo, and compares what comes back.
    Pour(pour::Pour),
}

/// Runs the role that the arguments (without the program's name) ask for.
///
/// # Errors
/// When the role cannot be played.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let role = Arguments::parse_from(std::iter::once("peer".to_owned()).chain(arguments)).role;
    match role {
        Role::Serve(serve) => asynchronously(serve.run()),
        Role::Load(load) => asynchronously(load.run()),
        Role::Stall(stall) => stall.run(),
        Role::Dial(dial) => dial.run(),
        Role::Echo(echo) => echo.run(),
        Role::Pour(pour) => pour.run(),
    }
}

fn asynchronously(role: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(role)
}

/// The largest message that clients and servers take: gRPC's own default is 4 MiB with what is around the payload.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Ends when someone asks the process to stop.
async fn asked_to_stop() -> Result<()> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?.recv().await;
    Ok(())
}

/// The payload of `bytes` that both ends know.
fn pattern(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|position| (position.wrapping_mul(31) >> 3) as u8).collect()
}
