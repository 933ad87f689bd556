//! A child process whose lines are kept, and which ends with its value.

use crate::wait::eventually_some;
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Lines = Arc<Mutex<Vec<String>>>;

/// Where a process runs: a cgroup, and a network namespace (none: the one of the test itself).
#[derive(Debug)]
pub struct Place {
    /// Of one hierarchy, or of several.
    cgroup_procs: Vec<File>,
    netns: Option<OwnedFd>,
    /// Where the process moves to once it is in a cgroup namespace of its own, if it shall be.
    below_own_root: Option<Vec<File>>,
    own_session: bool,
}

impl Place {
    /// The place of that cgroup and namespace.
    ///
    /// # Errors
    /// When the cgroup has gone.
    pub fn new(cgroup: &Path, netns: Option<OwnedFd>) -> Result<Self> {
        Self::in_all(&[cgroup.to_owned()], netns)
    }

    /// The place of those cgroups, one a hierarchy, and the namespace.
    ///
    /// # Errors
    /// When a cgroup has gone.
    pub fn in_all(cgroups: &[PathBuf], netns: Option<OwnedFd>) -> Result<Self> {
        Ok(Self { cgroup_procs: open_all(cgroups)?, netns, below_own_root: None, own_session: false })
    }

    /// The same place with a cgroup namespace that begins there; the process itself goes on to those cgroups below.
    ///
    /// # Errors
    /// When a cgroup has gone.
    pub fn with_cgroup_namespace(mut self, below: &[PathBuf]) -> Result<Self> {
        self.below_own_root = Some(open_all(below)?);
        Ok(self)
    }

    /// The same place, out of reach of what is typed at this process's terminal.
    #[must_use]
    pub fn in_session_of_its_own(mut self) -> Self {
        self.own_session = true;
        self
    }

    /// Makes `command` start here: in the namespace first, so that whoever learns of the process from its cgroup finds it there.
    pub(crate) fn apply(self, command: &mut Command) {
        let enter = move || {
            if self.own_session {
                // SAFETY: no arguments; fails only for the leader of a group, which a forked child is not.
                unsafe { libc::setsid() };
            }
            if let Some(netns) = &self.netns {
                // SAFETY: an open descriptor, and the child has one thread.
                if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            join(&self.cgroup_procs)?;
            if let Some(below) = &self.below_own_root {
                // SAFETY: no memory is involved, and the child has one thread.
                if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                join(below)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made, no memory is allocated and no lock taken.
        unsafe { command.pre_exec(enter) };
    }
}

fn open_all(cgroups: &[PathBuf]) -> Result<Vec<File>> {
    let open = |cgroup: &PathBuf| {
        let path = cgroup.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).with_context(|| path.display().to_string())
    };
    cgroups.iter().map(open).collect()
}

/// Moves the calling process into those cgroups. Allocates nothing, and takes no lock.
fn join(cgroup_procs: &[File]) -> std::io::Result<()> {
    for procs in cgroup_procs {
        // To the kernel "0" is the writer itself.
        // SAFETY: an open descriptor and one byte of static memory.
        if unsafe { libc::write(procs.as_raw_fd(), b"0".as_ptr().cast(), 1) } != 1 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: Lines,
    stderr: Lines,
}

impl Process {
    /// Starts `command` at `place`; `name` is for messages.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(name: &str, mut command: Command, place: Option<Place>) -> Result<Self> {
        if let Some(place) = place {
            place.apply(&mut command);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: {:?}", command.get_program()))?;
        let stdout = collect(child.stdout.take().context("stdout is piped")?);
        let stderr = collect(child.stderr.take().context("stderr is piped")?);
        Ok(Self { name: name.to_owned(), child, status: None, stdout, stderr })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        // Linux pids fit: pid_max is at most 2^22.
        self.child.id().cast_signed()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        signal_to(self.pid(), signal);
    }

    /// Standard output's lines so far.
    pub fn stdout(&self) -> Vec<String> {
        snapshot(&self.stdout)
    }

    /// The last line of standard output.
    pub fn last_line(&self) -> Option<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).last().cloned()
    }

    /// Standard error's lines so far.
    pub fn stderr(&self) -> Vec<String> {
        snapshot(&self.stderr)
    }

    /// Waits for a line of standard output that starts with `prefix`.
    ///
    /// # Errors
    /// When the process ends before, with its last words.
    pub fn line(&mut self, prefix: &str) -> Result<String> {
        let what = format!("{} says {prefix:?}", self.name);
        eventually_some(&what, || {
            // Looked at before the lines: what it said before its end has been read by the next look.
            let ended = self.ended()?;
            if let Some(line) = self.stdout().into_iter().find(|line| line.starts_with(prefix)) {
                return Ok(Some(line));
            }
            if let Some(status) = ended {
                bail!("{} ended ({status}): {}", self.name, self.stderr().join("\n"));
            }
            Ok(None)
        })
    }

    /// Its exit status, if it has ended and all that it wrote has been read.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        // The readers hold the other references.
        let all_read = Arc::strong_count(&self.stdout) == 1 && Arc::strong_count(&self.stderr) == 1;
        Ok(self.status.filter(|_| all_read))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        eventually_some(&what, || self.ended())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Kills it (SIGKILL) and waits until the kernel has reaped it.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn kill(&mut self) -> Result<()> {
        if self.status.is_none() {
            self.child.kill()?;
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }
}

/// Whether processes' last words are kept back when they are dropped: the demo's screen is no place for them.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Keeps the last words of processes back from now on.
pub fn keep_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

impl Drop for Process {
    fn drop(&mut self) {
        let killed = self.kill();
        if QUIET.load(Ordering::Relaxed) {
            return;
        }
        // The test runner shows this only if the test fails.
        for line in self.stderr() {
            eprintln!("[{}] {line}", self.name);
        }
        if let Some(line) = self.last_line() {
            eprintln!("[{}] last line: {line}", self.name);
        }
        if let Err(error) = killed {
            eprintln!("[{}] {error:#}", self.name);
        }
    }
}

/// Sends a signal to a process or thread of this test's making.
pub fn signal_to(pid: i32, signal: i32) {
    // SAFETY: no memory is involved; a process that has gone gives an error that nobody needs.
    unsafe { libc::kill(pid, signal) };
}

/// The children of a process, all its threads'.
pub fn children(pid: i32) -> Vec<i32> {
    threads(pid)
        .into_iter()
        .filter_map(|thread| std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).ok())
        .flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<i32>>())
        .collect()
}

/// The threads of a process.
pub fn threads(pid: i32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

fn collect(stream: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let sink = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}

fn snapshot(lines: &Lines) -> Vec<String> {
    lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
