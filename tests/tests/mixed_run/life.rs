//! One call's life: what its client, the servers, the access log and its span tell of it, and whether that is one story.

use crate::stage::{Begun, STAY, Stage};
use anyhow::{Context, Result, ensure};
use evenkeel_tests::Outcome;
use evenkeel_tests::collector::{ReceivedEvent, ReceivedSpan};
use evenkeel_tests::peer::SeenEnd;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Whether a server has begun an attempt, as the agent's word for its end tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Surely,
    Never,
    /// If it was there.
    UnlessItEnded,
    Perhaps,
}

/// An endpoint that was chosen.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) endpoint: String,
    begins: Begins,
}

/// A call, as the agent tells of it.
#[derive(Debug)]
pub(super) struct Life {
    /// Its record in the access log.
    pub(super) line: Value,
    span: ReceivedSpan,
    pub(super) attempts: Vec<Attempt>,
    seen: SeenEnd,
    begun: Vec<Begun>,
}

/// The calls that a worker process has carried, by their trace ids.
pub(super) struct Lives {
    pub(super) calls: BTreeMap<String, Life>,
    names: BTreeMap<String, String>,
}

impl Lives {
    /// Those that came to an end in that process: of spans it is known.
    pub(super) fn of(stage: &Stage, process: i32) -> Result<Self> {
        let mut lines = BTreeMap::<String, Vec<Value>>::new();
        for line in stage.lines()? {
            let trace = line["trace_id"].as_str().with_context(|| format!("a trace: {line}"))?;
            lines.entry(trace.to_owned()).or_default().push(line);
        }
        let mut begun = BTreeMap::<String, Vec<Begun>>::new();
        for attempt in stage.begun()? {
            begun.entry(attempt.trace.clone()).or_default().push(attempt);
        }
        let instance = format!("-{process}");
        let mut calls = BTreeMap::new();
        for span in stage.collector.spans()? {
            let of = span.resource.get("service.instance.id").and_then(Value::as_str).unwrap_or_default();
            if !of.ends_with(&instance) {
                continue;
            }
            let trace = span.trace_id.clone();
            let told = || format!("{trace}: {span:#?}");
            let seen = stage.seen().get(&trace).with_context(|| format!("no client made it: {}", told()))?;
            let [line] = &lines.remove(&trace).unwrap_or_default()[..] else {
                anyhow::bail!("not in the access log, or twice: {}", told());
            };
            let attempts = attempts(&span).with_context(told)?;
            let life = Life {
                line: line.clone(),
                attempts,
                seen: seen.clone(),
                begun: begun.remove(&trace).unwrap_or_default(),
                span,
            };
            ensure!(calls.insert(trace.clone(), life).is_none(), "{trace} has two spans");
        }
        Ok(Self { calls, names: stage.names() })
    }

