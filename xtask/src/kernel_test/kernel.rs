//! A kernel from Debian's archive, unpacked into the cache. The cloud flavour: the smallest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian;
use crate::process::{answer, run, step};

/// The image of the archive's newest cloud kernel whose version begins with `version`.
///
/// # Errors
/// If the archive has none, or it cannot be fetched.
pub(super) fn image(version: &str, cache: &Path) -> Result<PathBuf> {
    let sensible = !version.is_empty() && version.chars().all(|c| c.is_ascii_digit() || c == '.');
    ensure!(sensible, "--kernel {version}: give the start of a version, as in 6.1");
    let package = match package(version) {
        Ok(package) => package,
        // A fresh machine has no list of packages yet.
        Err(_) => debian::update().and_then(|()| package(version))?,
    };
    let folder = cache.join(&package);
    let image = folder.join("boot").join(package.replacen("linux-image", "vmlinuz", 1));
    if !image.exists() {
        step(&format!("fetching {package}"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // As ourselves: apt's own user may not write into a person's cache.
        let as_root = ["-o", "APT::Sandbox::User=root"];
        run(Command::new("apt-get")
            .current_dir(&folder)
            .args(["download", "-q"])
            .args(as_root)
            .arg(&package))?;
        let archive = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension() == Some("deb".as_ref()))
            .context("apt-get brought no package")?;
        run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&folder))?;
    }
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
