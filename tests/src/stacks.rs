//! Clients and servers on other gRPC stacks than Rust's, each of which connects in its own way: grpc-go, Python's grpcio, Node's grpc-js.
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
    /// @grpc/grpc-js, on Node's HTTP/2.
    Node,
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
                let mut command = Command::new(python("python")?);
                command.arg(sources("python").join("load.py"));
                command
            }
            Stack::Node => {
                let mut command = Command::new("node");
                command.arg(sources("node").join("load.js")).env("NODE_PATH", node_modules()?);
                command
            }
        };
        command.args(["--to", to]).args(options);
        Ok(Load { process: self.spawn(&format!("client-{stack:?}"), command)? })
    }

    /// A greeter on grpc-go, on the target port of the cluster's Services, with options of its own.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn serve_on_go(&self, options: &[&str]) -> Result<Server> {
        let mut command = Command::new(go_peer()?);
        let listen = format!("[::]:{}", cluster::GREETER_TARGET_PORT);
        command.args(["serve", "--listen", &listen, "--name", &self.name]).args(options);
        let mut process = self.spawn("server-Go", command)?;
        process.line("ready")?;
        Ok(Server { process, name: self.name.clone() })
    }
}

pub(crate) fn sources(stack: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(stack)
}

/// The folder for what is built here, and a lock on it: several test processes may want the same peer at once.
pub(crate) fn workshop() -> Result<(PathBuf, File)> {
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

/// h2spec, the conformance test of HTTP/2, and the plain HTTP/2 server that stands behind the proxy while it runs.
#[derive(Debug)]
pub struct H2spec {
    /// The test: `--host HOST --port PORT --junit-report FILE`.
    pub program: PathBuf,
    /// The server: `--listen ADDRESS`; says `ready ADDRESS`.
    pub server: PathBuf,
}

impl H2spec {
    /// Builds both: the version that their Go module names.
    ///
    /// # Errors
    /// When the toolchain cannot build them.
    pub fn build() -> Result<Self> {
        let (folder, _lock) = workshop()?;
        let built = Self { program: folder.join("h2spec"), server: folder.join("h2spec-server") };
        let source = sources("h2spec");
        for (output, package) in
            [(&built.program, "github.com/summerwind/h2spec/cmd/h2spec"), (&built.server, ".")]
        {
            let (source, output) = (source.to_string_lossy(), output.to_string_lossy());
            host::run("go", &["-C", &source, "build", "-o", &output, package], "").context("h2spec")?;
        }
        Ok(built)
    }
}

/// The Python of a virtual environment with exactly what that peer requires.
pub(crate) fn python(peer: &str) -> Result<PathBuf> {
    let (folder, _lock) = workshop()?;
    let environment = folder.join(peer);
    let python = environment.join("bin/python");
    let requirements = sources(peer).join("requirements.txt");
    once_for(&requirements, &environment, || {
        host::run("python3", &["-m", "venv", "--clear", &environment.to_string_lossy()], "")?;
        let list = requirements.to_string_lossy();
        let install = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "-r", &list];
        host::run(&python.to_string_lossy(), &install, "").context("a Python peer's requirements")
    })?;
    Ok(python)
}

/// The Node peer's packages, exactly those of its lock file.
fn node_modules() -> Result<PathBuf> {
    let (folder, _lock) = workshop()?;
    let prefix = folder.join("node");
    let locked = sources("node").join("package-lock.json");
    once_for(&locked, &prefix, || {
        fs::create_dir_all(&prefix)?;
        for file in ["package.json", "package-lock.json"] {
            fs::copy(sources("node").join(file), prefix.join(file))?;
        }
        let prefix = prefix.to_string_lossy();
        host::run("npm", &["ci", "--silent", "--ignore-scripts", "--prefix", &prefix], "")
            .context("the Node peer's packages")
    })?;
    Ok(prefix.join("node_modules"))
}

/// Makes `folder` anew unless it was made from this very `list`, a copy of which is put into it last.
pub(crate) fn once_for(list: &Path, folder: &Path, make: impl FnOnce() -> Result<String>) -> Result<()> {
    let made_from = folder.join("made-from");
    let wanted = fs::read(list)?;
    if fs::read(&made_from).ok().as_ref() != Some(&wanted) {
        make()?;
        fs::write(&made_from, &wanted)?;
    }
    Ok(())
}
