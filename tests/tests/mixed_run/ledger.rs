//! The agent's sums at a moment when no call is under way: `/calls`, metrics, `/endpoints`, `/workers`, `/status`, `/pods`; beside the lives of the
//! calls that the same worker process has carried, and beside each other.

use crate::life::{Life, Lives};
use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use evenkeel_tests::{Outcome, eventually};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Ledger {
    /// The worker process.
    pub(super) process: i32,
    rows: Vec<Value>,
    by_service: Vec<Value>,
    metrics: String,
    endpoints: Vec<Value>,
    workers: Value,
    status: Value,
    client: Value,
}

/// Calls, attempts, bytes each way, messages each way.
type Sums = [u64; 6];
const COLUMNS: [&str; 6] =
    ["calls", "attempts", "request_bytes", "response_bytes", "request_messages", "response_messages"];

impl Ledger {
    /// The sums when all calls are over, and all that is told of them has been told.
    pub(super) fn settled(stage: &Stage) -> Result<Self> {
        let agent = &stage.agent;
        let process = agent.worker_process()?;
        let instance = format!("-{process}");
        eventually("every call is over, and told of", || {
            let told = || -> Result<bool> {
                let workers = agent.admin("/workers")?;
                let calls = workers["calls"].as_u64().context("a counter")?;
                let is_its = |id: &Value| id.as_str().is_some_and(|id| id.ends_with(&instance));
                let spans = stage.collector.spans()?;
                let its_spans =
                    spans.iter().filter(|span| span.resource.get("service.instance.id").is_some_and(is_its));
                let text = agent.metrics()?;
                Ok(agent.is_idle()?
                    && its_spans.count() as u64 == calls
                    && metric(&text, "evenkeel_access_log_lines_total", &[])? == calls
                    && metric(&text, "evenkeel_trace_spans_total", &["outcome=\"sent\""])? == calls)
            };
            told().unwrap_or(false)
        })
        .with_context(|| format!("{:#}", agent.admin("/workers").unwrap_or_default()))?;
        let list = |path: &str, field: &str| -> Result<Vec<Value>> {
            let answer = agent.admin(path)?;
            ensure!(answer["cut"] != true, "{path} does not show all");
            let rows = if field.is_empty() { &answer } else { &answer[field] };
            Ok(rows.as_array().with_context(|| format!("{path} is a list"))?.clone())
        };
        Ok(Self {
            process,
            rows: list("/calls?limit=10000", "calls")?,
            by_service: list("/calls?by=service,method,status&limit=10000", "calls")?,
            metrics: agent.metrics()?,
            endpoints: list("/endpoints", "")?,
            workers: agent.admin("/workers")?,
            status: agent.admin("/status")?,
            client: agent.pod("client")?,
        })
    }

    pub(super) fn calls(&self) -> u64 {
        self.counter("calls")
    }

    fn counter(&self, name: &str) -> u64 {
        self.workers[name].as_u64().unwrap_or(u64::MAX)
    }

    pub(super) fn check(&self, lives: &Lives) -> Outcome {
        let lives: Vec<&Life> = lives.calls.values().collect();
        ensure!(lives.len() as u64 == self.calls(), "{} calls of {}", lives.len(), self.calls());
        self.check_rows(&lives)?;
        self.check_metrics()?;
        self.check_endpoints(&lives)?;
        self.check_counters(&lives)
    }

