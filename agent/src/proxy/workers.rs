//! The handle on all worker threads.

use super::census::Census;
use super::counters::{Counters, SharedCounters};
use super::engine::Engine;
use super::look::{CallView, ConnectionView, Shown, Wanted};
use super::mailbox::{Command, Mailbox, Shared, Source};
use super::shared_use::Ledger;
use super::socket::Dialer;
use super::worker::{WAKE, Worker};
use crate::clock::monotonic_ns;
use crate::http2::Limits;
use crate::mesh::Protection;
use crate::mesh::{DestinationId, PodKey, ServicePort, Snapshot};
use crate::telemetry::{Audience, Telemetry};
use mio::{Poll, Waker};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How the workers are set up.
pub struct WorkersConfig {
    /// What one connection may cost.
    pub limits: Limits,
    /// What each source of calls may cost.
    pub protection: Protection,
    /// Connections of a pod from which on it is at its limit: [`Workers::is_at_connection_limit`].
    pub max_pod_connections: u32,
    /// Where sockets to servers come from.
    pub dialer: Arc<dyn Dialer>,
    /// Has the allocator give the kernel what the calling thread has freed and keeps: a worker does so when much has gone.
    pub give_memory_back: fn(),
    /// Whether pods share connections to servers, which are then opened in the agent's own network namespace.
    pub share_upstreams: bool,
    /// Where ended calls are counted.
    pub telemetry: Option<Arc<Telemetry>>,
    /// Who wants to hear of single calls.
    pub audience: Arc<Audience>,
    /// Seed of all random choices; each worker derives its own.
    pub seed: u64,
}

/// A listener of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(u64);

/// A socket to accept from, and what its connections are.
#[derive(Debug)]
pub struct ListenerSpec {
    /// Bound, and listening.
    pub socket: TcpListener,
    /// What its connections are.
    pub source: Source,
}

/// The snapshot version that each worker has taken in.
#[derive(Debug)]
pub(super) struct Applied {
    versions: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Applied {
    fn new(workers: usize) -> Self {
        Self { versions: Mutex::new(vec![0; workers]), changed: Condvar::new() }
    }

    pub(super) fn set(&self, worker: usize, version: u64) {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)[worker] = version;
        self.changed.notify_all();
    }

    fn lowest(versions: &[u64]) -> u64 {
        versions.iter().copied().min().unwrap_or(0)
    }
}

/// How a worker thread stands.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct WorkerView {
    /// Which one, counted from 0.
    pub worker: usize,
    /// Client connections that it has.
    pub connections: u64,
    /// Calls that are under way.
    pub calls_open: u64,
    /// How much of its time it has worked of late.
    pub busy_percent: f64,
    /// When it was last alive, in milliseconds ago: one that turns is so at least every 100 ms.
    pub silent_ms: u64,
}

struct Listening {
    worker: usize,
    source: Source,
}

/// The worker threads. Dropping the handle leaves them running; [`Workers::stop`] ends them.
pub struct Workers {
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    listeners: Mutex<FxHashMap<ListenerId, Listening>>,
    next_listener: AtomicU64,
}

