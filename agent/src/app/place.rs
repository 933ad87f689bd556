//! Where on this node the pods are, and where the kernel programs are attached.

use crate::config::AgentConfig;
use crate::kernel::cgroups;
use anyhow::Result;
use std::path::PathBuf;

/// Where the pods are, and where the programs are attached.
#[derive(Clone)]
pub(super) struct Place {
    /// The cgroup2 hierarchy.
    pub(super) mount: PathBuf,
    /// What was asked for, else the pods' common cgroup, else the root of cgroup2.
    pub(super) cgroup: PathBuf,
    /// The pods' common cgroup.
    pub(super) kubepods: Option<PathBuf>,
}

impl Place {
    /// Finds out.
    pub(super) fn find(config: &AgentConfig) -> Result<Self> {
        let mount = cgroups::cgroup2_mount()?;
        let own_pod_uid = config.cluster.pod_uid.as_deref();
        // Below a cgroup that was asked for, if it is not that one itself: what is beside it is not to be taken.
        let kubepods = match &config.cgroup {
            Some(cgroup) if cgroups::is_kubepods(cgroup) => Some(cgroup.clone()),
            Some(cgroup) => cgroups::kubepods(cgroup, own_pod_uid),
            None => cgroups::kubepods(&mount, own_pod_uid),
        };
        let cgroup = config.cgroup.clone().or_else(|| kubepods.clone()).unwrap_or_else(|| mount.clone());
        Ok(Self { mount, cgroup, kubepods })
    }
}
