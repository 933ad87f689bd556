//! A collector of spans that is not ours: OpenTelemetry's published messages on grpcio's server (`tests/peers/collector`).

use crate::stacks::{python, sources};
use crate::{Pod, Process};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// A collector that runs.
#[derive(Debug)]
pub struct Collector {
    /// Its process: kill it, stop it.
    pub process: Process,
}

/// A span as the collector took it.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceivedSpan {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// As many, or none.
    pub parent_span_id: String,
    /// `tracestate`.
    pub trace_state: String,
    /// What it is called.
    pub name: String,
    /// `SPAN_KIND_…`.
    pub kind: String,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// Unix time in nanoseconds.
    pub end: u64,
    /// What is known of the call.
    pub attributes: BTreeMap<String, Value>,
    /// What happened on the way.
    pub events: Vec<ReceivedEvent>,
    /// `STATUS_CODE_…`.
    pub status: String,
    /// W3C's flags, and those of OTLP.
    pub flags: u32,
    /// Who sent it.
    pub resource: BTreeMap<String, Value>,
    /// What made it.
    pub scope: String,
}

/// An event of a span.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceivedEvent {
    /// What it is called.
    pub name: String,
    /// Unix time in nanoseconds.
    pub time: u64,
    /// What is known of it.
    pub attributes: BTreeMap<String, Value>,
}

/// A batch that came to the collector.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceivedExport {
    /// How it was answered.
    pub answer: String,
    /// How many spans are in it.
    pub spans: u64,
    /// Fields that the published messages do not know.
    pub unknown: u64,
    /// What came with it.
    pub headers: BTreeMap<String, String>,
}

/// OTLP's port for gRPC.
pub const PORT: u16 = 4317;

impl Collector {
    /// The command of a collector that listens at that address, with further options of `collector.py`.
    ///
    /// # Errors
    /// When its packages cannot be installed.
    pub fn command(listen: &str, options: &[&str]) -> Result<Command> {
        let mut command = Command::new(python("collector")?);
        command.arg(sources("collector").join("collector.py")).args(["--listen", listen]).args(options);
        Ok(command)
    }

    /// The collector of a process that was started with [`Self::command`], once it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn started(mut process: Process) -> Result<Self> {
        process.line("ready")?;
        Ok(Self { process })
    }

    /// The spans that it has taken so far, in the order in which they came.
    ///
    /// # Errors
    /// When it says something else.
    pub fn spans(&self) -> Result<Vec<ReceivedSpan>> {
        self.said("span ")
    }

    /// The batches that have come so far.
    ///
    /// # Errors
    /// When it says something else.
    pub fn exports(&self) -> Result<Vec<ReceivedExport>> {
        self.said("export ")
    }

    fn said<T: for<'a> Deserialize<'a>>(&self, keyword: &str) -> Result<Vec<T>> {
        let lines = self.process.stdout();
        let told = lines.iter().filter_map(|line| line.strip_prefix(keyword));
        told.map(|json| serde_json::from_str(json).with_context(|| json.to_owned())).collect()
    }
}

impl Pod {
    /// A collector in the pod, on [`PORT`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn collect(&self, options: &[&str]) -> Result<Collector> {
        let command = Collector::command(&format!("[::]:{PORT}"), options)?;
        Collector::started(self.spawn("collector", command)?)
    }
}
