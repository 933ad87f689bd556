//! The wiring: everything is made here, in start order; the stop order is its mirror.
//!
//! [`agent`] is the keeper, or, started by it, the worker process ([`worker_process`]); [`proxy()`] is the call path
//! without eBPF.

mod backlog;
mod captured;
mod dialer;
mod discovery;
mod enrolments;
mod explain;
mod look;
mod neighbours;
mod node;
mod place;
mod proxy;
mod schemas;
mod status;
mod stop;
mod telling;
mod view;
mod worker_process;

pub use proxy::proxy;

use crate::config::AgentConfig;
use crate::http2::Limits;
use crate::lifecycle::handover::{Handover, KEEPER_FD_ENV};
use crate::lifecycle::keeper;
use crate::lifecycle::ticks::SharedPage;
use crate::mesh::Protection;
use crate::proxy::{Dialer, Workers, WorkersConfig};
use crate::telemetry::{Audience, Telemetry};
use anyhow::{Context as _, Result, bail};
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// `evenkeel agent`: the keeper, or the worker process that it started.
pub fn agent(config: AgentConfig) -> Result<ExitCode> {
    match keeper_socket()? {
        None => runtime(1)?.block_on(keeper::run()),
        Some(keeper) => runtime(2)?.block_on(worker_process::run(config, keeper)),
    }
}

/// The worker's end of the socket to its keeper, if this process is one.
fn keeper_socket() -> Result<Option<Handover>> {
    let Some(text) = std::env::var_os(KEEPER_FD_ENV) else { return Ok(None) };
    let descriptor: Option<RawFd> = text.to_str().and_then(|text| text.parse().ok()).filter(|&fd| fd > 2);
    let Some(descriptor) = descriptor else {
        bail!("{KEEPER_FD_ENV} is the agent's own: it must not be set by hand");
    };
    // SAFETY: the keeper left this descriptor open across exec for us alone; nothing else has taken it yet.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)
        .with_context(|| format!("{KEEPER_FD_ENV} is the agent's own: it must not be set by hand"))?;
    Ok(Some(Handover::from(socket)))
}

/// The runtime of everything that is not a call.
fn runtime(threads: usize) -> Result<Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads).enable_all().build().context("cannot start the control threads")
}

/// What calls are counted with when they end, and who is told of them.
struct Observers {
    telemetry: Option<Arc<Telemetry>>,
    audience: Arc<Audience>,
}

/// Starts the call path's threads, each with a word of the page to tick into. The page is theirs for good.
fn start_workers(
    count: usize,
    dialer: Arc<dyn Dialer>,
    share_upstreams: bool,
    protection: Protection,
    max_pod_connections: u32,
    observers: Observers,
    ticks: SharedPage,
) -> Result<Workers> {
    let ticks: &'static SharedPage = Box::leak(Box::new(ticks));
    let ticks: Vec<_> = ticks.words().iter().take(count).collect();
    // Not a secret: workers and nodes only must not choose alike.
    let seed = RandomState::new().hash_one(std::process::id());
    let config = WorkersConfig {
        give_memory_back,
        limits: Limits::default(),
        protection,
        max_pod_connections,
        dialer,
        share_upstreams,
        telemetry: observers.telemetry,
        audience: observers.audience,
        seed,
    };
    Workers::start(&config, &ticks).context("cannot start the worker threads")
}

/// What mimalloc, the program's allocator, calls collecting.
fn give_memory_back() {
    // SAFETY: any thread may call it at any time; it frees nothing that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
