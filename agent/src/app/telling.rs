//! What is told of single calls: begun before the worker threads, and ended behind them.

use crate::config::{AccessLogConfig, AgentConfig, TracesConfig};
use crate::telemetry::access_log::{AccessLog, AccessLogCounts};
use crate::telemetry::otlp::{Export, Exporter, TraceCounts};
use crate::telemetry::{Audience, Tracer};
use anyhow::{Result, anyhow};
use std::fs;
use std::sync::Arc;

/// Who is told of single calls: the access log and the exporter of spans, if there are any.
pub(super) struct Telling {
    pub(super) audience: Arc<Audience>,
    log: Option<AccessLog>,
    /// Decides which calls are traced.
    pub(super) tracer: Option<Arc<Tracer>>,
    exporter: Option<Exporter>,
}

/// Traces, and on whose behalf.
pub(super) struct TracesOf<'a> {
    traces: &'a TracesConfig,
    node_name: Option<&'a str>,
    pod_uid: Option<&'a str>,
    mark: Option<u32>,
}

impl<'a> TracesOf<'a> {
    /// Those of an agent; `None`: it has none.
    pub(super) fn agent(config: &'a AgentConfig) -> Option<Self> {
        Some(Self {
            traces: config.traces.as_ref()?,
            node_name: config.cluster.node_name.as_deref(),
            pod_uid: config.cluster.pod_uid.as_deref(),
            mark: Some(config.mark),
        })
    }

    /// Those of the call path without eBPF, which nobody takes its sockets from.
    pub(super) fn proxy(traces: &'a TracesConfig) -> Self {
        Self { traces, node_name: None, pod_uid: None, mark: None }
    }

    fn export(&self) -> Export {
        let mut resource = self.traces.resource.clone();
        resource.add("k8s.node.name", self.node_name);
        resource.add("k8s.pod.uid", self.pod_uid);
        // A worker process that starts again is another instance: its counts begin anew. In containers, all first processes have one number.
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let place = self.pod_uid.or(self.node_name).unwrap_or(host.trim_end());
        let own = format!("{place}-{}", std::process::id());
        resource.add("service.instance.id", Some(&own));
        Export {
            endpoint: self.traces.endpoint.clone(),
            ca_file: self.traces.ca_file.clone(),
            headers: self.traces.headers.clone(),
            compression: self.traces.compression,
            resource,
            mark: self.mark,
        }
    }
}

impl Telling {
    /// Opens the access log and begins to export spans, if these are wanted.
    pub(super) fn begin(log: Option<&AccessLogConfig>, traces: Option<TracesOf<'_>>) -> Result<Self> {
        let (audience, log) = match log {
            None => (Arc::default(), None),
            Some(AccessLogConfig { calls, format, to }) => {
                let (outlet, log) = AccessLog::start(*format, to)?;
                tokio::spawn(log.counts().tell_drops());
                (Arc::new(Audience::with_log(*calls, outlet)), Some(log))
            }
        };
        let (tracer, exporter) = match traces {
            None => (None, None),
            Some(of) => {
                if !of.traces.endpoint.is_secure() && !of.traces.headers.is_empty() {
                    tracing::warn!(endpoint = %of.traces.endpoint, "whoever is on the way reads the spans' headers: it is not https");
                }
                let (tracer, spans) = Tracer::new(of.traces.sample, of.traces.start);
                let exporter =
                    Exporter::start(of.export(), spans).map_err(|error| anyhow!("traces: {error}"))?;
                (Some(Arc::new(tracer)), Some(exporter))
            }
        };
        Ok(Self { audience, log, tracer, exporter })
    }

    /// What becomes of the access log's records; none, where there is no log.
    pub(super) fn counts(&self) -> AccessLogCounts {
        self.log.as_ref().map(AccessLog::counts).unwrap_or_default()
    }

    /// What becomes of traced calls' spans; none, where traces are off.
    pub(super) fn span_counts(&self) -> TraceCounts {
        self.exporter.as_ref().map(Exporter::counts).unwrap_or_default()
    }

    /// Ends the taps, writes what the access log has been told, and sends the last spans.
    pub(super) async fn end(self) {
        let Self { audience, log, exporter, .. } = self;
        audience.end_taps();
        let log_ends = async {
            if let Some(log) = log {
                log.end().await;
            }
        };
        let export_ends = async {
            if let Some(exporter) = exporter {
                exporter.end().await;
            }
        };
        // Each has its own limit, and the pod's grace is one.
        tokio::join!(log_ends, export_ends);
    }
}
