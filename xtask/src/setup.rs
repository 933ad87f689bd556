//! Finds or installs what the build and the tests need. Run twice, the second time only looks.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::debian;
use crate::ebpf::compiler::Compiler;
use crate::ebpf::linker;
use crate::process::{step, succeeds};

/// What builds the kernel programs.
pub(crate) struct EbpfToolchain {
    pub(crate) compiler: Compiler,
    /// bpf-linker's path.
    pub(crate) linker: PathBuf,
}

/// All that `build`, `demo` and `test` need.
///
/// # Errors
/// If something is missing and cannot be installed here; says what to do.
pub(crate) fn everything() -> Result<EbpfToolchain> {
    let toolchain = ebpf()?;
    harness()?;
    peers();
    step("setup is complete");
    Ok(toolchain)
}

/// The kernel programs' compiler and linker.
///
/// # Errors
/// As [`everything`].
pub(crate) fn ebpf() -> Result<EbpfToolchain> {
    let compiler = Compiler::find_or_install()?;
    let linker = linker::find_or_install(&compiler)?;
    step(&format!("the kernel programs are built by {compiler} and {}", linker.display()));
    Ok(EbpfToolchain { compiler, linker })
}

/// The tools that make pods of network namespaces.
fn harness() -> Result<()> {
    let missing = ["ip", "ss", "nft"].iter().any(|tool| !is_on_path(tool, "-V"));
    if missing { debian::install(debian::HARNESS) } else { Ok(()) }
}

/// Toolchains of the test peers. Without one of them its peers' tests say so; all others run.
fn peers() {
    let python = succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]));
    for (language, found, packages) in [
        ("Python", python, debian::PYTHON),
        ("Go", is_on_path("go", "version"), debian::GO),
        ("Node.js", is_on_path("node", "--version") && is_on_path("npm", "--version"), debian::NODE),
    ] {
        if found {
            continue;
        }
        if let Err(error) = debian::install(packages) {
            step(&format!("no {language} for its test peers: {error:#}"));
        }
    }
}

fn is_on_path(tool: &str, version_flag: &str) -> bool {
    succeeds(Command::new(tool).arg(version_flag))
}
