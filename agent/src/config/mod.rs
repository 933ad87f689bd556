//! What a person asks for: raw arguments and environment, checked once. Nothing later validates.
//!
//! [`agent`] and [`proxy`] hold one subcommand each, [`cluster`] what concerns the cluster, [`access_log`] what is told of single calls, [`protection`] what a source of calls may
//! cost, [`values`] the small words that arguments are made of.

mod access_log;
mod agent;
mod cluster;
mod protection;
mod proxy;
mod values;

pub use access_log::{AccessLogArgs, AccessLogConfig};
pub use agent::{AgentArgs, AgentConfig, CallMetrics, UpstreamSockets};
pub use cluster::{ClusterArgs, ClusterConfig};
pub use protection::CircuitArgs;
pub use proxy::{ProxyArgs, ProxyConfig, Upstreams};
pub use values::{NamedListener, PortRange, Source};

use std::num::NonZeroUsize;

/// As many worker threads as the process may run at once; one where that cannot be known.
fn workers_or_cores(asked: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(cores, NonZeroUsize::get).min(crate::lifecycle::ticks::MAX_THREADS)
}
