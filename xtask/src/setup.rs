//! Finds or installs what the build and the tests need. Run twice, the second time only looks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::debian;
use crate::ebpf::compiler::Compiler;
use crate::ebpf::linker;
use crate::process::{answer, step, succeeds};

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
        ("browser", Path::new("/usr/bin/chromium").exists(), debian::BROWSER),
        ("Java", is_on_path("java", "-version") && is_on_path("mvn", "-v"), debian::JAVA),
    ] {
        if found {
            continue;
        }
        if let Err(error) = debian::install(packages) {
            step(&format!("no {language} for its test peers: {error:#}"));
        }
    }
}

/// The oldest Go that fetches by itself the one that a module asks for.
const OLDEST_GO: (u32, u32) = (1, 21);

/// Go's version as it tells it, for the cluster's programs.
///
/// # Errors
/// If there is none, or it is too old.
pub(crate) fn go() -> Result<String> {
    if !is_on_path("go", "version") {
        debian::install(debian::GO)?;
    }
    let version = answer(Command::new("go").args(["env", "GOVERSION"]))?;
    let mut numbers = version.trim_start_matches("go").split('.').map_while(|number| number.parse().ok());
    let found: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(
        found >= OLDEST_GO,
        "{version} cannot build the test cluster's programs: install Go {}.{} or later, which fetches what they need",
        OLDEST_GO.0,
        OLDEST_GO.1
    );
    Ok(version)
}

fn is_on_path(tool: &str, version_flag: &str) -> bool {
    succeeds(Command::new(tool).arg(version_flag))
}
