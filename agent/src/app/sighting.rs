//! One look at the node's processes, for all pods that are looked for in one go: /proc is read at most once for each
//! question, and not at all where nobody asks.

use crate::kernel::{Netns, pods};
use crate::sources::rows::PodRow;
use anyhow::{Context as _, Result, anyhow};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use tracing::warn;

/// What was seen.
#[derive(Default)]
pub(super) struct Sighting {
    processes: OnceCell<HashMap<String, Vec<pods::PodProcess>>>,
    live_namespaces: OnceCell<Option<HashSet<u64>>>,
}

impl Sighting {
    /// The network namespace of a pod: where its annotation says, else that of its processes.
    pub(super) fn find(&self, pod: &PodRow) -> Result<Netns> {
        if let Some(path) = &pod.netns {
            return Ok(Netns::open(path)?);
        }
        let processes = match self.processes.get() {
            Some(processes) => processes,
            None => {
                let seen = pods::processes()?;
                self.processes.get_or_init(|| seen)
            }
        };
        let of_pod = processes.get(&*pod.cgroup_uid).context("no process of it runs on this node yet")?;
        pods::network_namespace(of_pod)
            .ok_or_else(|| anyhow!("its processes are still in the node's network namespace"))
    }

    /// Whether a pod that was found is there no more.
    pub(super) fn is_gone(&self, pod: &PodRow, netns: &Netns) -> bool {
        if let Some(path) = &pod.netns {
            return !pods::is_named(path, netns);
        }
        let look =
            || pods::live_namespaces().map_err(|error| warn!("cannot see which pods are gone: {error}")).ok();
        let Some(live) = self.live_namespaces.get_or_init(look) else { return false };
        netns.inode().is_ok_and(|inode| !live.contains(&inode))
    }
}
