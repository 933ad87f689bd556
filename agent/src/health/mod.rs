//! Active health checks: the agent asks the endpoints of Services that want it whether they serve, by gRPC's own protocol.
//!
//! [`mod@check`] is one such question. What it comes to goes where passive ejections are kept
//! ([`LeftOut`](crate::mesh::LeftOut)), and so the same panic threshold holds. Only an answer counts: an endpoint that the agent
//! cannot reach may be one that a NetworkPolicy opens to its clients alone, and whether those reach it their calls will tell.

mod check;

use crate::clock::monotonic_ns;
use crate::mesh::Endpoint;
use check::{Answer, check};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{debug, info};

/// Between two checks of an endpoint that is called: a kubelet's own period, from each node that calls it.
pub const EVERY: Duration = Duration::from_secs(10);
/// A bad answer holds for so many periods, should no other come.
const HOLDS_FOR_PERIODS: u32 = 3;

/// The endpoints to ask, each for the name of a service (empty: for the server as a whole).
pub type Wanted = Vec<(Arc<Endpoint>, Arc<str>)>;

/// The tasks that ask, one an endpoint; they end with it.
#[derive(Debug)]
pub struct HealthChecks {
    every: Duration,
    /// By address, service, and the place of the load that the result goes to: an endpoint that came back has another.
    tasks: HashMap<(SocketAddr, Arc<str>, usize), JoinHandle<()>>,
}

impl HealthChecks {
    /// Nobody is asked yet.
    pub fn new(every: Duration) -> Self {
        Self { every, tasks: HashMap::new() }
    }

    /// Asks these from now on, and no others.
    pub fn follow(&mut self, wanted: Wanted) {
        let mut before = std::mem::take(&mut self.tasks);
        for (endpoint, service) in wanted {
            let key = (endpoint.address, service.clone(), Arc::as_ptr(&endpoint.load) as usize);
            let task = before.remove(&key);
            let begin = || tokio::spawn(ask_for_ever(endpoint, service, self.every));
            self.tasks.entry(key).or_insert_with(|| task.unwrap_or_else(begin));
        }
        before.into_values().for_each(|task| task.abort());
    }
}

impl Drop for HealthChecks {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn ask_for_ever(endpoint: Arc<Endpoint>, service: Arc<str>, every: Duration) {
    let left_out = &endpoint.load.left_out;
    let mut calls_before = 0;
    // Endpoints that came together are not asked together.
    sleep(every.mul_f64(f64::from(endpoint.address.port() ^ last_bits(endpoint.address)) / 65_536.0)).await;
    loop {
        let calls = endpoint.load.calls.load(Relaxed);
        let was_unhealthy = left_out.is_unhealthy(monotonic_ns());
        // Whom nobody on this node calls, nobody here has to ask.
        if calls != calls_before || was_unhealthy {
            calls_before = calls;
            let answer = check(endpoint.address, &service).await;
            left_out.note_check(answer.kind(), monotonic_ns());
            match answer {
                Answer::NotServing(said) => {
                    if !was_unhealthy {
                        info!(endpoint = %endpoint.address, "left out: its health check says {said}");
                    }
                    let holds_ns = (every * HOLDS_FOR_PERIODS).as_nanos() as u64;
                    left_out.set_unhealthy(monotonic_ns() + holds_ns);
                }
                Answer::Serving => left_out.set_unhealthy(0),
                Answer::None(cause) => {
                    debug!(endpoint = %endpoint.address, "a health check says nothing: {cause}");
                }
            }
        }
        sleep(every).await;
    }
}

fn last_bits(address: SocketAddr) -> u16 {
    match address.ip() {
        std::net::IpAddr::V4(ip) => u32::from(ip) as u16,
        std::net::IpAddr::V6(ip) => u128::from(ip) as u16,
    }
}

#[cfg(test)]
mod tests;
