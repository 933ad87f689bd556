//! Processes on a core of their own, that end with the run.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The proxy's core.
const PROXY_CORE: usize = 1;
/// The core of load and backends.
const LOAD_CORE: usize = 0;

/// Which core a process runs on.
#[derive(Clone, Copy)]
pub(crate) enum Core {
    Proxy,
    Load,
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
}

/// A command that will run on `core`, and dies with the thread that starts it, even if that is killed.
pub(crate) fn pinned(core: Core, program: impl AsRef<OsStr>) -> Command {
    let core = match core {
        Core::Proxy => PROXY_CORE,
        Core::Load => LOAD_CORE,
    };
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &core.to_string()]).arg(program);
    command
}

/// # Errors
/// If the machine has too few cores.
pub(crate) fn check_cores() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    ensure!(
        cores > PROXY_CORE,
        "the proxy under test and its load need a core each; this machine has {cores}"
    );
    Ok(())
}

impl Process {
    /// Starts it; what it prints goes into `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok(Self { child: command.spawn().with_context(|| format!("cannot start {command:?}"))? })
    }

    /// Starts it and waits for its first line.
    ///
    /// # Errors
    /// If it cannot be started, or ends without a line.
    pub(crate) fn start_and_read_line(command: &mut Command) -> Result<(Self, String)> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("the pipe was just made")?;
        let process = Self { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{command:?} ended without a word");
        Ok((process, line.trim().to_owned()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