    /// Nobody but a client that gave up before its call had left knows of a call that is not among these.
    pub(super) fn are_all_of(&self, seen: &BTreeMap<String, SeenEnd>) -> Outcome {
        for (trace, end) in seen {
            let may_be_unknown = *end == SeenEnd::Cancelled || is_late(end);
            ensure!(may_be_unknown || self.calls.contains_key(trace), "{trace} is missing: {end:?}");
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Outcome {
        self.calls.iter().try_for_each(|(trace, life)| {
            life.check(&self.names).with_context(|| format!("{trace}: {life:#?}"))
        })
    }
}

/// The client's own clock ended it.
fn is_late(end: &SeenEnd) -> bool {
    matches!(end, SeenEnd::Failed(_, message) if message == "Timeout expired")
}

fn address(attributes: &BTreeMap<String, Value>) -> Result<String> {
    let part = |name: &str| attributes.get(name).with_context(|| name.to_owned());
    let host = part("network.peer.address")?.as_str().context("an address")?;
    Ok(format!("{host}:{}", part("network.peer.port")?))
}

/// What was chosen for a call, one after the other. Each but the last has an event; the last has one, too, where the call was to be sent again
/// and ended before that.
fn attempts(span: &ReceivedSpan) -> Result<Vec<Attempt>> {
    let count =
        span.attributes.get("evenkeel.attempts").and_then(Value::as_u64).context("attempts")? as usize;
    ensure!(span.events.len() == count || span.events.len() + 1 == count, "attempts without a reason");
    let mut attempts = span.events.iter().map(failed_attempt).collect::<Result<Vec<_>>>()?;
    if attempts.len() < count {
        attempts.push(Attempt { endpoint: address(&span.attributes)?, begins: last_begins(span) });
    }
    Ok(attempts)
}

fn failed_attempt(event: &ReceivedEvent) -> Result<Attempt> {
    let cause = event.attributes.get("evenkeel.retry.cause").and_then(Value::as_str).context("a cause")?;
    let begins = match cause {
        "connection_refused" | "stream_refused" | "connection_lost" | "endpoint_gone" => Begins::Never,
        // The server's own, or the agent's for a connection that was lost or refused.
        "status" => Begins::UnlessItEnded,
        other => anyhow::bail!("{other} is no cause"),
    };
    Ok(Attempt { endpoint: address(&event.attributes)?, begins })
}

fn last_begins(span: &ReceivedSpan) -> Begins {
    match span.attributes.get("evenkeel.flag").and_then(Value::as_str) {
        None => Begins::Surely,
        Some("refused" | "circuit" | "no_endpoint") => Begins::Never,
        Some(_) => Begins::Perhaps,
    }
}

impl Life {
    fn check(&self, names: &BTreeMap<String, String>) -> Outcome {
        self.is_as_its_client_saw_it()?;
        self.is_told_alike()?;
        self.is_as_servers_saw_it(names)
    }

    fn is_as_its_client_saw_it(&self) -> Outcome {
        let line = &self.line;
        let (status, flag) = (line["grpc_status"].as_i64(), line["flag"].as_str());
        match &self.seen {
            SeenEnd::Answered(server) => {
                let pod = line["endpoint"]["pod"].as_str();
                ensure!(pod == Some(&format!("shop/{server}")), "{server} has answered");
                ensure!(status == Some(0) && flag.is_none(), "it was answered");
            }
            // The deadline is the client's as the agent's and the server's; on whose clock it passed first nobody knows.
            end @ SeenEnd::Failed(..) if is_late(end) => {
                ensure!(matches!(flag, Some("deadline" | "client_cancelled") | None), "it was late");
                ensure!(flag.is_some() || matches!(status, Some(1 | 4)), "it was late");
            }
            SeenEnd::Failed(code, message) => {
                ensure!(status == Some(i64::from(*code)), "its client has another status");
                ensure!((message == "not yet") == flag.is_none(), "whose status it is");
            }
            // What became of it before the agent heard of that, its client has not seen.
            SeenEnd::Cancelled => {
                let given_up = matches!(flag, Some("client_cancelled" | "client_gone"));
                ensure!(given_up || status.is_some_and(|status| status != 0), "it was not answered");
            }
            SeenEnd::Unanswered => anyhow::bail!("it never ended"),
        }
        Ok(())
    }

    /// The record and the span say the same.
    fn is_told_alike(&self) -> Outcome {
        let (line, of_span) = (&self.line, &self.span.attributes);
        for (field, attribute) in [
            ("flag", "evenkeel.flag"),
            ("method", "rpc.method"),
            ("attempts", "evenkeel.attempts"),
            ("request_bytes", "evenkeel.request_bytes"),
            ("response_bytes", "evenkeel.response_bytes"),
            ("request_messages", "evenkeel.request_messages"),
            ("response_messages", "evenkeel.response_messages"),
            ("new_connection", "evenkeel.new_connection"),
        ] {
            let told = of_span.get(attribute).cloned().unwrap_or_default();
            ensure!(line[field] == told, "{field}: {} and {told}", line[field]);
        }
        let code = line["grpc_status_name"].as_str().unwrap_or("CANCELLED");
        ensure!(of_span.get("rpc.response.status_code").is_some_and(|told| told == code), "{code}");
        let service = format!(
            "{}/{}:{}",
            line["destination"]["namespace"].as_str().unwrap_or_default(),
            line["destination"]["service"].as_str().unwrap_or_default(),
            line["destination"]["port"]
        );
        ensure!(of_span.get("evenkeel.service").is_some_and(|told| *told == service), "{service}");
        let last = self.attempts.last().map(|attempt| attempt.endpoint.as_str());
        ensure!(line["endpoint"]["address"].as_str() == last, "{last:?}");
        Ok(())
    }

    fn is_as_servers_saw_it(&self, names: &BTreeMap<String, String>) -> Outcome {
        let servers: BTreeSet<&str> = self.begun.iter().map(|begun| &*begun.server).collect();
        let chosen = |server: &str| {
            let is_its = |attempt: &&Attempt| names.get(&attempt.endpoint).is_some_and(|name| name == server);
            self.attempts.iter().filter(is_its).collect::<Vec<_>>()
        };
        for server in names.values() {
            let attempts = chosen(server);
            let of = |begins| attempts.iter().filter(|attempt| attempt.begins == begins).count();
            let begun = self.begun.iter().filter(|begun| begun.server == *server).count();
            let stays = STAY.contains(&server.as_str());
            let least = of(Begins::Surely) + if stays { of(Begins::UnlessItEnded) } else { 0 };
            let most = attempts.len() - of(Begins::Never);
            ensure!((least..=most).contains(&begun), "{server} has begun {begun}, not {least} to {most}");
        }
        ensure!(servers.iter().all(|server| names.values().any(|name| name == server)), "{servers:?}");
        for begun in &self.begun {
            ensure!(begun.parent == self.span.span_id, "{} has another parent", begun.server);
        }
        if let SeenEnd::Answered(server) = &self.seen {
            let by_policy = self.span.events.iter().filter(|event| {
                event.attributes.get("evenkeel.retry.cause").is_some_and(|cause| cause == "status")
            });
            let by_policy = by_policy.count() as u64;
            let answered = |begun: &&Begun| begun.server == *server && begun.previous >= by_policy;
            ensure!(
                self.begun.iter().any(|begun| answered(&begun)),
                "{server} has not been told of {by_policy} before"
            );
        }
        Ok(())
    }
}
