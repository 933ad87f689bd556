//! Servers and clients inside pods: how they are started and what they said.

use crate::peer::{Dialled, Manner, Opening, Poured};
use crate::wait::eventually_some;
use crate::{Pod, Process, Tally, cluster, host};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use std::process::Command;

/// The name of the demo's binary, which plays the peers itself: `cargo run --bin demo` builds nothing else.
pub const DEMO_BINARY: &str = "demo";

/// A gRPC server in a pod.
#[derive(Debug)]
pub struct Server {
    /// The process: kill it, stop it.
    pub process: Process,
    /// What its replies call it.
    pub name: String,
}

/// A gRPC client in a pod that calls on.
#[derive(Debug)]
pub struct Load {
    /// The process.
    pub process: Process,
}

/// The `peer` program with those arguments.
///
/// # Errors
/// When it has not been built.
pub fn command(arguments: &[&str]) -> Result<Command> {
    let own = std::env::current_exe()?;
    let mut command = if own.file_name().is_some_and(|name| name == DEMO_BINARY) {
        let mut command = Command::new(own);
        command.arg("peer");
        command
    } else {
        let peer = host::binaries()?.join("peer");
        Command::new(host::existing(&peer, "build it with `cargo build -p evenkeel-tests --bins`")?)
    };
    command.args(arguments);
    Ok(command)
}

impl Pod {
    /// A greeter on the target port of the cluster's Services, named as the pod.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self) -> Result<Server> {
        self.serve_on(cluster::GREETER_TARGET_PORT)
    }

    /// A greeter on that port.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve_on(&self, port: u16) -> Result<Server> {
        self.serve_with(port, &[])
    }

    /// A greeter on that port with further options of `peer serve`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve_with(&self, port: u16, options: &[&str]) -> Result<Server> {
        let listen = format!("[::]:{port}");
        let command = command(&[&["serve", "--listen", &listen, "--name", &self.name], options].concat())?;
        let mut process = self.spawn("server", command)?;
        process.line("ready")?;
        Ok(Server { process, name: self.name.clone() })
    }

    /// A gRPC client that calls `to`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn load(&self, to: &str, options: &[&str]) -> Result<Load> {
        let command = command(&[&["load", "--to", to], options].concat())?;
        Ok(Load { process: self.spawn("client", command)? })
    }

    /// Makes so many calls from one channel and waits for their end.
    ///
    /// # Errors
    /// When the client does not end well; failed calls are in the tally.
    pub fn call(&self, to: &str, calls: u64, options: &[&str]) -> Result<Tally> {
        let calls = calls.to_string();
        self.load(to, &[&["--calls", &calls], options].concat())?.finish()
    }

    /// Clients that ask `to` for much, on so many connections with so many streams each, and read it in that manner, which is
    /// hardly. Waits until everything is asked for.
    ///
    /// # Errors
    /// When a connection breaks before that.
    pub fn stall(&self, to: &str, manner: Manner, connections: u32, streams: u32) -> Result<Process> {
        self.stall_with(to, manner, connections, streams, &[])
    }

    /// As [`Self::stall`], with further options of `peer stall`.
    ///
    /// # Errors
    /// When a connection breaks before that.
    pub fn stall_with(
        &self,
        to: &str,
        manner: Manner,
        connections: u32,
        streams: u32,
        options: &[&str],
    ) -> Result<Process> {
        let manner = manner.to_possible_value().context("no manner is hidden")?;
        let (connections, streams) = (connections.to_string(), streams.to_string());
        let mut arguments = vec!["stall", "--to", to, "--manner", manner.get_name()];
        arguments.extend(["--connections", &connections, "--streams", &streams]);
        arguments.extend(options);
        let mut process = self.spawn("stalled-client", command(&arguments)?)?;
        process.line("stalling")?;
        Ok(process)
    }

    /// One connection to an echo.
    ///
    /// # Errors
    /// When the peer cannot be run; a failed connection is a value.
    pub fn dial(&self, to: &str, options: &[&str]) -> Result<Dialled> {
        let command = command(&[&["dial", "--to", to], options].concat())?;
        said(&mut self.spawn("dial", command)?, "dialled ")
    }

    /// An echo on that port, over both address families.
    ///
    /// # Errors
    /// When it does not start.
    pub fn echo(&self, port: u16, options: &[&str]) -> Result<Process> {
        let listen = format!("[::]:{port}");
        let command = command(&[&["echo", "--listen", &listen], options].concat())?;
        let mut process = self.spawn("echo", command)?;
        process.line("ready")?;
        Ok(process)
    }

    /// Sends that many bytes to an echo and has them back.
    ///
    /// # Errors
    /// When one byte differs.
    pub fn pour(&self, to: &str, opening: Opening, bytes: u64) -> Result<Poured> {
        let opening = opening.to_possible_value().context("no opening is hidden")?;
        let bytes = bytes.to_string();
        let command = command(&["pour", "--to", to, "--opening", opening.get_name(), "--bytes", &bytes])?;
        said(&mut self.spawn("pour", command)?, "poured ")
    }
}