    /// `/calls`, which the page and `top` show, whatever it is told apart by.
    fn check_rows(&self, lives: &[&Life]) -> Outcome {
        let of_row = |row: &Value, more: &[&str]| {
            let mut key = vec![row["service"].clone(), row["method"].clone(), row["grpc_status"].clone()];
            key.push(if row["flag"] == "-" { Value::Null } else { row["flag"].clone() });
            key.extend(more.iter().map(|field| row[*field].clone()));
            key
        };
        let of_line = |line: &Value| {
            let to = &line["destination"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let service = format!("{}/{}:{}", text(&to["namespace"]), text(&to["service"]), to["port"]);
            vec![service.into(), line["method"].clone(), line["grpc_status"].clone(), line["flag"].clone()]
        };
        let by_endpoint = lives.iter().map(|life| {
            let endpoint = &life.line["endpoint"];
            let mut key = of_line(&life.line);
            key.extend([endpoint["address"].clone(), endpoint["pod"].clone()]);
            (key, of_one(&life.line))
        });
        let rows = self.rows.iter().map(|row| (of_row(row, &["endpoint", "endpoint_pod"]), sums(row)));
        are_alike("/calls", &summed(rows), &summed(by_endpoint))?;
        let by_service = lives.iter().map(|life| (of_line(&life.line), of_one(&life.line)));
        let rows = self.by_service.iter().map(|row| (of_row(row, &[]), sums(row)));
        are_alike("/calls?by=service,method,status", &summed(rows), &summed(by_service))
    }

    /// The metrics are the rows under other names.
    fn check_metrics(&self) -> Outcome {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut by_service = BTreeMap::<(String, Option<u64>), Sums>::new();
        for row in &self.by_service {
            let of_service =
                by_service.entry((text(&row["service"]), row["grpc_status"].as_u64())).or_default();
            add(of_service, &sums(row));
        }
        ensure!(!by_service.is_empty(), "there are no calls");
        for (
            (service, status),
            [calls, _, request_bytes, response_bytes, request_messages, response_messages],
        ) in &by_service
        {
            let name =
                service.strip_prefix("shop/").and_then(|name| name.split(':').next()).unwrap_or_default();
            let label = |name: &str, value: &str| format!("{name}=\"{value}\"");
            let code = status.map_or_else(String::new, |code| code.to_string());
            let labels = [label("destination_service_name", name), label("grpc_response_status", &code)];
            let labels = labels.each_ref().map(String::as_str);
            for (metric_name, expected) in [
                ("istio_requests_total", calls),
                ("istio_request_duration_milliseconds_count", calls),
                ("istio_request_bytes_count", calls),
                ("istio_request_bytes_sum", request_bytes),
                ("istio_response_bytes_sum", response_bytes),
                ("istio_request_messages_total", request_messages),
                ("istio_response_messages_total", response_messages),
            ] {
                let found = metric(&self.metrics, metric_name, &labels)?;
                ensure!(found == *expected, "{metric_name} {labels:?}: {found}, not {expected}");
            }
        }
        for service in ["plain", "again", "narrow", "nobody"] {
            let key = format!("shop/{service}:50051");
            // A client that did not wait for a status has cancelled; nothing else gives that status but servers to calls that are late.
            let of = |is_it: &dyn Fn(Option<u64>) -> bool| {
                let rows = by_service.iter().filter(|((of, status), _)| *of == key && is_it(*status));
                rows.map(|(_, sums)| sums[0]).sum::<u64>()
            };
            for (code, expected) in [
                ("OK", of(&|status| status == Some(0))),
                ("UNAVAILABLE", of(&|status| status == Some(14))),
                ("DEADLINE_EXCEEDED", of(&|status| status == Some(4))),
                ("CANCELLED", of(&|status| matches!(status, None | Some(1)))),
            ] {
                let labels = [format!("service=\"{key}\""), format!("rpc_response_status_code=\"{code}\"")];
                let labels = labels.each_ref().map(String::as_str);
                let found = metric(&self.metrics, "rpc_client_call_duration_seconds_count", &labels)?;
                ensure!(found == expected, "{labels:?}: {found}, not {expected}");
            }
        }
        ensure!(self.metrics.contains("\nevenkeel_call_series_evicted_total 0"));
        for outcome in ["dropped", "failed", "rejected"] {
            let label = format!("outcome=\"{outcome}\"");
            ensure!(metric(&self.metrics, "evenkeel_trace_spans_total", &[&label])? == 0, "{outcome}");
        }
        ensure!(metric(&self.metrics, "evenkeel_access_log_dropped_total", &[])? == 0);
        Ok(())
    }

    /// Each endpoint's calls are the attempts at it. One that was taken away and has come back counts from then on.
    fn check_endpoints(&self, lives: &[&Life]) -> Outcome {
        let mut chosen = BTreeMap::<(String, String), u64>::new();
        for life in lives {
            let service =
                format!("shop/{}:50051", life.line["destination"]["service"].as_str().unwrap_or_default());
            for attempt in &life.attempts {
                *chosen.entry((service.clone(), attempt.endpoint.clone())).or_default() += 1;
            }
        }
        let mut all = BTreeMap::<&str, u64>::new();
        for row in &self.endpoints {
            *all.entry(row["service_port"].as_str().unwrap_or_default()).or_default() +=
                row["calls"].as_u64().context("calls are counted")?;
        }
        for row in &self.endpoints {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let (service, address) = (text("service_port"), text("address"));
            let calls = row["calls"].as_u64().context("calls are counted")?;
            // Told to a tenth of a percent.
            let share = 100.0 * calls as f64 / all[&*service] as f64;
            let told = row["share_percent"].as_f64().unwrap_or(0.0);
            ensure!(calls == 0 || (told - share).abs() < 0.06, "{share}% of the calls: {row}");
            let labels = [format!("service=\"{service}\""), format!("endpoint=\"{address}\"")];
            let labels = labels.each_ref().map(String::as_str);
            for (name, field) in
                [("calls_total", "calls"), ("failures_total", "failures"), ("active_calls", "active")]
            {
                let found = metric(&self.metrics, &format!("evenkeel_endpoint_{name}"), &labels)?;
                ensure!(row[field] == found, "{name} of {labels:?}: {found}, not {}", row[field]);
            }
            ensure!(row["failures"].as_u64() <= Some(calls), "{row}");
            let has_come_back = service == "shop/plain:50051" && text("pod").ends_with("server-3");
            let expected = chosen.remove(&(service, address)).unwrap_or(0);
            ensure!(calls == expected || has_come_back && calls < expected, "{expected} attempts: {row}");
        }
        ensure!(chosen.is_empty(), "endpoints that are not told of: {chosen:?}");
        Ok(())
    }

    /// What the worker threads count is what has become of calls, and each attempt has its reason.
    fn check_counters(&self, lives: &[&Life]) -> Outcome {
        let of_flag = |is_it: &dyn Fn(Option<&str>) -> bool| {
            lives.iter().filter(|life| is_it(life.line["flag"].as_str())).count() as u64
        };
        let counter = |name: &str| self.counter(name);
        let ends = counter("answered") + counter("own_errors") + counter("cancelled");
        ensure!(ends == counter("calls"), "{ends} ends: {:#}", self.workers);
        let late = of_flag(&|flag| flag == Some("deadline"));
        let own = of_flag(&|flag| {
            matches!(flag, Some("refused" | "circuit" | "server_lost" | "server_reset" | "no_endpoint"))
        });
        // A deadline is the agent's own answer, or its client's cancel at that time.
        ensure!((own..=own + late).contains(&counter("own_errors")), "{own} own answers: {:#}", self.workers);
        let circuit = of_flag(&|flag| flag == Some("circuit"));
        ensure!(counter("circuit_refusals") == circuit, "{circuit} refused: {:#}", self.workers);
        ensure!(counter("deadlines") <= late, "{late} were late: {:#}", self.workers);
        let attempts: u64 = lives.iter().map(|life| life.attempts.len() as u64).sum();
        let sent = lives.iter().filter(|life| !life.attempts.is_empty()).count() as u64;
        let again = counter("reconnects") + counter("retries") + counter("policy_retries");
        ensure!(attempts == sent + again, "{attempts} attempts of {sent} calls: {:#}", self.workers);
        for name in
            ["calls", "answered", "own_errors", "cancelled", "retries", "reconnects", "policy_retries"]
        {
            let found = metric(&self.metrics, &format!("evenkeel_proxy_{name}_total"), &[])?;
            ensure!(found == counter(name), "{name}: {found}");
        }
        let calls = &self.status["calls"];
        ensure!(calls["begun"] == counter("calls") && calls["active"] == 0, "{calls}");
        ensure!(calls["failed"] == counter("server_failures") + counter("own_errors"), "{calls}");
        Ok(())
    }

    /// Nothing that this run is about was missing in it.
    pub(super) fn has_met_everything(&self) -> Outcome {
        for name in [
            "answered",
            "server_failures",
            "own_errors",
            "cancelled",
            "reconnects",
            "policy_retries",
            "circuit_refusals",
        ] {
            ensure!(self.counter(name) > 0, "{name}: {:#}", self.workers);
        }
        let flags: BTreeSet<&str> = self.rows.iter().filter_map(|row| row["flag"].as_str()).collect();
        for flag in ["-", "client_cancelled", "server_lost", "refused", "circuit"] {
            ensure!(flags.contains(flag), "no call was {flag}: {flags:?}");
        }
        Ok(())
    }

    /// The connections that clients have opened.
    pub(super) fn check_connections(&self, opened: u64) -> Outcome {
        ensure!(self.counter("accepted") == opened, "{opened} connections: {:#}", self.workers);
        Ok(())
    }

    /// How many connections the kernel has sent to the agent, whatever became of its worker processes.
    pub(super) fn taken(&self) -> u64 {
        self.client["connections"]["taken"].as_u64().unwrap_or(u64::MAX)
    }
}

fn sums(row: &Value) -> Sums {
    COLUMNS.map(|column| row[column].as_u64().unwrap_or(0))
}

fn of_one(line: &Value) -> Sums {
    let [_, rest @ ..] = sums(line);
    let [attempts, request_bytes, response_bytes, request_messages, response_messages] = rest;
    [1, attempts, request_bytes, response_bytes, request_messages, response_messages]
}

fn add(to: &mut Sums, more: &Sums) {
    to.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// By the texts of their keys.
fn summed(rows: impl Iterator<Item = (Vec<Value>, Sums)>) -> BTreeMap<String, Sums> {
    let mut all = BTreeMap::<String, Sums>::new();
    for (key, sums) in rows {
        add(all.entry(Value::from(key).to_string()).or_default(), &sums);
    }
    all
}

fn are_alike(what: &str, told: &BTreeMap<String, Sums>, lived: &BTreeMap<String, Sums>) -> Outcome {
    for key in told.keys().chain(lived.keys()) {
        let (told, lived) = (told.get(key), lived.get(key));
        ensure!(told == lived, "{what}: {key}: {told:?}, not {lived:?}");
    }
    Ok(())
}

/// The sum of a metric's samples that have all these labels; 0 where there are none.
fn metric(text: &str, name: &str, labels: &[&str]) -> Result<u64> {
    let is_its = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    };
    let value = |line: &str| -> Result<u64> {
        let value: f64 = line.rsplit(' ').next().context("a value")?.parse()?;
        Ok(value as u64)
    };
    text.lines().filter(is_its).map(value).sum()
}
