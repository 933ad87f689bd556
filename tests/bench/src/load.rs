//! A gRPC client that keeps a scenario's load up, checks every answer, and reads the proxy's CPU time at the first and
//! the last counted moment. `load/connection.rs` makes the calls.
//!
//! One thread, and no more work than it takes: load and backends share a core, and where that is the one that is busy first, the
//! proxy under test waits, wakes up for a call at a time, and looks dearer than it is.

mod blocks;
mod connection;
mod frame;
mod pace;

use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, Waker};
use serde::{Deserialize, Serialize};

use crate::cpu;
use crate::scenario::{self, Arrivals, Scenario};
use crate::wire::Order;
use blocks::Blocks;
use connection::{Begun, Connection, Ended};

/// Longer than any answer takes on a loaded machine; a call that hangs must end the run, not hold it.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Streams under way while a number of calls is counted.
const COUNTED_STREAMS: usize = 16;
/// How soon a call that hangs is seen.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is read at once.
const BUFFER: usize = 256 << 10;
const PACE: Token = Token(usize::MAX);

#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, value_parser = scenario::named)]
    scenario: &'static Scenario,
    /// Seconds of load that are not counted: connections, pools and tables settle
    #[arg(long, default_value_t = 0.3)]
    warm_up: f64,
    /// Seconds of load that are counted
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// The proxy's processes
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// Instead: so many calls over one connection
    #[arg(long)]
    calls: Option<usize>,
}

/// What the load saw.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Calls answered.
    pub(crate) calls: u64,
    /// How many of them by each backend.
    pub(crate) by_backend: Vec<u64>,
    pub(crate) seconds: f64,
    /// CPU time of the proxy meanwhile.
    pub(crate) cpu_nanoseconds: u64,
    /// From the moment when the call was due to the answer's end, in microseconds.
    pub(crate) latency_p50: f64,
    pub(crate) latency_p99: f64,
}

