//! `evenkeel agent`.

use super::protection::parse_memory;
use super::{
    AccessLogArgs, AccessLogConfig, CircuitArgs, ClusterArgs, ClusterConfig, PortRange, Source, TracesArgs,
    TracesConfig, workers_or_cores,
};
use crate::admin::AdminAddress;
use crate::mesh::{Protection, protection};
use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

/// What `evenkeel agent` takes. Every flag is also an environment variable.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// Where Services, endpoints and pods are learnt from: kubernetes, the API of the node's cluster, or folder:DIR, a folder of
    /// the YAML that a cluster would hold
    #[arg(long, env = "EVENKEEL_SOURCE", value_name = "SOURCE", default_value = "kubernetes")]
    source: Source,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// The cgroup2 folder to attach at; by default the pods' common one, else the root of cgroup2
    #[arg(long, env = "EVENKEEL_CGROUP", value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Worker threads; by default one a core
    #[arg(long, env = "EVENKEEL_WORKERS", value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// The local admin endpoint: ADDRESS:PORT, or unix:/PATH for a socket that only the agent's own user may open. Whoever asks has to name
    /// ADDRESS, or one of loopback
    #[arg(long, env = "EVENKEEL_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:15800")]
    admin: AdminAddress,
    /// Readiness and liveness: /readyz, /livez
    #[arg(long, env = "EVENKEEL_READINESS", value_name = "ADDR", default_value = "0.0.0.0:15801")]
    readiness: SocketAddr,
    /// Prometheus metrics
    #[arg(long, env = "EVENKEEL_METRICS", value_name = "ADDR", default_value = "0.0.0.0:15802")]
    metrics: SocketAddr,
    /// The ports, below the ephemeral range, of which each pod's listener takes one that the pod neither declares nor uses
    #[arg(long, env = "EVENKEEL_LISTENER_PORTS", value_name = "FIRST-LAST", default_value = "15810-15899")]
    listener_ports: PortRange,
    /// The SO_MARK of the agent's own sockets, which are never redirected
    #[arg(long, env = "EVENKEEL_MARK", value_name = "N", default_value = "0x1000", value_parser = parse_mark)]
    mark: NonZeroU32,
    /// The most destinations (a Service address and port each) that the kernel's map holds
    #[arg(long, env = "EVENKEEL_MAX_DESTINATIONS", value_name = "N", default_value = "65536", value_parser = clap::value_parser!(u32).range(1..=crate::mesh::DestinationId::SPACE as i64))]
    max_destinations: u32,
    /// The most pods of this node that the kernel's map holds
    #[arg(long, env = "EVENKEEL_MAX_PODS", value_name = "N", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..=65536))]
    max_pods: u32,
    /// Whose network namespace the connections to endpoints are opened in
    #[arg(long, env = "EVENKEEL_UPSTREAM_SOCKETS", value_name = "WHOSE", value_enum, default_value = "pod")]
    upstream_sockets: UpstreamSockets,
    /// What the connections and calls of a pod may hold in memory, as 128Mi; beyond it its calls are answered RESOURCE_EXHAUSTED
    #[arg(long, env = "EVENKEEL_POD_MEMORY", value_name = "BYTES", default_value = "128Mi", value_parser = parse_memory)]
    pod_memory: u64,
    /// The most connections that a pod may have through the agent; beyond it new ones go straight
    #[arg(long, env = "EVENKEEL_MAX_POD_CONNECTIONS", value_name = "N", default_value_t = protection::MAX_POD_CONNECTIONS, value_parser = clap::value_parser!(u32).range(1..))]
    max_pod_connections: u32,
    #[command(flatten)]
    circuit: CircuitArgs,
    /// What is counted of calls
    #[arg(long, env = "EVENKEEL_CALL_METRICS", value_enum, default_value_t = CallMetrics::Istio)]
    call_metrics: CallMetrics,
    #[command(flatten)]
    access_log: AccessLogArgs,
    #[command(flatten)]
    traces: TracesArgs,
    /// How long calls may go on after SIGTERM, in seconds
    #[arg(long, env = "EVENKEEL_DRAIN_SECONDS", value_name = "N", default_value = "20")]
    drain_seconds: u32,
}

/// What is counted of calls.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallMetrics {
    /// Nothing: /calls, top and the page's graph stay empty
    None,
    /// Calls by Service, endpoint, method and status: /calls, and OpenTelemetry's metrics
    Otel,
    /// And Istio's standard metrics, with sizes, as a source reports them
    Istio,
}

/// Whose network namespace upstream connections are opened in.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamSockets {
    /// The calling pod's: servers and NetworkPolicy see its address
    Pod,
    /// The agent's own: connections are shared between pods
    Node,
}

/// A checked [`AgentArgs`].
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AgentConfig {
    /// Where the truth comes from.
    pub source: Source,
    /// The agent's place in its cluster.
    #[serde(flatten)]
    pub cluster: ClusterConfig,
    /// Where to attach; `None`: found out.
    pub cgroup: Option<PathBuf>,
    /// Worker threads.
    pub workers: usize,
    /// The admin endpoint.
    pub admin: AdminAddress,
    /// The probes' endpoint.
    pub readiness: SocketAddr,
    /// The metrics' endpoint.
    pub metrics: SocketAddr,
    /// What a pod's listener may take.
    pub listener_ports: PortRange,
    /// The agent's SO_MARK.
    pub mark: u32,
    /// Entries of the kernel's destination map.
    pub max_destinations: u32,
    /// Entries of the kernel's pod map.
    pub max_pods: u32,
    /// Whose namespace upstream sockets are in.
    pub upstream_sockets: UpstreamSockets,
    /// What the call path holds each pod to.
    #[serde(flatten)]
    pub protection: Protection,
    /// Connections of a pod beyond which new ones go straight.
    pub max_pod_connections: u32,
    /// What is counted of calls.
    pub call_metrics: CallMetrics,
    /// The access log; `None`: there is none.
    pub access_log: Option<AccessLogConfig>,
    /// Traces; `None`: calls' contexts are not looked at.
    pub traces: Option<TracesConfig>,
    /// From SIGTERM to the end of the last call.
    pub drain: Duration,
}

impl AgentArgs {
    /// Checks what one flag alone cannot say.
    ///
    /// # Errors
    /// What the source needs, or has no use for; an access log that makes no sense; traces that nobody takes.
    pub fn check(self) -> Result<AgentConfig, String> {
        Ok(AgentConfig {
            cluster: self.cluster.check(&self.source)?,
            source: self.source,
            cgroup: self.cgroup,
            workers: workers_or_cores(self.workers),
            admin: self.admin,
            readiness: self.readiness,
            metrics: self.metrics,
            listener_ports: self.listener_ports,
            mark: self.mark.get(),
            max_destinations: self.max_destinations,
            max_pods: self.max_pods,
            upstream_sockets: self.upstream_sockets,
            protection: Protection {
                pod_memory: self.pod_memory,
                // What pods share is not to fail one for another's sake.
                own_memory: u64::MAX,
                circuit: self.circuit.limits(),
            },
            max_pod_connections: self.max_pod_connections,
            call_metrics: self.call_metrics,
            access_log: self.access_log.check()?,
            traces: self.traces.check(|name| std::env::var(name).ok())?,
            drain: Duration::from_secs(self.drain_seconds.into()),
        })
    }
}

fn parse_mark(text: &str) -> Result<NonZeroU32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.ok().and_then(NonZeroU32::new).ok_or_else(|| "expected a number above 0, as 0x1000".into())
}
