//! Builds the cluster's programs; they are kept in the cache ([`crate::cache`]).

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::recipe::{KUBERNETES_PARTS, PROGRAMS, Program};
use crate::process::{answer, run, step};
use crate::workspace::Workspace;
use crate::{cache, debian, go_module, setup};

/// The folder of the programs, built now if the cache has none for these very sources, recipe and compiler.
///
/// # Errors
/// If Go is missing or too old, or a build fails.
pub(crate) fn find_or_build(workspace: &Workspace) -> Result<PathBuf> {
    let module = workspace.root.join("tests/cluster");
    let key = key(&module, &setup::go()?)?;
    cache::find_or_build(workspace, "cluster", key, "cluster/programs", |folder| build(&module, folder))
}

/// What the programs depend on, in one number.
fn key(module: &Path, go: &str) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    go.hash(&mut hasher);
    format!("{PROGRAMS:?}{KUBERNETES_PARTS:?}").hash(&mut hasher);
    for (name, content) in files(module, Path::new(""))? {
        (name, content).hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The files that Go reads, by name.
fn files(module: &Path, below: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(module.join(below)).with_context(|| module.display().to_string())? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.append(&mut files(module, &name)?);
        } else if name.extension().is_some_and(|kind| ["go", "mod", "sum"].iter().any(|known| kind == *known))
        {
            found.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(found)
}

fn build(module: &Path, folder: &Path) -> Result<()> {
    debian::install(debian::CLUSTER_BUILD)?;
    step(
        "building Kubernetes' programs (once; about eight minutes on two cores when Go has built nothing of it yet)",
    );
    fs::create_dir(folder.join("cni"))?;
    for (number, program) in PROGRAMS.iter().enumerate() {
        let start = Instant::now();
        compile(module, program, &folder.join(program.file))?;
        step(&format!(
            "{} of {}: {} in {} s",
            number + 1,
            PROGRAMS.len(),
            program.file,
            start.elapsed().as_secs()
        ));
    }
    for part in KUBERNETES_PARTS {
        symlink("kubernetes", folder.join(part))?;
    }
    Ok(())
}

fn compile(module: &Path, program: &Program, output: &Path) -> Result<()> {
    let cgo = if program.cgo { "1" } else { "0" };
    go_module::fetch(module, cgo, program.tags, &[program.package])
        .with_context(|| format!("fetching what {} is built from", program.file))?;
    let mut link = String::from("-s -w");
    if program.cgo {
        link.push_str(" -linkmode external -extldflags -static");
    }
    for (variable, of) in program.versions {
        let version = version(module, of)?;
        link.push_str(&format!(" -X {variable}={version}"));
    }
    if program.file == "kubernetes" {
        link.push_str(&major_and_minor(module)?);
    }
    run(Command::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", cgo)
        .args(["build", "-trimpath", "-buildvcs=false", "-tags", program.tags, "-ldflags", &link, "-o"])
        .args([output.as_os_str(), program.package.as_ref()]))
    .with_context(|| format!("building {}", program.file))
}

/// The version of a module that `go.mod` chooses, such as `v1.36.3`.
fn version(module: &Path, of: &str) -> Result<String> {
    answer(Command::new("go").current_dir(module).args(["list", "-m", "-f", "{{.Version}}", of]))
}

/// Clients read them from the server's `/version`.
fn major_and_minor(module: &Path) -> Result<String> {
    let version = version(module, "k8s.io/kubernetes")?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        bail!("{version} is no version of Kubernetes");
    };
    let package = "k8s.io/component-base/version";
    Ok(format!(" -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"))
}
