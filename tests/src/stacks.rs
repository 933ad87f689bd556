//! Clients and servers on other gRPC stacks than Rust's, each of which connects in its own way: grpc-go and Python's grpcio.
//!
//! They are built on first use, beside this build's binaries, and again when their sources or requirements change.

use crate::peers::{Load, Server};
use crate::{Pod, cluster, host};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A gRPC stack that is not tonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stack {
    /// grpc-go.
    Go,
    /// Python's grpcio, on gRPC's C core.
    Python,
}

impl Pod {
    /// A client on another stack that calls `to`; options are those of `peer load` that all stacks have: rate, calls.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn load_on(&self, stack: Stack, to: &str, options: &[&str]) -> Result<Load> {
        let mut command = match stack {
            Stack::Go => {
                let mut command = Command::new(go_peer()?);
                command.arg("load");
                command
            }
            Stack::Python => {
                let mut command = Command::new(python()?);
                command.arg(sources("python").join("load.py"));
                command
            }
        };
        command.args(["--to", to]).args(options);
        Ok(Load { process: self.spawn(&format!("client-{stack:?}"), command)? })
    }

    /// A greeter on grpc-go, on the target port of the cluster's Services.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn serve_on_go(&self) -> Result<Server> {
        let mut command = Command::new(go_peer()?);
        let listen = format!("[::]:{}", cluster::GREETER_TARGET_PORT);
        command.args(["serve", "--listen", &listen, "--name", &self.name]);
        let mut process = self.spawn("server-Go", command)?;
        process.line("ready")?;
        Ok(Server { process, name: self.name.clone() })
    }
}

fn sources(stack: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(stack)
}

/// The folder for what is built here, and a lock on it: several test processes may want the same peer at once.
fn workshop() -> Result<(PathBuf, File)> {
    let folder = host::binaries()?.join("peers");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    Ok((folder, lock))
}

/// Builds the Go peer: the toolchain itself knows when there is nothing to do.
fn go_peer() -> Result<PathBuf> {
    let (folder, _lock) = workshop()?;
    let program = folder.join("grpc-go");
    let output = program.to_string_lossy();
    let source = sources("go");
    host::run("go", &["-C", &source.to_string_lossy(), "build", "-o", &output, "."], "")
        .context("the grpc-go peer")?;
    Ok(program)
}

/// The Python of a virtual environment with exactly the peer's requirements.
fn python() -> Result<PathBuf> {
    let (folder, _lock) = workshop()?;
    let environment = folder.join("python");
    let python = environment.join("bin/python");
    let requirements = sources("python").join("requirements.txt");
    // Copied in last: an environment without it is not complete.
    let installed = environment.join("requirements.txt");
    if fs::read(&installed).ok() != Some(fs::read(&requirements)?) {
        host::run("python3", &["-m", "venv", "--clear", &environment.to_string_lossy()], "")?;
        let requirements_path = requirements.to_string_lossy();
        host::run(
            &python.to_string_lossy(),
            &["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "-r", &requirements_path],
            "",
        )
        .context("the Python peer's requirements")?;
        fs::copy(&requirements, &installed)?;
    }
    Ok(python)
}
