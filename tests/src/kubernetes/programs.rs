//! Where Kubernetes' programs are: `cargo xtask cluster build` makes them.

use crate::host;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Names their folder.
const VARIABLE: &str = "EVENKEEL_CLUSTER_BIN";

/// The folder of the programs: `EVENKEEL_CLUSTER_BIN`, or where the last build of this clone left them.
///
/// # Errors
/// When there is none, with what to do.
pub fn folder() -> Result<PathBuf> {
    let folder = match std::env::var_os(VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => target_folder()?.join("cluster/programs"),
    };
    if !folder.join("kubernetes").is_file() {
        bail!(
            "Kubernetes' programs are not in {}: build them with `cargo xtask cluster build`, or name their folder in \
             {VARIABLE}",
            folder.display()
        );
    }
    Ok(folder.canonicalize()?)
}

/// One of them.
///
/// # Errors
/// As [`folder`].
pub fn path(program: &str) -> Result<PathBuf> {
    Ok(folder()?.join(program))
}

/// Cargo's target folder.
pub(super) fn target_folder() -> Result<PathBuf> {
    host::binaries()?.parent().map(Path::to_owned).context("binaries stand below the target folder")
}
