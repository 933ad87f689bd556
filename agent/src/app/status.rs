//! `/status`: one look at the node.

use super::discovery::Discovery;
use super::enrolments::Enrolments;
use super::node::Node;
use crate::clock::monotonic_ns;
use schemars::JsonSchema;
use serde::Serialize;

/// How the node stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StatusView {
    /// The agent's version.
    version: &'static str,
    /// The node's name; null where there is no cluster.
    node: Option<String>,
    /// Whether all pods of the node that should be are enrolled, as `/readyz` says.
    ready: bool,
    /// Whether connections are taken that are opened now.
    serving: bool,
    /// How long ago the worker process started.
    seconds: u64,
    /// The node's pods.
    pods: PodsStatus,
    /// Connections of the pods that are enrolled now.
    connections: ConnectionsStatus,
    /// Calls since the worker process started.
    calls: CallsStatus,
    /// How many things are wrong: `/problems` has them.
    problems: usize,
}

/// How many pods are what.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct PodsStatus {
    /// Enrolled.
    enrolled: usize,
    /// To be enrolled, and not yet.
    waiting: usize,
    /// Asked for, and something is in the way.
    refused: usize,
    /// Nobody asked for them.
    not_asked: usize,
}

/// How many connections went where.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct ConnectionsStatus {
    /// With the agent now.
    open: u64,
    /// Taken since the pods were enrolled.
    taken: u64,
    /// To addresses that are balanced, and straight all the same.
    straight: u64,
}

/// How many calls came to what.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct CallsStatus {
    /// Begun.
    begun: u64,
    /// Ended in a failure of a server's or of the agent's own.
    failed: u64,
    /// Under way.
    active: u64,
}

impl Node {
    pub(super) fn status(&mut self, source: &Discovery) -> StatusView {
        let counted = self.with_tools(|pods, tools| pods.counts(tools));
        let open = self.with_tools(Enrolments::open_connections);
        let (enrolled, all) = (self.pods.enrolled_count(), self.world.pods().len());
        let refused = self.world.refused().count();
        let waiting = self.pods.wanted_count() - enrolled;
        let mut connections = ConnectionsStatus { open, ..ConnectionsStatus::default() };
        for (outcome, count) in counted.iter().flat_map(|pod| &pod.connections) {
            match *outcome {
                "taken" => connections.taken += count,
                "unknown_destination" | "own_mark" => {}
                _ => connections.straight += count,
            }
        }
        let counters = self.workers.counters();
        StatusView {
            version: env!("CARGO_PKG_VERSION"),
            node: self.config.cluster.node_name.clone(),
            ready: self.readiness.is_ready(),
            serving: self.serving,
            seconds: monotonic_ns().saturating_sub(self.started_ns) / 1_000_000_000,
            pods: PodsStatus {
                enrolled,
                waiting,
                refused,
                not_asked: all.saturating_sub(enrolled + waiting + refused),
            },
            connections,
            calls: CallsStatus {
                begun: counters.calls,
                failed: counters.server_failures + counters.own_errors,
                active: counters.calls_open,
            },
            problems: self.problems(source).len() + self.world.refusals().current().len(),
        }
    }
}