/// Runs the load; its only line is a [`Seen`] as JSON.
pub(crate) fn run(options: &Options) -> Result<()> {
    let seen = match options.calls {
        Some(calls) => {
            Load::new(options, 1, Source::Closed { streams: COUNTED_STREAMS, left: calls })?.counted(calls)
        }
        None => {
            let source = match options.scenario.arrivals {
                Arrivals::Closed { streams } => Source::Closed { streams, left: usize::MAX },
                Arrivals::Open { .. } => Source::Open { due: None, next: 0 },
            };
            Load::new(options, options.scenario.connections, source)?.timed(options)
        }
    }?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// What begins calls.
enum Source {
    /// The end of another one, until so many were begun.
    Closed { streams: usize, left: usize },
    /// Their time, whatever the calls before do; on the connections in turn.
    Open { due: Option<Receiver<Instant>>, next: usize },
}

struct Load {
    scenario: &'static Scenario,
    source: Source,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    ended: Vec<Ended>,
    next_call: u64,
    next_look: Instant,
    counting: bool,
    by_backend: Vec<u64>,
    latencies: Vec<Duration>,
}

impl Load {
    fn new(options: &Options, connections: usize, source: Source) -> Result<Self> {
        let poll = Poll::new()?;
        let blocks = Blocks::encode(options.to, options.scenario.token)?;
        let connections = (0..connections).map(|number| {
            let mut connection = Connection::open(options.to, options.scenario, blocks.clone())?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut connection.socket, Token(number), interest)?;
            Ok(connection)
        });
        let connections = connections.collect::<Result<_>>()?;
        Ok(Self {
            scenario: options.scenario,
            source,
            poll,
            events: Events::with_capacity(1024),
            connections,
            buffer: vec![0; BUFFER],
            ended: Vec::new(),
            next_call: 0,
            next_look: Instant::now(),
            counting: false,
            by_backend: Vec::new(),
            latencies: Vec::new(),
        })
    }

    /// A fixed number of calls.
    fn counted(mut self, calls: usize) -> Result<Seen> {
        self.counting = true;
        let start = Instant::now();
        self.begin_closed()?;
        while self.latencies.len() < calls {
            self.turn(LOOK_EVERY)?;
        }
        self.seen(start.elapsed(), 0)
    }

    /// The scenario's load for the scenario's time.
    fn timed(mut self, options: &Options) -> Result<Seen> {
        if let (Source::Open { due, .. }, Arrivals::Open { calls_per_second }) =
            (&mut self.source, &self.scenario.arrivals)
        {
            *due = Some(pace::poisson(*calls_per_second, Waker::new(self.poll.registry(), PACE)?));
        }
        self.begin_closed()?;
        self.turns(options.warm_up)?;
        let (start, before) = (Instant::now(), cpu::nanoseconds(&options.pids)?);
        self.counting = true;
        self.turns(options.seconds)?;
        let (took, after) = (start.elapsed(), cpu::nanoseconds(&options.pids)?);
        self.seen(took, after - before)
    }

    /// The first calls of a closed loop.
    fn begin_closed(&mut self) -> Result<()> {
        if let Source::Closed { streams, .. } = self.source {
            for number in 0..self.connections.len() {
                for _ in 0..streams {
                    self.begin_next(number);
                }
                self.connections[number].flush()?;
            }
        }
        Ok(())
    }

    /// Lets the load go on for some seconds.
    fn turns(&mut self, seconds: f64) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            self.turn(rest.min(LOOK_EVERY))?;
        }
        Ok(())
    }

    /// Waits for something to happen, but no longer than `limit`, and goes on with it.
    fn turn(&mut self, limit: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(limit)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        let ready: Vec<usize> = self
            .events
            .iter()
            .map(|event| event.token())
            .filter(|token| *token != PACE)
            .map(|token| token.0)
            .collect();
        for &number in &ready {
            self.connections[number].read(&mut self.buffer, &mut self.ended)?;
            for ended in std::mem::take(&mut self.ended) {
                self.count(ended)?;
                if matches!(self.source, Source::Closed { .. }) {
                    self.begin_next(number);
                }
            }
            self.connections[number].flush()?;
        }
        self.begin_due()?;
        if self.next_look <= Instant::now() {
            self.next_look = Instant::now() + LOOK_EVERY;
            let oldest = self.connections.iter().filter_map(Connection::oldest).min();
            ensure!(
                oldest.is_none_or(|due| due.elapsed() < CALL_LIMIT),
                "a bad call: no answer within {CALL_LIMIT:?}"
            );
        }
        Ok(())
    }

    /// The calls of an open loop whose time has come.
    fn begin_due(&mut self) -> Result<()> {
        let Source::Open { due: Some(due), next } = &mut self.source else { return Ok(()) };
        let (mut begun, first) = (Vec::new(), *next);
        while let Ok(due) = due.try_recv() {
            begun.push(due);
        }
        *next += begun.len();
        let connections = self.connections.len();
        for (at, due) in begun.iter().enumerate() {
            let order = self.order();
            self.connections[(first + at) % connections].begin(Begun { order, due: *due });
        }
        for at in 0..begun.len().min(connections) {
            self.connections[(first + at) % connections].flush()?;
        }
        Ok(())
    }

    /// The next call of a closed loop.
    fn begin_next(&mut self, number: usize) {
        if let Source::Closed { left, .. } = &mut self.source
            && *left > 0
        {
            *left -= 1;
            let order = self.order();
            self.connections[number].begin(Begun { order, due: Instant::now() });
        }
    }

    fn order(&mut self) -> Order {
        self.next_call += 1;
        let Scenario { message, messages, .. } = *self.scenario;
        Order { call: self.next_call - 1, message: message as u32, messages: messages as u32 }
    }

    fn count(&mut self, ended: Ended) -> Result<()> {
        let Begun { order, due } = ended.begun;
        let backend = match ended.outcome {
            Ok(backend) => usize::from(backend),
            Err(cause) => bail!("a bad call: call {}: {cause}", order.call),
        };
        if self.counting {
            if self.by_backend.len() <= backend {
                self.by_backend.resize(backend + 1, 0);
            }
            self.by_backend[backend] += 1;
            self.latencies.push(due.elapsed());
        }
        Ok(())
    }

    fn seen(mut self, took: Duration, cpu_nanoseconds: u64) -> Result<Seen> {
        self.latencies.sort_unstable();
        let quantile = |share: f64| {
            let at = (self.latencies.len() as f64 * share) as usize;
            let at = at.min(self.latencies.len().saturating_sub(1));
            self.latencies.get(at).map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
        };
        let calls: u64 = self.by_backend.iter().sum();
        ensure!(calls > 0, "no call was answered");
        Ok(Seen {
            calls,
            latency_p50: quantile(0.50),
            latency_p99: quantile(0.99),
            by_backend: self.by_backend,
            seconds: took.as_secs_f64(),
            cpu_nanoseconds,
        })
    }
}
