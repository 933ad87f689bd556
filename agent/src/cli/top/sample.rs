//! What agents have counted since their start, at one moment.

use super::super::reach::{Agent, Ask, AskError, Asked, ask_all};
use super::By;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// The most lines that an agent is asked for: as many as it gives.
const MOST_LINES: usize = 10_000;

/// What is counted for itself; what lines are not told apart by is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Series {
    /// `namespace/name:port`.
    pub(super) service_port: String,
    pub(super) endpoint: String,
    pub(super) method: String,
    /// The pod that calls.
    pub(super) source: String,
}

/// How much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) calls: u64,
    pub(super) failures: u64,
    /// Under way, where that is asked for: of an endpoint.
    pub(super) active: u64,
    /// Of all calls together, in microseconds, where the agent counts it.
    pub(super) latency_sum_us: Option<u64>,
    /// The moving average, in microseconds, where it does not.
    pub(super) latency_us: Option<u64>,
}

/// What all agents have counted.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// By node. Who has not answered is not there.
    pub(super) nodes: BTreeMap<String, Counted>,
    /// Agents that count by endpoint alone, as older ones.
    pub(super) coarse: BTreeSet<String>,
    /// Agents that have not answered.
    pub(super) silent: BTreeSet<String>,
    /// Who has not answered, or not all, and why.
    pub(super) complaints: Vec<String>,
}

/// What one agent has counted.
#[derive(Debug)]
pub(super) struct Counted {
    /// When it said so.
    pub(super) at: Instant,
    pub(super) series: HashMap<Series, Count>,
    /// There is more than was answered.
    pub(super) is_cut: bool,
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

/// What `/calls` answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CallsPage {
    calls: Vec<CallsRow>,
    total: usize,
    cut: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CallsRow {
    namespace: String,
    pod: Option<String>,
    service: String,
    method: String,
    endpoint: String,
    calls: u64,
    failures: u64,
    latency: LatencyRow,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LatencyRow {
    sum_ms: f64,
}

impl By {
    /// What `/calls` is to tell apart.
    fn dimensions(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Endpoint => "service,endpoint",
            Self::Method => "service,method",
            Self::Pod => "pod",
        }
    }

    /// Whether it is known how many calls are under way.
    pub(super) fn has_active(self) -> bool {
        matches!(self, Self::Service | Self::Endpoint)
    }
}

/// Asks all agents, for what is shown.
pub(super) async fn take(agents: Vec<Agent>, limit: Duration, by: By) -> (Vec<Agent>, Sample) {
    let calls = Ask::get(format!("/calls?by={}&limit={MOST_LINES}", by.dimensions())).of_object();
    let mut asks = vec![calls];
    asks.extend(by.has_active().then(|| Ask::get("/endpoints").of_list()));
    let answered = ask_all(agents, &asks, limit).await;
    let (mut sample, mut agents) = (Sample::default(), Vec::new());
    for Asked { agent, answers, at } in answered {
        match answers {
            Ok(answers) => sample.add(&agent.node, at, answers),
            Err(error) => {
                sample.complaints.push(format!("{}: {error}", agent.node));
                sample.silent.insert(agent.node.clone());
            }
        }
        agents.push(agent);
    }
    (agents, sample)
}

impl Sample {
    /// Whether all who have answered count by endpoint alone.
    pub(super) fn is_coarse(&self) -> bool {
        !self.coarse.is_empty() && self.nodes.keys().all(|node| self.coarse.contains(node))
    }

    fn add(&mut self, node: &str, at: Instant, answers: Vec<Result<Value, AskError>>) {
        let mut is_cut = false;
        let mut answers = answers.into_iter();
        let (calls, endpoints) = (answers.next(), answers.next());
        let read = match calls {
            Some(Ok(calls)) => CallsPage::read(&calls).map(|page| {
                if page.cut {
                    is_cut = true;
                    let (shown, total) = (page.calls.len(), page.total);
                    self.complaints.push(format!("{node}: the {shown} busiest of {total} lines are counted"));
                }
                let mut counted = page.counted();
                let endpoints = endpoints.and_then(Result::ok);
                let endpoints = endpoints.and_then(|endpoints| of_endpoints(&endpoints).ok());
                for (series, Count { active, .. }) in endpoints.unwrap_or_default() {
                    if active > 0 {
                        counted.entry(series).or_default().active = active;
                    }
                }
                counted
            }),
            Some(Err(error)) if error.is_unknown_page() => {
                self.coarse.insert(node.to_owned());
                match endpoints {
                    Some(Ok(endpoints)) => of_endpoints(&endpoints),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("it does not count by method and by calling pod: it is of an older version"
                        .to_owned()),
                }
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Err("an answer is missing".to_owned()),
        };
        match read {
            Ok(series) => drop(self.nodes.insert(node.to_owned(), Counted { at, series, is_cut })),
            Err(error) => self.complaints.push(format!("{node}: {error}")),
        }
    }
}

/// What an agent without `/calls` counts.
pub(super) fn of_endpoints(page: &Value) -> Result<HashMap<Series, Count>, String> {
    let rows = Vec::<EndpointRow>::deserialize(page).map_err(|error| format!("/endpoints: {error}"))?;
    let counted = rows.into_iter().map(|row| {
        let series = Series { service_port: row.service_port, endpoint: row.address, ..Series::default() };
        let (calls, failures, active) = (row.calls, row.failures, row.active);
        (series, Count { calls, failures, active, latency_sum_us: None, latency_us: row.latency_us })
    });
    Ok(counted.collect())
}

impl CallsPage {
    pub(super) fn read(page: &Value) -> Result<Self, String> {
        Self::deserialize(page).map_err(|error| format!("/calls: {error}"))
    }

    pub(super) fn counted(self) -> HashMap<Series, Count> {
        let mut counted: HashMap<Series, Count> = HashMap::new();
        for row in self.calls {
            let series = Series {
                service_port: row.service,
                endpoint: row.endpoint,
                method: row.method,
                source: row.pod.map(|pod| format!("{}/{pod}", row.namespace)).unwrap_or_default(),
            };
            let count = counted.entry(series).or_default();
            count.calls += row.calls;
            count.failures += row.failures;
            *count.latency_sum_us.get_or_insert_default() += (row.latency.sum_ms * 1e3) as u64;
        }
        counted
    }
}
