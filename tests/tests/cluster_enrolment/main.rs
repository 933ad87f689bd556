//! Who is enrolled on a real cluster, and which Services are taken: two nodes, each with the agent of the chart's DaemonSet.
//!
//! [`labels`]: what a user says; [`pods`]: every kind of pod; [`services`]: every kind of Service; [`topology`]: which of a Service's
//! endpoints a node's clients are sent to.

mod labels;
mod pods;
mod services;
mod topology;

use anyhow::Result;
use evenkeel_tests::kubernetes::shared::Shared;
use evenkeel_tests::kubernetes::{Cluster, SharedCluster, cluster::Options};

/// The cluster of all of these tests, with Evenkeel installed. Pods have two addresses, and Services those that they ask for.
fn cluster() -> Result<Shared> {
    static CLUSTER: SharedCluster = SharedCluster::new();
    CLUSTER.get(|| {
        let cluster = Cluster::start_with(Options { dual_stack: true, ..Options::nodes(2) })?;
        cluster.install(&[])?;
        Ok(cluster)
    })
}
