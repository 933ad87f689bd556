//! The keeper: holds descriptors, starts the worker process, passes its heartbeat on to the kernel.
//!
//! Ways it ends: the worker never became ready (its own message says why) · SIGTERM or SIGINT, passed on to the worker,
//! which drains and ends · a second one, at once · killed: then the kernel lets go of links and maps, new connections
//! go straight, and the worker, whose socket ends, drains.

use super::handover::{Handover, KEEPER_FD_ENV, Message};
use super::ticks::SharedPage;
use crate::clock::monotonic_ns;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, ExitStatus};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{error, info, warn};

/// How often the workers' oldest tick is passed on: twenty times in the time after which the kernel calls us dead.
const BEAT_EVERY: Duration = Duration::from_millis(50);

/// How long redials wait for a worker that starts again, before new connections go straight instead.
const RESTART_GRACE: Duration = Duration::from_secs(5);

/// The first pause after a worker's death; doubled with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A worker that served this long has not died of its start: the pauses begin again.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// The label under which the worker hands over the kernel's heartbeat map.
pub const HEARTBEAT_LABEL: &str = "heartbeat";

/// The label of the page that the worker threads tick into.
pub const TICKS_LABEL: &str = "ticks";

/// Runs worker processes until told to stop; the exit code of the last.
pub async fn run() -> Result<ExitCode> {
    let (ticks, ticks_file) =
        SharedPage::create().context("no shared memory for the worker threads' ticks")?;
    let mut keeper = Keeper {
        held: BTreeMap::new(),
        kept: BTreeMap::new(),
        ticks,
        ticks_file,
        heartbeat: None,
        last_served: None,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let mut worker = keeper.start_worker()?;
        let mut beat = interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        let status = loop {
            tokio::select! {
                step = worker.next() => match step? {
                    Step::Said(messages) => keeper.heed(messages, &mut worker.ready),
                    Step::Died(status) => break status,
                },
                _ = async { tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () } } => {
                    if stopping {
                        warn!("told to stop a second time: ending at once");
                        worker.process.start_kill()?;
                        return Ok(ExitCode::FAILURE);
                    }
                    stopping = true;
                    worker.terminate();
                }
                _ = beat.tick() => keeper.beat(worker.ready),
            }
        };
        while let Ok(Some(message)) = worker.socket.get_ref().receive(true) {
            keeper.heed(vec![message], &mut worker.ready);
        }
        // Of one that never served, its own last line says what was wrong; starting again would only repeat it.
        if stopping || keeper.last_served.is_none() {
            return Ok(exit_code(status));
        }
        if started.elapsed() > SETTLED_AFTER {
            pause = FIRST_PAUSE;
        }
        error!(%status, pause_ms = pause.as_millis() as u64, "the worker process died; starting it again");
        let wake = sleep_until(Instant::now() + pause);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                () = &mut wake => break,
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
                _ = beat.tick() => keeper.beat(false),
            }
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

struct Keeper {
    /// What each worker process gets.
    held: BTreeMap<String, OwnedFd>,
    /// What no worker gets: links, which must end with the keeper.
    kept: BTreeMap<String, OwnedFd>,
    ticks: SharedPage,
    ticks_file: OwnedFd,
    /// The kernel's heartbeat map, once the worker has made it.
    heartbeat: Option<SharedPage>,
    /// When a worker was ready last; `None`: none ever was, and a dead one is not started again.
    last_served: Option<Instant>,
}

struct Worker {
    process: Child,
    socket: AsyncFd<Handover>,
    /// The other end is gone: nothing more comes, and the process' own end is awaited.
    silent: bool,
    ready: bool,
}

enum Step {
    Said(Vec<Message>),
    Died(ExitStatus),
}

