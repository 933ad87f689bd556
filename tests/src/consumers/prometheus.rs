//! A Prometheus that scrapes an agent, as Debian packages it.

use super::{encoded, json, program};
use crate::cgroup::Cgroup;
use crate::cluster::NODE_NAME;
use crate::netns::Netns;
use crate::process::{Place, Process};
use crate::wait::{eventually_answered, eventually_some};
use crate::{Agent, Cluster};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Names the folder of `prometheus` and `promtool`.
pub(super) const VARIABLE: &str = "EVENKEEL_PROMETHEUS";
pub(super) const LINK: &str = "consumers/prometheus/usr/bin";

/// Where it answers, on the node's loopback.
const PORT: u16 = 9_090;
/// Often enough for a test; not so often that a machine with much else to do has a scrape fail for it.
const SCRAPE_SECONDS: u32 = 2;

/// More than can go wrong while all sleeps.
const SCRAPES_LOOKED_BACK: u32 = 20;

/// The scraped target's labels, as the chart's PodMonitor has them.
const JOB: &str = "evenkeel-system/evenkeel";

/// A moment of a Prometheus' clock, in milliseconds since the Unix epoch, as its samples have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub i64);

impl Instant {
    /// The moment as a query's `time`.
    fn seconds(self) -> String {
        format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// A series' labels, with `__name__` if it has one.
pub type Series = BTreeMap<String, String>;

/// A series and its value at the time that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub series: Series,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty without it, as Prometheus has it.
    pub fn label(&self, name: &str) -> &str {
        self.series.get(name).map_or("", String::as_str)
    }
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    /// The process.
    pub process: Process,
    node: Arc<Netns>,
    address: SocketAddr,
    _cgroup: Cgroup,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one on the cluster's node that scrapes the agent and evaluates the rules of these files, and waits for its first scrape.
    ///
    /// # Errors
    /// When there is none, or it takes no such configuration, or cannot scrape.
    pub fn start(cluster: &Cluster, agent: &Agent, rules: &[&Path]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let configuration = folder.path().join("prometheus.yml");
        std::fs::write(&configuration, self::configuration(agent, rules)?)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let mut command = Command::new(program(VARIABLE, LINK, "prometheus")?);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            // Templates of the page, which Debian has elsewhere; nobody looks at it here.
            .arg(format!("--web.console.templates={}", folder.path().display()))
            .arg(format!("--web.console.libraries={}", folder.path().display()))
            .arg("--log.level=warn");
        let cgroup = cluster.system_cgroup("prometheus")?;
        let place = Place::new(cgroup.path(), Some(cluster.node.open()?))?;
        let process = Process::spawn("prometheus", command, Some(place))?;
        let node = Arc::clone(&cluster.node);
        let mut prometheus = Self { process, node, address, _cgroup: cgroup, _folder: folder };
        prometheus.ready()?;
        Ok(prometheus)
    }

    fn ready(&mut self) -> Result<()> {
        eventually_some("Prometheus has scraped the agent", || {
            if let Some(status) = self.process.ended()? {
                bail!("Prometheus ended ({status}): {}", self.process.stderr().join("\n"));
            }
            // Until it listens, there is nobody to ask.
            Ok(self.last_scrape().unwrap_or(None).map(drop))
        })
    }

    /// When the agent was scraped last, if that went well.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn last_scrape(&self) -> Result<Option<Instant>> {
        let at = self.query("timestamp(up) and up == 1")?;
        Ok(at.first().map(|sample| Instant((sample.value * 1_000.0).round() as i64)))
    }

    /// The last scrape before another that went well.
    ///
    /// # Errors
    /// When there is none.
    pub fn scrape_before(&self, scrape: Instant) -> Result<Instant> {
        let mut at = Instant(scrape.0 - 1);
        // A scrape that went wrong hides the one before it.
        for _ in 0..SCRAPES_LOOKED_BACK {
            if let Some(sample) = self.query_at("timestamp(up) and up == 1", at)?.first() {
                return Ok(Instant((sample.value * 1_000.0).round() as i64));
            }
            at.0 -= i64::from(SCRAPE_SECONDS) * 1_000;
        }
        bail!("no scrape went well before {scrape:?}")
    }

    /// Does `work` between two scrapes, while Prometheus sleeps.
    ///
    /// # Errors
    /// When it does not scrape.
    pub fn asleep<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        // Right behind a scrape, so that none is under way.
        let last = self.last_scrape()?;
        eventually_answered("Prometheus scrapes again", || {
            Ok(self.last_scrape()?.filter(|at| Some(*at) != last))
        })?;
        self.process.signal(libc::SIGSTOP);
        let done = work();
        self.process.signal(libc::SIGCONT);
        Ok(done)
    }

    /// Asks for a query's value now.
    ///
    /// # Errors
    /// When it is refused, with the reason, or gives no instant vector.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let path = format!("query?query={}", encoded(query));
        self.ask(&path).and_then(|data| samples(&data)).with_context(|| query.to_owned())
    }

    /// Asks for a query's value at a moment.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn query_at(&self, query: &str, at: Instant) -> Result<Vec<Sample>> {
        let path = format!("query?query={}&time={}", encoded(query), at.seconds());
        self.ask(&path).and_then(|data| samples(&data)).with_context(|| query.to_owned())
    }

    /// The sum of a query's values at a moment.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub fn sum_at(&self, query: &str, at: Instant) -> Result<f64> {
        Ok(self.query_at(query, at)?.iter().map(|sample| sample.value).sum())
    }

    /// What `/api/v1` has at a path.
    ///
    /// # Errors
    /// When it answers with an error, or with a warning.
    pub fn ask(&self, path: &str) -> Result<Value> {
        let mut answer = json(&self.node, self.address, &format!("/api/v1/{path}"))?;
        ensure!(answer["status"] == "success" && answer.get("warnings").is_none(), "{path}: {answer}");
        Ok(answer["data"].take())
    }
}

/// The configuration, in JSON, which is YAML.
fn configuration(agent: &Agent, rules: &[&Path]) -> Result<String> {
    let rules = rules.iter().map(|path| path.canonicalize()).collect::<std::io::Result<Vec<_>>>()?;
    let interval = format!("{SCRAPE_SECONDS}s");
    let configuration = serde_json::json!({
        "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
        "rule_files": rules,
        "scrape_configs": [{
            "job_name": JOB,
            "honor_labels": true,
            "static_configs": [{ "targets": [agent.metrics_address().to_string()], "labels": { "node": NODE_NAME } }],
        }],
    });
    Ok(configuration.to_string())
}

/// An instant vector, or a scalar as a series without labels.
fn samples(data: &Value) -> Result<Vec<Sample>> {
    #[derive(Deserialize)]
    struct Row {
        metric: Series,
        value: (f64, String),
    }
    let number = |text: &str| text.parse().with_context(|| format!("{text} is no number"));
    match data["resultType"].as_str() {
        Some("vector") => {
            let rows: Vec<Row> = serde_json::from_value(data["result"].clone())?;
            rows.into_iter()
                .map(|row| Ok(Sample { series: row.metric, value: number(&row.value.1)? }))
                .collect()
        }
        Some("scalar") => {
            let (_, value): (f64, String) = serde_json::from_value(data["result"].clone())?;
            Ok(vec![Sample { series: Series::new(), value: number(&value)? }])
        }
        other => bail!("{other:?} is no instant vector"),
    }
}