impl Workers {
    /// Starts one thread for each tick, into which it writes the monotonic time in nanoseconds at least every 100 ms.
    ///
    /// # Errors
    /// If there is no tick, or the kernel gives no epoll instance or no thread.
    pub fn start(config: &WorkersConfig, ticks: &[&'static AtomicU64]) -> io::Result<Self> {
        let (mut workers, ready) = Self::prepare(config, ticks)?;
        for worker in ready {
            let name = format!("worker-{}", worker.index);
            workers.threads.push(thread::Builder::new().name(name).spawn(|| worker.run())?);
        }
        Ok(workers)
    }

    /// The workers, and the handle on them, before they have threads.
    pub(super) fn prepare(
        config: &WorkersConfig,
        ticks: &[&'static AtomicU64],
    ) -> io::Result<(Self, Vec<Worker>)> {
        if ticks.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a data path needs one worker at least"));
        }
        let mut mailboxes = Vec::new();
        let mut ends: Vec<(Poll, Receiver<Command>)> = Vec::new();
        for &tick in ticks {
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), WAKE)?;
            let (inbox, commands) = mpsc::channel();
            mailboxes.push(Mailbox {
                inbox,
                waker,
                connections: AtomicU64::new(0),
                busy_permille: AtomicU32::new(0),
                tick,
                counters: SharedCounters::default(),
                drained: AtomicBool::new(false),
            });
            ends.push((poll, commands));
        }
        let shared = Arc::new(Shared {
            mailboxes,
            census: Census::new(config.max_pod_connections),
            applied: Applied::new(ticks.len()),
            dialer: Arc::clone(&config.dialer),
            give_memory_back: config.give_memory_back,
            ledger: Ledger::default(),
        });
        let mut ready = Vec::new();
        for (index, ((poll, commands), tick)) in ends.into_iter().zip(ticks).enumerate() {
            let now = monotonic_ns();
            tick.store(now, Relaxed);
            let engine = Engine::new(config.limits.clone(), config.seed.wrapping_add(index as u64), now)
                .sharing_upstreams(config.share_upstreams)
                .counting(config.telemetry.clone())
                .telling(Arc::clone(&config.audience))
                .protected(config.protection, shared.ledger.clone());
            ready.push(Worker::new(index, Arc::clone(&shared), commands, tick, poll, engine));
        }
        let (threads, listeners, next_listener) = (Vec::new(), Mutex::default(), AtomicU64::new(0));
        Ok((Self { shared, threads, listeners, next_listener }, ready))
    }

    /// Hands a new state of the world to all workers; [`Self::applied`] says when they have it.
    pub fn publish(&self, snapshot: &Arc<Snapshot>) {
        self.tell_all(|| Command::Publish(Arc::clone(snapshot)));
    }

    /// The lowest snapshot version that a worker goes by; 0 before the first.
    pub fn applied(&self) -> u64 {
        Applied::lowest(&self.shared.applied.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The snapshot version that each worker goes by.
    pub fn applied_by_each(&self) -> Vec<u64> {
        self.shared.applied.versions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How each worker stands.
    pub fn view(&self) -> Vec<WorkerView> {
        let now_ns = monotonic_ns();
        let view = |(worker, mailbox): (usize, &Mailbox)| WorkerView {
            worker,
            connections: mailbox.connections.load(Relaxed),
            calls_open: mailbox.counters.read().calls_open,
            busy_percent: f64::from(mailbox.busy_permille.load(Relaxed)) / 10.0,
            silent_ms: now_ns.saturating_sub(mailbox.tick.load(Relaxed)) / 1_000_000,
        };
        self.shared.mailboxes.iter().enumerate().map(view).collect()
    }

    /// Waits until all workers go by this version or a later one; false if that took longer than `timeout`. It blocks
    /// the thread: a turn's time, as a rule.
    pub fn wait_applied(&self, version: u64, timeout: Duration) -> bool {
        let applied = &self.shared.applied;
        let versions = applied.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let result =
            applied.changed.wait_timeout_while(versions, timeout, |now| Applied::lowest(now) < version);
        let (versions, _) = result.unwrap_or_else(PoisonError::into_inner);
        Applied::lowest(&versions) >= version
    }

    /// Begins to accept. A pod's listeners are all with one worker, its home; others take connections over while that is busy.
    ///
    /// # Errors
    /// If the socket cannot be made non-blocking.
    pub fn listen(&self, spec: ListenerSpec) -> io::Result<ListenerId> {
        spec.socket.set_nonblocking(true)?;
        let id = ListenerId(self.next_listener.fetch_add(1, Relaxed));
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let worker = self.home_of(&spec.source, &listeners);
        listeners.insert(id, Listening { worker, source: spec.source.clone() });
        self.shared.mailboxes[worker].tell(Command::Listen(id, spec.socket, spec.source));
        Ok(id)
    }

    /// The worker that has the pod's other listeners, or the one with the fewest listeners and connections.
    fn home_of(&self, source: &Source, listeners: &FxHashMap<ListenerId, Listening>) -> usize {
        if let Source::Pod(pod) = source {
            let same = |other: &&Listening| matches!(&other.source, Source::Pod(p) if p.key == pod.key);
            if let Some(home) = listeners.values().find(same) {
                return home.worker;
            }
        }
        let busy = |worker: &usize| {
            let pods = listeners.values().filter(|listening| listening.worker == *worker).count();
            (pods, self.shared.mailboxes[*worker].connections.load(Relaxed))
        };
        (0..self.shared.mailboxes.len()).min_by_key(busy).unwrap_or(0)
    }

    /// Stops accepting and closes the listener. With `reset_connections`, every connection of its pod (or to its fixed
    /// destination), and those to servers that were opened for it, end with a reset: the pod is gone.
    pub fn unlisten(&self, id: ListenerId, reset_connections: bool) {
        let listening = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(listening) = listening else { return };
        let end = reset_connections.then(|| {
            let destination = match listening.source {
                Source::Fixed(destination) => Some(destination),
                Source::Pod(_) => None,
            };
            (listening.source.origin(), destination)
        });
        self.shared.mailboxes[listening.worker].tell(Command::Unlisten { id, end: end.clone() });
        // Also at once: the home may hang. But it may be handing a connection to another worker in this moment, and its own word
        // comes behind that.
        if let Some((origin, destination)) = end {
            self.tell_all(|| Command::End(origin.clone(), destination));
        }
    }

    /// Client connections that carry the id.
    pub fn connections(&self, destination: DestinationId) -> u64 {
        self.shared.census.of_destination(destination)
    }

    /// Client connections of the pod.
    pub fn pod_connections(&self, pod: &PodKey) -> u64 {
        self.shared.census.of_pod(pod)
    }

    /// Whether the pod has as many connections as it may: further ones are to go straight.
    pub fn is_at_connection_limit(&self, pod: &PodKey) -> bool {
        self.shared.census.is_at_limit(pod)
    }

    /// Tells whoever waits that a pod has come to its limit of connections, or is below it again.
    pub fn limit_crossings(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.census.crossings)
    }

    /// What the pod's connections and calls hold in memory, in bytes, and how many of its calls were refused or ended for it.
    pub fn pod_memory(&self, pod: &PodKey) -> (u64, u64) {
        let found = self.shared.ledger.memory.find(&Some(pod.clone()));
        found.map_or((0, 0), |pod| (pod.held.load(Relaxed), pod.refused.load(Relaxed)))
    }

    /// Asks each worker for its connections, or as many of them as are wanted. One that hangs does not answer.
    pub fn look_at_connections(&self, wanted: &Wanted) -> Vec<oneshot::Receiver<Shown<ConnectionView>>> {
        self.ask_all(|answer| Command::LookAtConnections(wanted.clone(), answer))
    }

    /// Asks each worker for the calls that are under way, or as many of them as are wanted. One that hangs does not answer.
    pub fn look_at_calls(&self, wanted: &Wanted) -> Vec<oneshot::Receiver<Shown<CallView>>> {
        self.ask_all(|answer| Command::LookAtCalls(wanted.clone(), answer))
    }

    fn ask_all<T>(
        &self,
        command: impl Fn(oneshot::Sender<Shown<T>>) -> Command,
    ) -> Vec<oneshot::Receiver<Shown<T>>> {
        let ask = |mailbox: &Mailbox| {
            let (answer, answered) = oneshot::channel();
            mailbox.tell(command(answer));
            answered
        };
        self.shared.mailboxes.iter().map(ask).collect()
    }

    /// What the pod has under way to a Service port: calls, those of them that wait, and connections to its servers.
    pub fn circuit(&self, pod: &PodKey, port: &ServicePort) -> [u32; 3] {
        let found = self.shared.ledger.circuits.find(&(Some(pod.clone()), port.clone()));
        found.map_or([0; 3], |circuit| {
            [&circuit.calls, &circuit.pending, &circuit.connections].map(|count| count.load(Relaxed))
        })
    }

    /// Where the pod's calls stay, of each Service port under session affinity that it has called.
    pub fn homes(&self, pod: &PodKey) -> Vec<(ServicePort, SocketAddr)> {
        self.shared.ledger.homes.of(pod)
    }

    /// What all workers together have counted.
    pub fn counters(&self) -> Counters {
        let all = self.shared.mailboxes.iter().map(|mailbox| mailbox.counters.read());
        all.fold(Counters::default(), |sum, counters| sum.plus(&counters))
    }

    /// Sends all clients away. At the deadline what is still open ends.
    pub fn drain(&self, deadline: Duration) {
        let deadline_ns = monotonic_ns().saturating_add(deadline.as_nanos() as u64);
        self.tell_all(|| Command::Drain { deadline_ns });
    }

    /// Whether, after [`Self::drain`], no client is connected any more.
    pub fn drained(&self) -> bool {
        self.shared.mailboxes.iter().all(|mailbox| mailbox.drained.load(Relaxed))
    }

    /// Ends the threads; every socket closes.
    ///
    /// # Errors
    /// What a worker's poll failed with.
    ///
    /// # Panics
    /// If a worker has panicked.
    pub fn stop(self) -> io::Result<()> {
        self.tell_all(|| Command::Stop);
        for thread in self.threads {
            match thread.join() {
                Ok(result) => result?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        for mailbox in &self.shared.mailboxes {
            mailbox.tell(command());
        }
    }
}
