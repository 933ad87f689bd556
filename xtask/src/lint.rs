//! Format, lints, documentation; licences, bans and sources of what we depend on.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::chart;
use crate::fuzz;
use crate::process::{run, step};
use crate::workspace::{self, Workspace};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// A name and what checks it.
type Check = (&'static str, fn(&Workspace) -> Result<()>);

/// # Errors
/// If a check fails, or a tool is missing and cannot be installed.
pub(crate) fn start(workspace: &Workspace) -> Result<()> {
    let checks: [Check; 6] = [
        ("format", format),
        ("lints", clippy),
        ("the fuzz targets", fuzz_targets),
        ("documentation", documentation),
        ("licences, bans and sources of the dependencies", dependencies),
        ("the Helm chart and the kustomize base", chart),
    ];
    // All of them, so that one run names all that is to be done.
    let mut failed = Vec::new();
    for (name, check) in checks {
        step(&format!("checking {name}"));
        if let Err(error) = check(workspace) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "these checks failed: {}", failed.join("; "));
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().args(["fmt", "--all", "--check"]))
}

/// The kernel programs too: for this machine instead of BPF, which is all that a stable compiler can check.
fn clippy(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// A workspace of their own; without libFuzzer, which takes a C++ compiler half a minute, and without the agent's tests, which are
/// checked where they are at home. With the profile and target of `cargo xtask fuzz`, so that macros and build scripts are built once
/// for both.
fn fuzz_targets(workspace: &Workspace) -> Result<()> {
    let manifest = ["--manifest-path", "fuzz/Cargo.toml"];
    run(workspace.cargo().arg("fmt").args(manifest).arg("--check"))?;
    run(workspace
        .cargo()
        .env("RUSTFLAGS", "--cfg fuzzing")
        .arg("clippy")
        .args(manifest)
        .args(["--no-default-features", "--lib", "--bins", "--release", "--target", &fuzz::host_triple()?])
        .arg("--target-dir")
        .arg(workspace.target.join("fuzz"))
        .args(["--", "-D", "warnings"]))
}

fn documentation(workspace: &Workspace) -> Result<()> {
    let doc = ["doc", "--no-deps", "--document-private-items"];
    run(workspace.cargo().env("RUSTDOCFLAGS", "-D warnings").args(doc))
}

/// Without advisories: their database is kept outside of the package registries; see `deny.toml`.
fn dependencies(workspace: &Workspace) -> Result<()> {
    run(workspace.cargo().env("PATH", cargo_deny()?).args(["deny", "check", "bans", "licenses", "sources"]))
}

fn chart(workspace: &Workspace) -> Result<()> {
    chart::start(workspace, &chart::Options::default())
}

/// PATH with a folder in front that holds cargo-deny, built once and kept in the cache.
fn cargo_deny() -> Result<std::ffi::OsString> {
    let root = workspace::cache()?.join(format!("cargo-deny-{CARGO_DENY_VERSION}"));
    let folder: PathBuf = root.join("bin");
    if !folder.join("cargo-deny").exists() {
        step(&format!("building cargo-deny {CARGO_DENY_VERSION} (once, about two minutes)"));
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // Not optimised: it builds in half the time, and our graph is small.
        run(Command::new(cargo)
            .args(["install", "cargo-deny", "--version", CARGO_DENY_VERSION, "--locked", "--debug", "--root"])
            .arg(&root))?;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(folder).chain(env::split_paths(&path))).context("PATH cannot be extended")
}
