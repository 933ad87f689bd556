//! One look at the node's pods, for all that are looked for in one go: the pods' cgroups, and where that is not enough /proc, are read at
//! most once, and not at all where nobody asks.

use super::obstacle::Obstacle;
use crate::kernel::Sandbox;
use crate::kernel::pods::{self, PodCgroups};
use crate::sources::rows::PodRow;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::path::Path;
use tracing::warn;

/// How a pod's processes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// By the pods' cgroups: a few directories.
    Cgroups,
    /// By all processes of the node too, for pods whose cgroups say nothing.
    Processes,
}

/// What was seen.
pub(super) struct Sighting<'a> {
    kubepods: Option<&'a Path>,
    depth: Depth,
    cgroups: OnceCell<PodCgroups>,
    by_process: OnceCell<HashMap<String, Vec<u32>>>,
    cgroups_are_elsewhere: Cell<bool>,
}

impl<'a> Sighting<'a> {
    /// A look that begins when something is asked. Without `kubepods` only processes say where pods are.
    pub(super) fn new(kubepods: Option<&'a Path>, depth: Depth) -> Self {
        Self {
            kubepods,
            depth,
            cgroups: OnceCell::new(),
            by_process: OnceCell::new(),
            cgroups_are_elsewhere: Cell::new(false),
        }
    }

    /// A pod's sandbox: where its annotation says, else that of its processes.
    pub(super) fn find(&self, pod: &PodRow) -> Result<Sandbox, Obstacle> {
        match &pod.netns {
            Some(path) => Ok(Sandbox::at(path)?),
            None => Ok(Sandbox::of(&pod.cgroup_uid, &self.processes_of(&pod.cgroup_uid))?),
        }
    }

    /// Whether a pod that was found is still there.
    pub(super) fn is_there(&self, pod: &PodRow, sandbox: &mut Sandbox) -> bool {
        sandbox.is_there(&pod.cgroup_uid, || self.processes_of(&pod.cgroup_uid))
    }

    /// Whether a pod's processes were found of which its cgroup knew nothing: on such a node cgroup2 does not hold the pods.
    pub(super) fn cgroups_are_elsewhere(&self) -> bool {
        self.cgroups_are_elsewhere.get()
    }

    fn processes_of(&self, uid: &str) -> Vec<u32> {
        if let Some(kubepods) = self.kubepods {
            let found = self.cgroups.get_or_init(|| PodCgroups::below(kubepods)).processes_of(uid);
            if !found.is_empty() || self.depth == Depth::Cgroups {
                return found;
            }
        }
        let look = || {
            pods::by_process().unwrap_or_else(|error| {
                warn!("cannot look for pods: {error}");
                HashMap::new()
            })
        };
        let found = self.by_process.get_or_init(look).get(uid).cloned().unwrap_or_default();
        // They may have come between the two looks.
        let still_elsewhere = |kubepods| PodCgroups::below(kubepods).processes_of(uid).is_empty();
        if !found.is_empty() && self.kubepods.is_some_and(still_elsewhere) {
            self.cgroups_are_elsewhere.set(true);
        }
        found
    }
}
