//! helm and kustomize of the versions in `tests/chart/go.mod`; they are kept in the cache ([`crate::cache`]).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run, step};
use crate::workspace::Workspace;
use crate::{cache, setup};

/// What is built, as packages; each program has its package's last word for a name, less a version's.
const PACKAGES: [&str; 2] = ["helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5"];

/// Where the tools are.
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The tools, built now if the cache has none of these versions.
    ///
    /// # Errors
    /// If Go is missing or too old, or a build fails.
    pub(crate) fn find_or_build(workspace: &Workspace) -> Result<Self> {
        let module = workspace.root.join("tests/chart");
        let key = key(&module)?;
        let build = |folder: &Path| build(&module, folder);
        Ok(Self { folder: cache::find_or_build(workspace, "chart-tools", key, "chart/tools", build)? })
    }

    /// The folder that holds them.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn helm(&self) -> Command {
        Command::new(self.folder.join("helm"))
    }
}

/// What the tools depend on, in one number.
fn key(module: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    (setup::go()?, PACKAGES).hash(&mut hasher);
    for file in ["go.mod", "go.sum"] {
        let path = module.join(file);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

fn build(module: &Path, folder: &Path) -> Result<()> {
    step("building helm and kustomize (once, about four minutes)");
    run(Command::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(folder)
        .args(PACKAGES))
}
