//! One look at the node's pods, for all that are looked for in one go: the pods' cgroups, and where that is not enough /proc, are read at
//! most once, and not at all where nobody asks.

use super::obstacle::Obstacle;
use crate::kernel::pods::{self, PodCgroups};
use crate::kernel::{Sandbox, cgroups};
use crate::sources::rows::PodRow;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How a pod's processes are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// By the pods' cgroups: a few directories. By all processes of the node where these cgroups hold none.
    Cgroups,
    /// By all processes of the node too, for pods whose cgroups say nothing.
    Processes,
}

type ByPod = HashMap<String, Vec<u32>>;

/// What was seen.
pub(super) struct Sighting {
    kubepods: Option<PathBuf>,
    depth: Depth,
    cgroups: OnceCell<Result<PodCgroups, Obstacle>>,
    cgroups_are_populated: OnceCell<Result<bool, Obstacle>>,
    by_process: OnceCell<Result<ByPod, Obstacle>>,
    pass_took: Cell<Option<Duration>>,
    cgroups_are_elsewhere: Cell<bool>,
}

impl Sighting {
    /// A look that begins when something is asked. Without `kubepods` only processes say where pods are.
    pub(super) fn new(kubepods: Option<PathBuf>, depth: Depth) -> Self {
        Self {
            kubepods,
            depth,
            cgroups: OnceCell::new(),
            cgroups_are_populated: OnceCell::new(),
            by_process: OnceCell::new(),
            pass_took: Cell::new(None),
            cgroups_are_elsewhere: Cell::new(false),
        }
    }

    /// A pod's sandbox: where its annotation says, else that of its processes.
    pub(super) fn find(&self, pod: &PodRow) -> Result<Sandbox, Obstacle> {
        match &pod.netns {
            Some(path) => Ok(Sandbox::at(path)?),
            None => Ok(Sandbox::of(&pod.cgroup_uid, &self.processes_of(&pod.cgroup_uid)?)?),
        }
    }

    /// Whether a pod that was found is still there. An error says that it cannot be told now.
    pub(super) fn is_there(&self, pod: &PodRow, sandbox: &mut Sandbox) -> Result<bool, Obstacle> {
        sandbox.is_there(&pod.cgroup_uid, || self.processes_of(&pod.cgroup_uid))
    }

    /// Whether pods' processes were found while none was in the pods' cgroups: on such a node cgroup2 does not hold the pods.
    pub(super) fn cgroups_are_elsewhere(&self) -> bool {
        self.cgroups_are_elsewhere.get()
    }

    /// How long the pass over /proc took, if there was one.
    pub(super) fn pass_took(&self) -> Option<Duration> {
        self.pass_took.get()
    }

    fn processes_of(&self, uid: &str) -> Result<Vec<u32>, Obstacle> {
        let Some(kubepods) = &self.kubepods else { return self.by_process(uid) };
        let look = || Ok(PodCgroups::below(kubepods)?);
        let found = shared(&self.cgroups, look)?.processes_of(uid)?;
        let is_populated = || Ok(cgroups::is_populated(kubepods)?);
        // What one pod lacks says nothing of the node: a process that has ended and waits for its parent is in no cgroup's list.
        let are_elsewhere = found.is_empty() && !*shared(&self.cgroups_are_populated, is_populated)?;
        if !found.is_empty() || (self.depth == Depth::Cgroups && !are_elsewhere) {
            return Ok(found);
        }
        let found = self.by_process(uid)?;
        // They may have come between the two looks.
        if are_elsewhere && !found.is_empty() && !is_populated()? {
            self.cgroups_are_elsewhere.set(true);
        }
        Ok(found)
    }

    fn by_process(&self, uid: &str) -> Result<Vec<u32>, Obstacle> {
        let look = || {
            let start = Instant::now();
            let found = pods::by_process();
            self.pass_took.set(Some(start.elapsed()));
            Ok(found?)
        };
        Ok(shared(&self.by_process, look)?.get(uid).cloned().unwrap_or_default())
    }
}

/// What a look found, or what it failed with: for all who ask.
fn shared<T>(
    cell: &OnceCell<Result<T, Obstacle>>,
    look: impl FnOnce() -> Result<T, Obstacle>,
) -> Result<&T, Obstacle> {
    cell.get_or_init(look).as_ref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder that looks as the pods' common cgroup does, with one pod without a process; removed when this goes.
    struct Kubepods(PathBuf);

    impl Kubepods {
        fn new(name: &str, populated: bool) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
            let kubepods = Self(path);
            fs::create_dir_all(kubepods.0.join("podzombie")).unwrap();
            fs::write(kubepods.0.join("podzombie/cgroup.procs"), "").unwrap();
            fs::write(
                kubepods.0.join("cgroup.events"),
                format!("populated {}\nfrozen 0\n", u8::from(populated)),
            )
            .unwrap();
            kubepods
        }

        fn sighting(&self, depth: Depth) -> Sighting {
            let sighting = Sighting::new(Some(self.0.clone()), depth);
            // As by a pass over /proc.
            let seen = ByPod::from([("zombie".to_owned(), vec![42])]);
            assert!(sighting.by_process.set(Ok(seen)).is_ok());
            sighting
        }
    }

    impl Drop for Kubepods {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_pod_without_a_process_in_its_cgroup_says_nothing_of_the_nodes_cgroups() {
        let kubepods = Kubepods::new("populated", true);
        let shallow = kubepods.sighting(Depth::Cgroups);
        assert!(shallow.processes_of("zombie").unwrap().is_empty());
        let deep = kubepods.sighting(Depth::Processes);
        assert_eq!(deep.processes_of("zombie").unwrap(), [42]);
        assert!(!shallow.cgroups_are_elsewhere() && !deep.cgroups_are_elsewhere());
    }

    #[test]
    fn where_no_pods_cgroup_holds_a_process_proc_is_asked_at_each_look() {
        let kubepods = Kubepods::new("elsewhere", false);
        let shallow = kubepods.sighting(Depth::Cgroups);
        assert_eq!(shallow.processes_of("zombie").unwrap(), [42]);
        assert!(shallow.cgroups_are_elsewhere());
        assert!(shallow.processes_of("another").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_empty() {
        let kubepods = Kubepods::new("unreadable", true);
        // Reading a folder as a file is refused, as it is without descriptors.
        fs::create_dir_all(kubepods.0.join("podbroken/cgroup.procs")).unwrap();
        let obstacle = kubepods.sighting(Depth::Cgroups).processes_of("broken").unwrap_err();
        assert_eq!(obstacle.reason, "kernel_refuses", "{obstacle:?}");
    }
}
