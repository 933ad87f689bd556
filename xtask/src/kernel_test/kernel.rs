//! A kernel from Debian's archive, unpacked into the cache ([`crate::cache`]). The cloud flavour: the smallest.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{answer, step};
use crate::workspace::Workspace;
use crate::{cache, debian};

/// The image of the archive's newest cloud kernel whose version begins with `version`.
///
/// # Errors
/// If the archive has none, or it cannot be fetched.
pub(super) fn image(workspace: &Workspace, version: &str) -> Result<PathBuf> {
    let sensible = !version.is_empty() && version.chars().all(|c| c.is_ascii_digit() || c == '.');
    ensure!(sensible, "--kernel {version}: give the start of a version, as in 6.1");
    let (package, folder) = debian::fetch(|| {
        let package = package(version)?;
        let exact = debian::version(&package)?;
        let mut hasher = DefaultHasher::new();
        (&package, &exact).hash(&mut hasher);
        let unpacked =
            cache::find_or_build(workspace, "kernel", hasher.finish(), "kernel-test/kernel", |folder| {
                step(&format!("fetching {package} {exact}"));
                debian::unpack(&package, &exact, folder)
            })?;
        Ok((package, unpacked))
    })?;
    let image = folder.join("boot").join(package.replacen("linux-image", "vmlinuz", 1));
    ensure!(image.exists(), "{package} holds no {}", image.display());
    Ok(image)
}

fn package(version: &str) -> Result<String> {
    let pattern = format!("^linux-image-{}[.-].*-cloud-amd64$", version.replace('.', "\\."));
    let found = answer(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let packages = found.lines().filter_map(|line| line.split(' ').next());
    // As numbers: 6.1.0-9 comes before 6.1.0-10.
    let numbers = |package: &str| -> Vec<u32> {
        package.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    let newest =
        packages.filter(|package| package.ends_with("-cloud-amd64")).max_by_key(|package| numbers(package));
    Ok(newest
        .with_context(|| format!("Debian's archive has no cloud kernel {version} for this release"))?
        .to_owned())
}
