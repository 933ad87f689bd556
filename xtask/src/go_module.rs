//! Programs of others, built by Go from their published modules. A Go module of ours holds nothing but their versions and checksums; what was
//! built is kept in the cache ([`crate::cache`]).

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::{run, step};
use crate::workspace::Workspace;
use crate::{cache, setup};

/// How often modules are asked for, and how long is waited in between: the proxy may be away for a moment.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);

/// What is built, and from what.
pub(crate) struct GoModule {
    /// The name in the cache.
    pub(crate) name: &'static str,
    /// The folder of `go.mod` and `go.sum`, below the workspace.
    pub(crate) module: &'static str,
    /// Each program has its package's last word for a name, less a version's.
    pub(crate) packages: &'static [&'static str],
    /// Where it is found below the target folder.
    pub(crate) link: &'static str,
    /// What a person is told who waits.
    pub(crate) told: &'static str,
}

impl GoModule {
    /// The folder of the programs, built now if the cache has none of these versions.
    ///
    /// # Errors
    /// If Go is missing or too old, or a build fails.
    pub(crate) fn find_or_build(&self, workspace: &Workspace) -> Result<PathBuf> {
        let module = workspace.root.join(self.module);
        cache::find_or_build(workspace, self.name, self.key(&module)?, self.link, |folder| {
            self.build(&module, folder)
        })
    }

    /// What the programs depend on, in one number.
    fn key(&self, module: &Path) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        (setup::go()?, self.packages).hash(&mut hasher);
        for file in ["go.mod", "go.sum"] {
            let path = module.join(file);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    fn build(&self, module: &Path, folder: &Path) -> Result<()> {
        step(self.told);
        fetch(module, "0", "", self.packages)?;
        run(Command::new("go")
            .current_dir(module)
            .env("CGO_ENABLED", "0")
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o"])
            .arg(folder)
            .args(self.packages))
    }
}

/// Fetches the modules that a build of these packages reads, so that what fails in the build is the build. `go mod download` would fetch
/// others, too.
///
/// # Errors
/// If they cannot be fetched, or a package is in none of them.
pub(crate) fn fetch(module: &Path, cgo: &str, tags: &str, packages: &[&str]) -> Result<()> {
    let list = || {
        run(Command::new("go")
            .current_dir(module)
            .env("CGO_ENABLED", cgo)
            .args(["list", "-mod=readonly", "-deps", "-tags", tags])
            .args(packages)
            .stdout(Stdio::null()))
    };
    for _ in 1..ATTEMPTS {
        let Err(error) = list() else { return Ok(()) };
        step(&format!("{error:#}: once more in {} s", PAUSE.as_secs()));
        thread::sleep(PAUSE);
    }
    list()
}
