//! The kernel programs' build, bit for bit the same from any folder: [`compiler`] and [`linker`] find the tools,
//! [`compile`] runs them, [`object_file`] strips the outcome, [`reproducible`] shows that two builds are alike.

pub(crate) mod compiler;
pub(crate) mod linker;
mod object_file;
pub(crate) mod reproducible;

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::{run, step};
use crate::setup::EbpfToolchain;
use crate::workspace::{self, Workspace};

/// Little-endian BPF; both architectures that Evenkeel runs on are.
const TARGET: &str = "bpfel-unknown-none";

/// Builds the kernel programs and puts their object where the agent's build finds it.
///
/// # Errors
/// If the compiler fails or the object is not one.
pub(crate) fn build(workspace: &Workspace, toolchain: &EbpfToolchain) -> Result<()> {
    step("building the kernel programs");
    let object = compile(&workspace.root, &workspace.target.join("ebpf"), toolchain)?;
    let path = workspace.ebpf_object();
    // An object that is as it was keeps its time stamp, so that the agent is not built again.
    if fs::read(&path).ok().as_deref() != Some(object.as_slice()) {
        fs::write(&path, &object).with_context(|| format!("cannot write {}", path.display()))?;
    }
    step(&format!("{}: {} bytes", path.display(), object.len()));
    Ok(())
}

/// Compiles the programs of the workspace at `root` within `target`; the stripped object.
fn compile(root: &Path, target: &Path, toolchain: &EbpfToolchain) -> Result<Vec<u8>> {
    let mut cargo = toolchain.compiler.cargo();
    // What cargo set for this program is not meant for a build by another compiler.
    for inherited in
        ["LD_LIBRARY_PATH", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET"]
    {
        cargo.env_remove(inherited);
    }
    cargo
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(root, target, toolchain)?.join("\x1f"))
        .args(["build", "--package", "evenkeel-ebpf", "--release", "-Zbuild-std=core", "--target", TARGET]);
    run(&mut cargo)?;
    let linked = target.join(TARGET).join("release/evenkeel-ebpf");
    let object = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    object_file::strip(&object).with_context(|| format!("cannot strip {}", linked.display()))
}

fn flags(root: &Path, target: &Path, toolchain: &EbpfToolchain) -> Result<Vec<String>> {
    let mut flags = vec![
        // aya-ebpf lays registers out by it.
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        // BTF is made of debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        format!("-Clinker={}", toolchain.linker.display()),
    ];
    // No path of the machine that builds may reach the object. The last flag that fits a path counts.
    for (path, name) in [
        (toolchain.compiler.sysroot()?, "/rust"),
        (workspace::cargo_home()?, "/cargo"),
        (root.to_owned(), "/evenkeel"),
        (target.to_owned(), "/target"),
    ] {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    Ok(flags)
}
