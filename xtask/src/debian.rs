//! Debian's packages: the one place that names them, and installs those that are missing.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{answer, is_root, run, step, succeeds};

/// A compiler and the core library's source that match each other, for the kernel programs.
pub(crate) const EBPF_COMPILER: &[&str] = &["rustc-web", "rust-web-src"];
/// What a build of bpf-linker, and of crates with C inside, asks for.
pub(crate) const C_TOOLCHAIN: &[&str] = &["gcc", "g++", "libc6-dev", "pkg-config"];
/// `ip`, `ss` and `nft`: the test harness makes pods of network namespaces with them.
pub(crate) const HARNESS: &[&str] = &["iproute2", "nftables", "procps"];
/// Test peers in other languages; a toolchain that is on PATH already is taken as it is.
pub(crate) const PYTHON: &[&str] = &["python3", "python3-venv"];
pub(crate) const GO: &[&str] = &["golang-go"];
pub(crate) const NODE: &[&str] = &["nodejs", "npm"];
pub(crate) const JAVA: &[&str] = &["default-jdk-headless", "maven"];
/// The browser that the page's tests drive.
pub(crate) const BROWSER: &[&str] = &["chromium"];
/// C in runc, which filters system calls.
pub(crate) const CLUSTER_BUILD: &[&str] = &["gcc", "libc6-dev", "libseccomp-dev", "pkg-config"];
/// Scrapes the agent in tests; to be unpacked, not installed.
pub(crate) const PROMETHEUS: &str = "prometheus";
/// The proxy that the benchmark compares with.
pub(crate) const BENCH: &[&str] = &["haproxy"];
/// Another kernel's machine, and its first programs.
pub(crate) const EMULATOR: &[&str] = &["qemu-system-x86", "busybox-static"];

/// Whether this machine has Debian's package tools.
pub(crate) fn is_here() -> bool {
    Path::new("/usr/bin/apt-get").exists() && Path::new("/usr/bin/dpkg-query").exists()
}

/// Whether Debian's archive, as this machine knows it, has the package.
pub(crate) fn offers(package: &str) -> bool {
    // `apt-cache show` succeeds only for a package with a version that can be installed.
    succeeds(Command::new("apt-cache").args(["show", package]))
}

/// Installs what is missing of `packages`.
///
/// # Errors
/// If something is missing and this is no Debian, or we are not root, or the install fails.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !is_here() {
        bail!("please install what Debian calls {names}: this machine has no apt-get");
    }
    if !is_root() {
        bail!("packages are missing: run `apt-get install {names}` as root");
    }
    step(&format!("installing {names}"));
    update()?;
    run(apt_get()
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(missing))
}

/// Brings the list of packages up to date.
///
/// # Errors
/// If apt-get fails.
pub(crate) fn update() -> Result<()> {
    run(apt_get().args(["update", "-q"]))
}

/// What `attempt` fetches of a version that it chooses. If it fails, it is asked once more with the list of packages up to date: that of a
/// fresh machine is empty, and an old one names versions that the archive has no more.
///
/// # Errors
/// `attempt`'s own, or if the list cannot be brought up to date.
pub(crate) fn fetch<T>(attempt: impl Fn() -> Result<T>) -> Result<T> {
    attempt().or_else(|error| {
        step(&format!("{error:#}: once more, with the list of packages up to date"));
        update()?;
        attempt()
    })
}

/// The version of a package that Debian's archive has, as this machine knows it.
///
/// # Errors
/// If it knows of none.
pub(crate) fn version(package: &str) -> Result<String> {
    let told = answer(Command::new("apt-cache").args(["show", "--no-all-versions", package]))?;
    let version = told.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(version.with_context(|| format!("apt-cache names no version of {package}"))?.to_owned())
}

/// Unpacks a package's files below a folder. Nothing of it is installed, and none of its scripts runs: it starts no service.
///
/// # Errors
/// If it cannot be fetched.
pub(crate) fn unpack(package: &str, version: &str, folder: &Path) -> Result<()> {
    // Another user's download would ask for a folder that this one may write to.
    let sandbox = if is_root() { &["-o", "APT::Sandbox::User=root"][..] } else { &[] };
    run(apt_get()
        .current_dir(folder)
        .args(["download", "-q"])
        .args(sandbox)
        .arg(format!("{package}={version}")))?;
    for entry in fs::read_dir(folder)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|kind| kind == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&archive).arg(folder))?;
            fs::remove_file(archive)?;
        }
    }
    Ok(())
}

/// Patient: another apt may be at work, and a mirror away for a moment.
fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"]);
    command
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    query.is_ok_and(|answer| answer.status.success() && answer.stdout == b"installed")
}
