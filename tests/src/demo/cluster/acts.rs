//! The acts on a cluster, and where the calls must go then.

use super::stage::{ClusterStage, RATE};
use crate::demo::phase::{Expected, Phase, STEADY_CALLS_OF_A_SET, in_flight_max};
use anyhow::Result;
use std::time::Duration;

/// How long a change may take to show: DNS, rollouts and a kubelet's look at its pods are slower than Evenkeel.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The acts, in order.
pub(super) const ACTS: &[Phase<ClusterStage>] = &[
    lossless("as it is", |_| Ok(()), one_server),
    lossless("Evenkeel is installed", ClusterStage::install, one_server),
    lossy("the client's namespace is labelled", ClusterStage::enrol, ClusterStage::spread),
    lossless("the servers are scaled to 6", ClusterStage::scale_to_six, ClusterStage::spread),
    lossless("the servers are scaled to 2", ClusterStage::scale_to_two, ClusterStage::spread),
    lossless("the servers are rolled", ClusterStage::roll_servers, ClusterStage::spread),
    lossless("Evenkeel is rolled", ClusterStage::roll_agents, ClusterStage::spread),
    Phase {
        may_fail: while_agents_die(RATE),
        ..lossless("Evenkeel is killed (-9) on every node", ClusterStage::kill_agents, ClusterStage::spread)
    },
    lossless("Evenkeel is uninstalled", ClusterStage::uninstall, one_server),
];

fn one_server(_: &ClusterStage) -> Expected {
    Expected::OneServer
}

const fn lossless(
    title: &'static str,
    change: fn(&mut ClusterStage) -> Result<()>,
    expected: fn(&ClusterStage) -> Expected,
) -> Phase<ClusterStage> {
    Phase { title, change, expected, limit: SETTLE_LIMIT, may_fail: 0, steady_calls: STEADY_CALLS_OF_A_SET }
}

/// How many of so many calls a second may fail while agents die: the kernel sends connections to them for 1.2 s more, unless they have let
/// go of its programs before.
const fn while_agents_die(rate: u64) -> u64 {
    rate * 12 / 10
}

/// Of calls in flight: when a connection that never rests is ended so that its client dials again.
const fn lossy(
    title: &'static str,
    change: fn(&mut ClusterStage) -> Result<()>,
    expected: fn(&ClusterStage) -> Expected,
) -> Phase<ClusterStage> {
    Phase { may_fail: in_flight_max(RATE), ..lossless(title, change, expected) }
}
