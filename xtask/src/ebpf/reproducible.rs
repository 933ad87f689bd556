//! Shows that the object does not depend on where it is built.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::process::step;
use crate::setup::EbpfToolchain;
use crate::workspace::Workspace;

/// Builds the programs again, from a copy of the sources in a folder of another name and into another target folder,
/// and compares the object with the one that the agent carries.
///
/// # Errors
/// If the build fails or the object differs.
pub(crate) fn verify(workspace: &Workspace, toolchain: &EbpfToolchain) -> Result<()> {
    let carried = fs::read(workspace.ebpf_object()).context("cannot read the kernel programs' object")?;
    step("building the kernel programs again, in another folder");
    let folder = tempfile::tempdir().context("cannot make a folder for a second build")?;
    let root = folder.path().join("with-a-longer-path/sources");
    copy_sources(&workspace.root, &root)?;
    let object = super::compile(&root, &folder.path().join("elsewhere"), toolchain)?;
    ensure!(object == carried, "built in {}, the kernel programs differ", root.display());
    step("the kernel programs are the same, bit for bit, from both folders");
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
