//! What the harness asks of the machine that it runs on.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian packages that the harness calls: namespaces and links (`ip`), kube-proxy's rules (`nft`).
pub const DEBIAN_PACKAGES: &[&str] = &["iproute2", "nftables"];

/// The prefix of every namespace and cgroup that the harness makes; [`crate::leftovers`] says what follows.
pub const NAME_PREFIX: &str = "evenkeel-test";

/// Whether this process may make namespaces. Says so where it may not, for a test to skip.
///
/// # Panics
/// Where `CI` is set: there a skipped test would hide a broken set-up.
pub fn privileged() -> bool {
    // SAFETY: no arguments, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        assert!(std::env::var_os("CI").is_none(), "the suites that need a kernel must run as root in CI");
        eprintln!("skipped: needs root (network namespaces, cgroups, BPF)");
    }
    root
}

/// Shows a figure that was measured, also where the test passes: what is printed is shown of tests that fail only.
pub fn show(figure: &str) {
    let _ = writeln!(std::io::stderr(), "    {figure}");
}

/// Says what went wrong where nobody waits for it, such as at the end of the process: there is perhaps nobody to hear it either.
pub(crate) fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// Runs a command with `input` on its standard input.
///
/// # Errors
/// With the command's own words when it fails.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program}: is it installed? The harness needs {DEBIAN_PACKAGES:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}\n{input}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The folder in which cargo put this build's binaries (`target/debug` or `target/release`).
///
/// # Errors
/// When the running executable's path is not known.
pub fn binaries() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("an executable stands in a folder")?;
    // Test executables stand one folder below the binaries.
    Ok(if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_owned()
    } else {
        folder.to_owned()
    })
}

/// The `evenkeel` binary: `EVENKEEL_BIN`, or the one of this build.
///
/// # Errors
/// When there is none, with what to do.
pub fn evenkeel_binary() -> Result<PathBuf> {
    match std::env::var_os("EVENKEEL_BIN") {
        Some(path) => existing(Path::new(&path), "EVENKEEL_BIN names it"),
        None => existing(
            &binaries()?.join("evenkeel"),
            "build it with `cargo xtask build`, or name it in EVENKEEL_BIN",
        ),
    }
}

/// The path, if a file is there.
///
/// # Errors
/// With `advice` if not.
pub fn existing(path: &Path, advice: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is not there: {advice}", path.display());
    }
    // Commands that change their folder must find it too.
    Ok(path.canonicalize()?)
}
