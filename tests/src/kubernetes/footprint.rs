//! What a cluster leaves on the machine, all under one name: cgroups, network namespaces, a folder.

use super::{hierarchies, programs};
use crate::netns::{NETNS_FOLDER, Netns};
use crate::{cgroup, host, leftovers};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The name and the folder of a cluster; on drop everything that bears the name goes, unless it is kept.
#[derive(Debug)]
pub(super) struct Footprint {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    kept: AtomicBool,
}

impl Footprint {
    /// One that belongs to this process and goes with it.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub(super) fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        leftovers::sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = leftovers::own_name(format!("kubernetes-{number}"));
        let folder = clusters_folder()?.join(&name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { name, folder, kept: AtomicBool::new(false) })
    }

    /// The one that may stay when its maker ends ([`Self::keep`]); of each clone's target folder there is one. Its folder is not made.
    ///
    /// # Errors
    /// When the target folder is not known.
    pub(super) fn lasting() -> Result<Self> {
        let folder = clusters_folder()?.join("up");
        // The same whatever compiler has built this: `down` must find what another has started.
        let hash = Sha256::digest(folder.as_os_str().as_bytes());
        let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { name: format!("evenkeel-cluster-{hash}"), folder, kept: AtomicBool::new(false) })
    }

    /// Makes it stay.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Whether any process runs under the name.
    ///
    /// # Errors
    /// Without a cgroup2 mount.
    pub(super) fn is_populated(&self) -> Result<bool> {
        Ok(cgroup::populated(&cgroup::mount()?.join(&self.name)))
    }

    /// The path of a file or folder of the cluster's.
    pub(super) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.join(relative)
    }

    /// The cluster's cgroup of that name, below its own root in each hierarchy.
    pub(super) fn cgroup(&self, relative: &str) -> PathBuf {
        Path::new(&self.name).join(relative)
    }

    /// The network namespace of that part.
    pub(super) fn netns_name(&self, part: &str) -> String {
        format!("{}-{part}", self.name)
    }

    /// Ends and removes everything that bears the name.
    pub(super) fn raze(&self) {
        hierarchies::remove(Path::new(&self.name));
        let prefix = format!("{}-", self.name);
        for entry in fs::read_dir(NETNS_FOLDER).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with(&prefix))
                && let Err(error) = host::run("ip", &["netns", "delete", name], "")
            {
                host::complain(&format!("{error:#}"));
            }
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                host::complain(&format!("{}: {error}", self.folder.display()));
            }
            _ => (),
        }
    }

    /// Makes the network namespace of a part; it goes with the rest.
    ///
    /// # Errors
    /// `ip`'s own.
    pub(super) fn create_netns(&self, part: &str) -> Result<Netns> {
        Ok(Netns::create(self.netns_name(part))?.left_to_others())
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed) {
            self.raze();
        }
    }
}

/// Where clusters' folders are: on the same disk as what is built, as overlays want none of tmpfs' or overlays' limits.
///
/// # Errors
/// When the target folder is not known.
pub(crate) fn clusters_folder() -> Result<PathBuf> {
    Ok(programs::target_folder()?.join("cluster"))
}
