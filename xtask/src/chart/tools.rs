//! helm and kustomize, built once from the versions in `tests/chart/go.mod` and kept in the cache.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run, step};
use crate::setup;
use crate::workspace::{self, Workspace};

/// What is built, as packages; each program has its package's last word for a name, less a version's.
const PACKAGES: [&str; 2] = ["helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kustomize/kustomize/v5"];

/// Where the tools are.
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// The tools, built now if the cache has none of these versions. `target/chart/tools` leads there too, for tests that
    /// are run without xtask.
    ///
    /// # Errors
    /// If Go is missing or too old, or a build fails.
    pub(crate) fn find_or_build(workspace: &Workspace) -> Result<Self> {
        let module = workspace.root.join("tests/chart");
        let folder = workspace::cache()?.join(format!("chart-tools-{:016x}", key(&module)?));
        if !folder.exists() {
            build(&module, &folder)?;
        }
        let link = workspace.target.join("chart/tools");
        if !fs::read_link(&link).is_ok_and(|target| target == folder) {
            fs::create_dir_all(workspace.target.join("chart"))?;
            let _ = fs::remove_file(&link);
            symlink(&folder, &link).with_context(|| link.display().to_string())?;
        }
        Ok(Self { folder })
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
    let cache = folder.parent().context("the cache is a folder")?;
    fs::create_dir_all(cache)?;
    // Two clones may want them at the same moment; the second then finds what the first has built.
    let lock = File::create(cache.join("chart-tools.lock"))?;
    lock.lock()?;
    if folder.exists() {
        return Ok(());
    }
    step("building helm and kustomize (once, about four minutes)");
    let unfinished = folder.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished)?;
    run(Command::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
        .arg(&unfinished)
        .args(PACKAGES))?;
    fs::rename(&unfinished, folder).with_context(|| folder.display().to_string())
}
