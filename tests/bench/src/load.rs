//! A gRPC client that keeps a scenario's load up, checks every answer, and reads the proxy's CPU time at the first and
//! the last counted moment. `call.rs` is a single call.

mod call;
mod pace;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::{self, SendRequest};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use crate::backend::{CONCURRENT_STREAMS, CONNECTION_WINDOW, STREAM_WINDOW};
use crate::cpu;
use crate::scenario::{self, Arrivals, Scenario};
use call::Headers;

/// Longer than any answer takes on a loaded machine; a call that hangs must end the run, not hold it.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Streams under way while a number of calls is counted.
const COUNTED_STREAMS: usize = 16;

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

/// What the tasks of one load share.
struct Tally {
    scenario: &'static Scenario,
    counting: Cell<bool>,
    /// Nothing new is begun.
    over: Cell<bool>,
    next_call: Cell<u64>,
    by_backend: RefCell<Vec<u64>>,
    latencies: RefCell<Vec<Duration>>,
    /// The first bad call.
    bad: RefCell<Option<String>>,
}

/// Runs the load; its only line is a [`Seen`] as JSON.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Rc::new(Tally {
        scenario: options.scenario,
        counting: Cell::new(false),
        over: Cell::new(false),
        next_call: Cell::new(0),
        by_backend: RefCell::default(),
        latencies: RefCell::default(),
        bad: RefCell::default(),
    });
    let seen = LocalSet::new().block_on(&runtime, async {
        match options.calls {
            Some(calls) => counted(&tally, options.to, calls).await,
            None => timed(&tally, options).await,
        }
    })?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// A fixed number of calls over one connection.
async fn counted(tally: &Rc<Tally>, to: SocketAddr, calls: usize) -> Result<Seen> {
    tally.counting.set(true);
    let client = connect(to).await?;
    let start = Instant::now();
    let remaining = Rc::new(Cell::new(calls));
    let tasks: Vec<_> = (0..COUNTED_STREAMS)
        .map(|_| {
            let (mut client, tally, remaining) = (client.clone(), Rc::clone(tally), Rc::clone(&remaining));
            spawn_local(async move {
                let mut headers = Headers::new(to);
                while remaining.get() > 0 && !tally.over.get() {
                    remaining.set(remaining.get() - 1);
                    tally.call(&mut client, &mut headers, Instant::now()).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    tally.seen(start.elapsed(), 0)
}

/// The scenario's load for the scenario's time.
async fn timed(tally: &Rc<Tally>, options: &Options) -> Result<Seen> {
    let mut clients = Vec::new();
    for _ in 0..tally.scenario.connections {
        clients.push(connect(options.to).await?);
    }
    match tally.scenario.arrivals {
        Arrivals::Closed { streams } => {
            for client in clients.iter().flat_map(|client| std::iter::repeat_n(client, streams)) {
                let (mut client, tally) = (client.clone(), Rc::clone(tally));
                let mut headers = Headers::new(options.to);
                spawn_local(async move {
                    while !tally.over.get() {
                        tally.call(&mut client, &mut headers, Instant::now()).await;
                    }
                });
            }
        }
        Arrivals::Open { calls_per_second } => {
            let mut due = pace::poisson(calls_per_second);
            let (tally, to) = (Rc::clone(tally), options.to);
            spawn_local(async move {
                let mut idle_headers = vec![Headers::new(to)];
                let headers_back = Rc::new(RefCell::new(Vec::new()));
                let mut clients = clients.iter().cycle();
                while let (Some(due), Some(client), false) =
                    (due.recv().await, clients.next(), tally.over.get())
                {
                    idle_headers.append(&mut headers_back.borrow_mut());
                    let mut headers = idle_headers.pop().unwrap_or_else(|| Headers::new(to));
                    let (mut client, tally, back) =
                        (client.clone(), Rc::clone(&tally), Rc::clone(&headers_back));
                    spawn_local(async move {
                        tally.call(&mut client, &mut headers, due).await;
                        back.borrow_mut().push(headers);
                    });
                }
            });
        }
    }
    tally.pause(options.warm_up).await?;
    let (start, before) = (Instant::now(), cpu::nanoseconds(&options.pids)?);
    tally.counting.set(true);
    tally.pause(options.seconds).await?;
    tally.counting.set(false);
    let (took, after) = (start.elapsed(), cpu::nanoseconds(&options.pids)?);
    tally.over.set(true);
    tally.seen(took, after - before)
}

impl Tally {
    /// Makes one call, and counts it by its end.
    async fn call(&self, client: &mut SendRequest<Bytes>, headers: &mut Headers, due: Instant) {
        let call = self.next_call.get();
        self.next_call.set(call + 1);
        let outcome = match timeout(CALL_LIMIT, call::make(client, headers, self.scenario, call)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {CALL_LIMIT:?}")),
        };
        match outcome {
            Ok(backend) if self.counting.get() => {
                let mut by_backend = self.by_backend.borrow_mut();
                let backend = usize::from(backend);
                if by_backend.len() <= backend {
                    by_backend.resize(backend + 1, 0);
                }
                by_backend[backend] += 1;
                self.latencies.borrow_mut().push(due.elapsed());
            }
            Ok(_) => {}
            Err(cause) if self.over.get() => drop(cause),
            Err(cause) => {
                self.bad.borrow_mut().get_or_insert(format!("call {call}: {cause}"));
                self.over.set(true);
            }
        }
    }

    /// Lets the load go on for some seconds.
    async fn pause(&self, seconds: f64) -> Result<()> {
        /// How soon a bad call ends the run.
        const SLICE: Duration = Duration::from_millis(100);
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while let Some(rest) = end.checked_duration_since(Instant::now()).filter(|_| !self.over.get()) {
            sleep(rest.min(SLICE)).await;
        }
        self.none_bad()
    }

    fn none_bad(&self) -> Result<()> {
        match self.bad.borrow().as_ref() {
            Some(bad) => bail!("a bad call: {bad}"),
            None => Ok(()),
        }
    }

    fn seen(&self, took: Duration, cpu_nanoseconds: u64) -> Result<Seen> {
        self.none_bad()?;
        let by_backend = self.by_backend.borrow().clone();
        let mut latencies = self.latencies.borrow_mut();
        latencies.sort_unstable();
        let quantile = |share: f64| {
            let at = (latencies.len() as f64 * share) as usize;
            latencies
                .get(at.min(latencies.len().saturating_sub(1)))
                .map_or(f64::NAN, |it| it.as_secs_f64() * 1e6)
        };
        let calls: u64 = by_backend.iter().sum();
        if calls == 0 {
            bail!("no call was answered");
        }
        Ok(Seen {
            calls,
            by_backend,
            seconds: took.as_secs_f64(),
            cpu_nanoseconds,
            latency_p50: quantile(0.50),
            latency_p99: quantile(0.99),
        })
    }
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Bytes>> {
    within(async {
        let socket = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
        socket.set_nodelay(true)?;
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(CONCURRENT_STREAMS as usize);
        let (client, connection) = builder.handshake(socket).await?;
        spawn_local(async move {
            // Its calls say why they failed.
            let _ = connection.await;
        });
        Ok(client)
    })
    .await
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(CALL_LIMIT, work).await.with_context(|| format!("not done within {CALL_LIMIT:?}"))?
}
