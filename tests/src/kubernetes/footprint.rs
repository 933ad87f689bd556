//! What a cluster leaves on the machine, all under one name: cgroups, network namespaces, a folder.

use super::{hierarchies, programs};
use crate::host::{self, NAME_PREFIX};
use crate::leftovers;
use crate::netns::{NETNS_FOLDER, Netns};
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
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
        let name = format!("{NAME_PREFIX}-{}-kubernetes-{number}", std::process::id());
        let folder = clusters_folder()?.join(&name);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { name, folder, kept: AtomicBool::new(false) })
    }

    /// The one that may stay when its maker ends ([`Self::keep`]); of each clone's target folder there is one. Its folder is not made.
    ///
    /// # Errors
    /// When the target folder is not known.
    pub(super) fn lasting() -> Result<Self> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let folder = clusters_folder()?.join("up");
        let mut hasher = DefaultHasher::new();
        folder.hash(&mut hasher);
        Ok(Self {
            name: format!("evenkeel-cluster-{:08x}", hasher.finish() as u32),
            folder,
            kept: AtomicBool::new(false),
        })
    }

    /// Makes it stay.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
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
                eprintln!("{error:#}");
            }
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("{}: {error}", self.folder.display());
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
