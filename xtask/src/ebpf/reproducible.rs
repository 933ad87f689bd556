//! Shows that the object does not depend on where it is built.

use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cache;
use crate::process::{answer, step};
use crate::setup::EbpfToolchain;
use crate::workspace::Workspace;

/// Builds the programs again, from a copy of the sources in a folder of another name and into another target folder,
/// and compares the object with the one that the agent carries. What was shown of an object, a compiler and a linker is shown: it is kept
/// in the cache.
///
/// # Errors
/// If the build fails or the object differs.
pub(crate) fn verify(workspace: &Workspace, toolchain: &EbpfToolchain) -> Result<()> {
    let carried = fs::read(workspace.ebpf_object()).context("cannot read the kernel programs' object")?;
    let key = key(&carried, toolchain)?;
    cache::find_or_build(workspace, "reproducible", key, "ebpf/reproducible", |_| {
        build_and_compare(workspace, toolchain, &carried)
    })?;
    step("the kernel programs are the same, bit for bit, from two folders");
    Ok(())
}

/// What the outcome depends on: the programs as they are, and all that they are made with.
fn key(object: &[u8], toolchain: &EbpfToolchain) -> Result<u64> {
    const RECIPE: &str = include_str!("mod.rs");
    let linker = &toolchain.linker;
    let linker = fs::read(linker).with_context(|| format!("cannot read {}", linker.display()))?;
    let compiler = answer(toolchain.compiler.rustc().arg("-vV"))?;
    let mut hasher = DefaultHasher::new();
    (object, compiler, linker, RECIPE).hash(&mut hasher);
    Ok(hasher.finish())
}

fn build_and_compare(workspace: &Workspace, toolchain: &EbpfToolchain, carried: &[u8]) -> Result<()> {
    step("building the kernel programs again, in another folder");
    let folder = tempfile::tempdir().context("cannot make a folder for a second build")?;
    let root = folder.path().join("with-a-longer-path/sources");
    copy_sources(&workspace.root, &root)?;
    let object = super::compile(&root, &folder.path().join("elsewhere"), toolchain)?;
    ensure!(object == carried, "built in {}, the kernel programs differ", root.display());
    Ok(())
}

/// Copies what cargo needs to see of the workspace: all but what was built, and hidden folders.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let copy = to.join(&name);
        if entry.file_type()?.is_dir() {
            let left_out = ["target", "node_modules"].map(OsStr::new).contains(&name.as_os_str());
            if !left_out && !name.to_string_lossy().starts_with('.') {
                copy_sources(&entry.path(), &copy)?;
            }
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &copy)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
