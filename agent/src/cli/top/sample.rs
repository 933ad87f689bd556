//! What agents have counted since their start, at one moment.

use super::super::reach::{Agent, Ask, AskError, ask_all};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// What is counted for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Series {
    /// The agent that counts.
    pub(super) node: String,
    /// `namespace/name:port`.
    pub(super) service_port: String,
    pub(super) endpoint: String,
    pub(super) method: String,
    /// The pod that calls.
    pub(super) source: String,
    pub(super) status: String,
}

/// How much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) calls: u64,
    pub(super) failures: u64,
    /// Under way.
    pub(super) active: u64,
    /// Of all calls together, in microseconds, where the agent counts it.
    pub(super) latency_sum_us: Option<u64>,
    /// The moving average, in microseconds, where it does not.
    pub(super) latency_us: Option<u64>,
}

/// What all agents have counted.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// `None`: nobody has answered.
    pub(super) counted: Option<HashMap<Series, Count>>,
    /// The agents count by endpoint alone.
    pub(super) is_coarse: bool,
    /// Who has not answered, and why.
    pub(super) complaints: Vec<String>,
}

/// A row of `/endpoints`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EndpointRow {
    service_port: String,
    address: String,
    active: u64,
    calls: u64,
    failures: u64,
    latency_us: Option<u64>,
}

/// A row of `/calls`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallsRow {
    namespace: Option<String>,
    pod: Option<String>,
    service: String,
    method: String,
    endpoint: Option<String>,
    http_status: u16,
    grpc_status: Option<u8>,
    flag: String,
    calls: u64,
    latency: LatencyRow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LatencyRow {
    sum_ms: f64,
}

impl CallsRow {
    /// Whether a server failed it, or it got no answer of a server's: not what its client has ended.
    fn has_failed(&self) -> bool {
        // UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE, DATA_LOSS: as the agent counts by endpoint.
        const FAILURES: [u8; 6] = [2, 4, 8, 13, 14, 15];
        let of_client = self.flag.starts_with("client");
        !of_client
            && (self.http_status >= 500
                || self.grpc_status.is_some_and(|status| FAILURES.contains(&status))
                || !matches!(self.flag.as_str(), "" | "-"))
    }
}

/// Asks all agents.
pub(super) async fn take(agents: Vec<Agent>, limit: Duration) -> (Vec<Agent>, Sample) {
    let asks = [Ask::get("/calls"), Ask::get("/endpoints")];
    let answered = ask_all(agents, &asks, limit).await;
    let mut sample = Sample { at: Instant::now(), counted: None, is_coarse: false, complaints: Vec::new() };
    let mut agents = Vec::new();
    for (agent, answers) in answered {
        match answers.map(<[_; 2]>::try_from) {
            Ok(Ok([calls, endpoints])) => sample.add(&agent.node, calls, endpoints),
            Ok(Err(_)) => sample.complaints.push(format!("{}: an answer is missing", agent.node)),
            Err(error) => sample.complaints.push(format!("{}: {error}", agent.node)),
        }
        agents.push(agent);
    }
    (agents, sample)
}

impl Sample {
    fn add(&mut self, node: &str, calls: Result<Value, AskError>, endpoints: Result<Value, AskError>) {
        let read = match calls {
            Ok(calls) => of_calls(node, &calls).map(|mut counted| {
                let endpoints = endpoints.ok().and_then(|endpoints| of_endpoints(node, &endpoints).ok());
                counted.extend(under_way(endpoints.unwrap_or_default()));
                counted
            }),
            Err(error) if error.is_unknown_page() => {
                self.is_coarse = true;
                endpoints
                    .map_err(|error| error.to_string())
                    .and_then(|endpoints| of_endpoints(node, &endpoints))
            }
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(counted) => self.counted.get_or_insert_default().extend(counted),
            Err(error) => self.complaints.push(format!("{node}: {error}")),
        }
    }
}

/// What an agent without `/calls` counts.
pub(super) fn of_endpoints(node: &str, page: &Value) -> Result<HashMap<Series, Count>, String> {
    let rows = Vec::<EndpointRow>::deserialize(page).map_err(|error| format!("/endpoints: {error}"))?;
    let counted = rows.into_iter().map(|row| {
        let series = Series {
            node: node.to_owned(),
            service_port: row.service_port,
            endpoint: row.address,
            ..Series::default()
        };
        let (calls, failures, active) = (row.calls, row.failures, row.active);
        (series, Count { calls, failures, active, latency_sum_us: None, latency_us: row.latency_us })
    });
    Ok(counted.collect())
}

/// What an agent counts by pod, Service port, method, endpoint and status.
pub(super) fn of_calls(node: &str, page: &Value) -> Result<HashMap<Series, Count>, String> {
    let rows = Vec::<CallsRow>::deserialize(page).map_err(|error| format!("/calls: {error}"))?;
    let mut counted: HashMap<Series, Count> = HashMap::new();
    for row in rows {
        let failures = if row.has_failed() { row.calls } else { 0 };
        let source = match (row.namespace, row.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            _ => String::new(),
        };
        let series = Series {
            node: node.to_owned(),
            service_port: row.service,
            endpoint: row.endpoint.unwrap_or_default(),
            method: row.method,
            source,
            status: format!("{} {:?} {}", row.http_status, row.grpc_status, row.flag),
        };
        let count = counted.entry(series).or_default();
        count.calls += row.calls;
        count.failures += failures;
        *count.latency_sum_us.get_or_insert_default() += (row.latency.sum_ms * 1e3) as u64;
    }
    Ok(counted)
}

/// The calls under way, which `/calls` does not have.
fn under_way(counted: HashMap<Series, Count>) -> impl Iterator<Item = (Series, Count)> {
    let active = counted.into_iter().filter(|(_, count)| count.active > 0);
    active.map(|(series, count)| (series, Count { active: count.active, ..Count::default() }))
}