/// Waits for the line with that keyword and reads its JSON.
fn said<T: DeserializeOwned>(process: &mut Process, keyword: &str) -> Result<T> {
    let line = process.line(keyword)?;
    Ok(serde_json::from_str(line.trim_start_matches(keyword))?)
}

impl Load {
    /// The count so far.
    ///
    /// # Errors
    /// When the client says something else than counts.
    pub fn tally(&self) -> Result<Tally> {
        let lines = self.process.stdout();
        let told = lines.iter().rev().find(|line| line.starts_with("tally ") || line.starts_with("done "));
        told.map_or_else(|| Ok(Tally::default()), |line| Tally::told(line).with_context(|| line.clone()))
    }

    /// Checks that the client still runs.
    ///
    /// # Errors
    /// With its last words when it has ended.
    pub fn runs(&mut self) -> Result<()> {
        match self.process.ended()? {
            Some(status) => bail!("the client ended ({status}): {}", self.process.stderr().join("\n")),
            None => Ok(()),
        }
    }

    /// Waits until what was counted after `earlier` satisfies `condition`, and gives it.
    ///
    /// # Errors
    /// When it does not come so, or the client has ended.
    pub fn until(
        &mut self,
        what: &str,
        earlier: &Tally,
        condition: impl Fn(&Tally) -> bool,
    ) -> Result<Tally> {
        let waited = eventually_some(what, || {
            let ended = self.process.ended()?;
            let since = self.tally()?.since(earlier);
            if condition(&since) {
                return Ok(Some(since));
            }
            match ended {
                Some(status) => bail!("the client ended ({status}) before: {what}"),
                None => Ok(None),
            }
        });
        waited.with_context(|| format!("the client counted {:?}", self.tally()))
    }

    /// Waits for so many more completed calls, and gives their count.
    ///
    /// # Errors
    /// When they do not come.
    pub fn more_calls(&mut self, calls: u64) -> Result<Tally> {
        let now = self.tally()?;
        self.until(&format!("{calls} more calls"), &now, |tally| tally.completed() >= calls)
    }

    /// Waits until, of so many more completed calls or of more, each of `servers`, and nobody else, got its share, ± `tolerance` of it: of a
    /// few alone, a machine that has much to do gives one server too many. What fails or goes astray is not made up for.
    ///
    /// # Errors
    /// When it does not come so, or a call failed.
    pub fn is_even(&mut self, calls: u64, servers: &[&str], tolerance: f64) -> Result<()> {
        let now = self.tally()?;
        let is_even = |tally: &Tally| tally.completed() >= calls && tally.is_even(servers, tolerance).is_ok();
        self.until("even shares", &now, is_even)?.is_clean()
    }

    /// Asks the client to stop, and gives its last count, when all calls have ended.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(self) -> Result<Tally> {
        self.process.signal(libc::SIGTERM);
        self.finish()
    }

    /// Waits for the client's own end, and gives its last count.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn finish(mut self) -> Result<Tally> {
        said(&mut self.process, "done ")
    }
}
