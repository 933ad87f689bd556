//! `/status`: the node in a few numbers.

use super::node::Node;
use crate::sources::Problem;
use evenkeel_common::Reason;
use schemars::JsonSchema;
use serde::Serialize;

/// How the node stands.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StatusView {
    /// The agent's version.
    version: &'static str,
    /// The node's name; null where nobody said it.
    node: Option<String>,
    /// Whether readiness says that it is.
    ready: bool,
    /// Whether connections are taken that are opened now.
    serving: bool,
    /// Since the worker process began, in seconds.
    seconds: u64,
    /// The node's pods.
    pods: PodNumbers,
    /// The enrolled pods' connections.
    connections: ConnectionNumbers,
    /// Calls since the worker process began.
    calls: CallNumbers,
    /// How many problems there are.
    problems: usize,
}

/// How many of the node's pods stand how.
#[derive(Debug, Serialize, JsonSchema)]
struct PodNumbers {
    /// Enrolled.
    enrolled: usize,
    /// To be enrolled, and not yet.
    waiting: usize,
    /// Asked for in vain: they can't be enrolled.
    refused: usize,
    /// Nobody asked for them.
    not_asked: usize,
}

/// What became of connections.
#[derive(Debug, Serialize, JsonSchema)]
struct ConnectionNumbers {
    /// With the agent now.
    open: u64,
    /// Taken, of the pods that are enrolled now.
    taken: u64,
    /// Gone straight, of the pods that are enrolled now, though to an address that is balanced.
    straight: u64,
}

/// What became of calls.
#[derive(Debug, Serialize, JsonSchema)]
struct CallNumbers {
    /// Begun.
    begun: u64,
    /// Ended with a status that says the server failed, or with an answer of the agent's own.
    failed: u64,
    /// Under way.
    active: u64,
}

/// Connections that are no business of the agent's: to what is not balanced, and the agent's own.
const ELSEWHERE: [&str; 2] = [Reason::UnknownDestination.name(), Reason::OwnMark.name()];

/// The node's status, with what is wrong at the moment.
pub(super) fn status(node: &mut Node, problems: &[Problem]) -> StatusView {
    let (mut taken, mut straight) = (0, 0);
    for pod in node.with_tools(|pods, tools| pods.counts(tools)) {
        for (outcome, count) in pod.connections {
            if outcome == Reason::Taken.name() {
                taken += count;
            } else if !ELSEWHERE.contains(&outcome) {
                straight += count;
            }
        }
    }
    let (enrolled, waiting) = (node.pods.enrolled_count(), node.pods.obstacles().len());
    let refused = node.world.refused().count();
    let all = node.world.pods_that(|_| true).len();
    let counters = node.workers.counters();
    StatusView {
        version: env!("CARGO_PKG_VERSION"),
        node: node.config.cluster.node_name.clone(),
        ready: node.readiness.is_ready(),
        serving: node.serving,
        seconds: node.started.elapsed().as_secs(),
        pods: PodNumbers {
            enrolled,
            waiting,
            refused,
            not_asked: all.saturating_sub(enrolled + waiting + refused),
        },
        connections: ConnectionNumbers { open: counters.http2_open + counters.tunnels_open, taken, straight },
        calls: CallNumbers {
            begun: counters.calls,
            failed: counters.server_failures + counters.own_errors,
            active: counters.calls_open,
        },
        problems: problems.len(),
    }
}
