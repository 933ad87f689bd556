//! bpf-linker, for the LLVM of the compiler in use: from PATH if it works, else built once and kept in the cache.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::compiler::{Compiler, Llvm, links_with};
use crate::debian;
use crate::process::{answer, run, step, succeeds};
use crate::workspace;

const VERSION: &str = "0.13.0";
/// The LLVM versions that this bpf-linker has a feature for.
const LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The path of a bpf-linker that links what `compiler` emits.
///
/// # Errors
/// If there is none and it cannot be built.
pub(crate) fn find_or_install(compiler: &Compiler) -> Result<PathBuf> {
    if let Some(found) = on_path().filter(|linker| is_this_version(linker) && links_with(*compiler, linker)) {
        return Ok(found);
    }
    let llvm = compiler.llvm()?;
    if !LLVM.contains(&llvm.major) {
        bail!(
            "{compiler} brings LLVM {}; bpf-linker {VERSION} knows {} to {}",
            llvm.major,
            LLVM.start(),
            LLVM.end()
        );
    }
    let name = llvm.library.file_name().context("LLVM's library has no name")?.to_string_lossy();
    let root = workspace::cache()?.join(format!("bpf-linker-{VERSION}-{name}"));
    let linker = root.join("bin/bpf-linker");
    if !(linker.exists() && links_with(*compiler, &linker)) {
        install(&llvm, &root)?;
    }
    if !links_with(*compiler, &linker) {
        bail!("{} does not link what {compiler} emits", linker.display());
    }
    Ok(linker)
}

fn on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join("bpf-linker"))
        .find(|path| path.is_file())
}

fn is_this_version(linker: &Path) -> bool {
    // Another version may make another object of the same source.
    answer(Command::new(linker).arg("--version"))
        .is_ok_and(|version| version == format!("bpf-linker {VERSION}"))
}

fn install(llvm: &Llvm, root: &Path) -> Result<()> {
    if !succeeds(Command::new("c++").arg("--version")) {
        debian::install(debian::C_TOOLCHAIN)?;
    }
    step(&format!("building bpf-linker {VERSION} for LLVM {} (once, about a minute)", llvm.major));
    // Its build script looks for `lib/libLLVM.so` in a prefix; the name that the library gives itself is looked up there at run time.
    let libraries = root.join("lib");
    fs::create_dir_all(&libraries).with_context(|| format!("cannot make {}", libraries.display()))?;
    let name = llvm.library.file_name().context("LLVM's library has no name")?;
    for link in [libraries.join("libLLVM.so"), libraries.join(name)] {
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
        }
        symlink(&llvm.library, &link).with_context(|| format!("cannot make {}", link.display()))?;
    }
    run(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // Not below a clone, whose own cargo configuration would count.
        .current_dir(root)
        .env("LLVM_PREFIX", root)
        .env_remove("LD_LIBRARY_PATH")
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--no-default-features",
            "--features",
        ])
        .arg(format!("llvm-{}", llvm.major))
        .args(["--force", "--root"])
        .arg(root))
}