impl Keeper {
    fn start_worker(&mut self) -> Result<Worker> {
        self.ticks.clear();
        let (ours, theirs) = Handover::pair().context("no socket to the worker process")?;
        let descriptor = theirs.as_raw_fd();
        // Read after the fork: this very program, also when its file has been replaced or removed meanwhile.
        let mut command = std::process::Command::new("/proc/self/exe");
        command.arg0("evenkeel").args(std::env::args_os().skip(1)).env(KEEPER_FD_ENV, descriptor.to_string());
        // A group of its own: Ctrl-C reaches the keeper alone, which passes it on once.
        command.process_group(0);
        // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                // The worker's end of the socket, alone, stays open across exec.
                if libc::fcntl(descriptor, libc::F_SETFD, 0) == -1 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            });
        }
        let process = Command::from(command).spawn().context("cannot start the worker process")?;
        drop(theirs);
        ours.hold(TICKS_LABEL, &self.ticks_file)?;
        for (label, descriptor) in &self.held {
            // A worker that died at once is met by its exit status.
            if ours.hold(label, descriptor).is_err() {
                break;
            }
        }
        let _ = ours.ready();
        info!(pid = process.id(), held = self.held.len(), "started the worker process");
        // SAFETY: a `Handover` owns its one descriptor and never replaces it.
        let socket = unsafe { AsyncFd::register(ours) }?;
        Ok(Worker { process, socket, silent: false, ready: false })
    }

    fn heed(&mut self, messages: Vec<Message>, ready: &mut bool) {
        for message in messages {
            match message {
                Message::Hold(label, descriptor) => {
                    if label == HEARTBEAT_LABEL {
                        match SharedPage::map(&descriptor) {
                            Ok(page) => self.heartbeat = Some(page),
                            Err(error) => {
                                error!(%error, "cannot map the heartbeat: new connections will go straight");
                            }
                        }
                    }
                    self.held.insert(label, descriptor);
                }
                Message::Keep(label, descriptor) => drop(self.kept.insert(label, descriptor)),
                Message::Release(label) => drop((self.held.remove(&label), self.kept.remove(&label))),
                Message::Ready => {
                    *ready = true;
                    self.last_served = Some(Instant::now());
                }
            }
        }
    }

    /// Tells the kernel that redirected connections will be served: by the worker threads' oldest tick, or, while a
    /// worker starts again, for a moment on trust.
    ///
    /// The moment is counted from when a worker last served, not from the last start: one that dies in each start must not
    /// be trusted anew each time.
    fn beat(&mut self, ready: bool) {
        let Some(heartbeat) = &self.heartbeat else { return };
        let alive_at = if ready {
            self.last_served = Some(Instant::now());
            self.ticks.oldest()
        } else {
            self.last_served.filter(|at| at.elapsed() < RESTART_GRACE).map(|_| monotonic_ns())
        };
        if let Some(at) = alive_at {
            heartbeat.words()[0].store(at, Relaxed);
        }
    }
}

impl Worker {
    /// What the worker does next.
    async fn next(&mut self) -> Result<Step> {
        tokio::select! {
            // What the worker said stands before its death.
            biased;
            messages = said(&self.socket, &mut self.silent), if !self.silent => Ok(Step::Said(messages?)),
            status = self.process.wait() => Ok(Step::Died(status.context("lost sight of the worker process")?)),
        }
    }

    fn terminate(&self) {
        if let Some(pid) = self.process.id() {
            // SAFETY: kill takes no pointers; the child is not reaped yet, so the pid is still its own.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
        }
    }
}

/// Everything that the worker has said since; waits for the first word. `silent` is set when its end is closed.
async fn said(socket: &AsyncFd<Handover>, silent: &mut bool) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut guard = socket.readable().await?;
    loop {
        match guard.get_inner().receive(true) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => {
                *silent = true;
                return Ok(messages);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                guard.clear_ready();
                return Ok(messages);
            }
            Err(e) => return Err(e).context("the worker process broke the hand-over"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_dies_in_each_start_is_not_trusted_anew_each_time() {
        let (ticks, ticks_file) = SharedPage::create().unwrap();
        let (heartbeat, _file) = SharedPage::create().unwrap();
        let (held, kept) = (BTreeMap::new(), BTreeMap::new());
        let mut keeper =
            Keeper { held, kept, ticks, ticks_file, heartbeat: Some(heartbeat), last_served: None };
        let beat = |keeper: &Keeper| keeper.heartbeat.as_ref().unwrap().words()[0].swap(0, Relaxed);

        keeper.beat(false);
        assert_eq!(beat(&keeper), 0, "none ever served");
        keeper.ticks.words()[0].store(7, Relaxed);
        keeper.beat(true);
        assert_eq!(beat(&keeper), 7, "the threads' own time");
        keeper.beat(false);
        assert!(beat(&keeper) > 7, "on trust, just after");
        keeper.last_served = Instant::now().checked_sub(RESTART_GRACE);
        keeper.beat(false);
        assert_eq!(beat(&keeper), 0, "however often one was started since");
    }
}
