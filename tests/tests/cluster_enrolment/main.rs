//! Who is enrolled on a real cluster, and which Services are taken: two nodes, each with the agent of the chart's DaemonSet.
//!
//! [`labels`]: what a user says; [`pods`]: every kind of pod; [`services`]: every kind of Service.

mod labels;
mod pods;
mod services;

use anyhow::Result;
use evenkeel_tests::kubernetes::shared::Shared;
use evenkeel_tests::kubernetes::{Cluster, SharedCluster};

/// The cluster of all of these tests, with Evenkeel installed.
fn cluster() -> Result<Shared> {
    static CLUSTER: SharedCluster = SharedCluster::new();
    CLUSTER.get(|| {
        let cluster = Cluster::start(2)?;
        cluster.install(&[])?;
        Ok(cluster)
    })
}
