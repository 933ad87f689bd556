//! Jaeger, all of it in one process, with its spans in memory.

use super::{json, program};
use crate::Cluster;
use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::process::{Place, Process};
use crate::wait::eventually_some;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;

const VARIABLE: &str = "EVENKEEL_JAEGER";
const LINK: &str = "consumers/jaeger";

/// Where it takes spans by OTLP over gRPC (OTLP's own port), and where it answers questions; on the node's loopback.
const OTLP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4_317);
const QUERY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 16_686);

/// More than a test makes.
const MOST_TRACES: usize = 1_000;

/// A span as Jaeger has it.
#[derive(Clone, Debug)]
pub struct Span(pub Value);

impl Span {
    /// Its id, as 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        self.0["spanID"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0["operationName"].as_str().unwrap_or_default()
    }

    /// The id of the span that it is a child of.
    pub fn parent(&self) -> Option<&str> {
        let references = self.0["references"].as_array()?;
        let parent = references.iter().find(|reference| reference["refType"] == "CHILD_OF")?;
        parent["spanID"].as_str()
    }

    /// An attribute of its own.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        let tags = self.0["tags"].as_array()?;
        tags.iter().find(|tag| tag["key"] == name).map(|tag| &tag["value"])
    }
}

/// A running Jaeger.
#[derive(Debug)]
pub struct Jaeger {
    /// The process.
    pub process: Process,
    node: Arc<Netns>,
    _cgroup: Cgroup,
}

impl Jaeger {
    /// Starts one on the cluster's node, and waits until it takes spans and questions.
    ///
    /// # Errors
    /// When there is none, or it ends.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let mut command = Command::new(program(VARIABLE, LINK, "all-in-one")?);
        command
            .arg("--collector.otlp.enabled=true")
            .arg(format!("--collector.otlp.grpc.host-port={OTLP}"))
            .arg(format!("--query.http-server.host-port={QUERY}"))
            .arg("--log-level=warn")
            .env("SPAN_STORAGE_TYPE", "memory");
        let cgroup = cluster.system_cgroup("jaeger")?;
        let place = Place::new(cgroup.path(), Some(cluster.node.open()?))?;
        let process = Process::spawn("jaeger", command, Some(place))?;
        let mut jaeger = Self { process, node: Arc::clone(&cluster.node), _cgroup: cgroup };
        jaeger.ready()?;
        Ok(jaeger)
    }

    fn ready(&mut self) -> Result<()> {
        eventually_some("Jaeger answers and listens", || {
            if let Some(status) = self.process.ended()? {
                bail!("Jaeger ended ({status}): {}", self.process.stderr().join("\n"));
            }
            let answers = json(&self.node, QUERY, "/api/services").is_ok();
            let listens = self.node.enter(|| crate::agent::connect(OTLP).is_ok())?;
            Ok((answers && listens).then_some(()))
        })
    }

    /// Where it takes spans, as `--otlp-endpoint` has it.
    pub fn endpoint(&self) -> String {
        format!("http://{OTLP}")
    }

    /// How many traces it has of what calls itself so (spans' `service.name`).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn traces_of(&self, service: &str) -> Result<usize> {
        let answer = json(&self.node, QUERY, &format!("/api/traces?service={service}&limit={MOST_TRACES}"))?;
        Ok(answer["data"].as_array().context("traces are a list")?.len())
    }

    /// The spans of the trace with that id, of 32 hexadecimal digits; none while it has no such trace.
    ///
    /// # Errors
    /// When it answers with something else than traces.
    pub fn trace(&self, id: &str) -> Result<Vec<Span>> {
        // It answers 404 for what it does not have.
        let Ok(answer) = json(&self.node, QUERY, &format!("/api/traces/{id}")) else { return Ok(Vec::new()) };
        let traces = answer["data"].as_array().context("traces are a list")?;
        let spans = traces.iter().filter_map(|trace| trace["spans"].as_array()).flatten();
        Ok(spans.cloned().map(Span).collect())
    }
}
