//! A Rust compiler with the core library's source: a rustup nightly with `rust-src`, else Debian's own pair of them.
//! The next file is `linker.rs`.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::process::{answer, run, step, succeeds};

const NIGHTLY: &str = "nightly";
/// Where Debian's `rustc-web` puts it. Never found by PATH, where rustup's compiler comes first.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The workspace's `rust-version`, as (major, minor).
const OLDEST: (u32, u32) = (1, 95);

/// A compiler that can build the core library for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    RustupNightly,
    Debian,
}

/// The LLVM that a compiler brings, which bpf-linker must be built for.
pub(crate) struct Llvm {
    /// As in `llvm-22`.
    pub(crate) major: u32,
    /// The shared library.
    pub(crate) library: PathBuf,
}

impl Compiler {
    /// Takes what is here; else installs what this machine's package tools offer.
    ///
    /// # Errors
    /// If there is neither; says what to do.
    pub(crate) fn find_or_install() -> Result<Self> {
        if let Some(compiler) = [Self::RustupNightly, Self::Debian].into_iter().find(Self::is_usable) {
            return Ok(compiler);
        }
        if debian::is_here() {
            if !debian::offers(debian::EBPF_COMPILER[0]) {
                debian::update()?;
            }
            if debian::offers(debian::EBPF_COMPILER[0]) {
                debian::install(debian::EBPF_COMPILER)?;
                if Self::Debian.is_usable() {
                    return Ok(Self::Debian);
                }
            }
        }
        step("installing a nightly toolchain with the core library's source");
        let add = ["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"];
        let added = run(Command::new("rustup").args(add));
        if Self::RustupNightly.is_usable() {
            return Ok(Self::RustupNightly);
        }
        let (major, minor) = OLDEST;
        bail!(
            "no compiler for the kernel programs: they need Rust {major}.{minor} or later with `rust-src`; run `rustup {}`{}",
            add.join(" "),
            added.err().map(|error| format!(" (just now: {error:#})")).unwrap_or_default()
        )
    }

    /// Whether it is here, has the core library's source and is not too old.
    fn is_usable(&self) -> bool {
        let source = |sysroot: PathBuf| sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists();
        self.sysroot().is_ok_and(source) && self.version().is_ok_and(|version| version >= OLDEST)
    }

    /// Runs its rustc.
    pub(crate) fn rustc(self) -> Command {
        let mut rustc = match self {
            Self::RustupNightly => rustup_run("rustc"),
            Self::Debian => Command::new(DEBIAN_RUSTC),
        };
        rustc.env("RUSTC_BOOTSTRAP", "1").env_remove("LD_LIBRARY_PATH");
        rustc
    }

    /// Runs a cargo that compiles with it.
    pub(crate) fn cargo(self) -> Command {
        match self {
            Self::RustupNightly => {
                let mut cargo = rustup_run("cargo");
                cargo.env_remove("RUSTC");
                cargo
            }
            Self::Debian => {
                let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                // A released compiler takes `-Zbuild-std` only so; the source is the very compiler's, so it fits.
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }

    pub(crate) fn sysroot(self) -> Result<PathBuf> {
        Ok(answer(self.rustc().args(["--print", "sysroot"]))?.into())
    }

    fn version(self) -> Result<(u32, u32)> {
        self.described("release: ", |release| {
            let mut parts = release.split('.').map(str::parse);
            Some((parts.next()?.ok()?, parts.next()?.ok()?))
        })
    }

    /// Its LLVM, by the number that it tells and the library that it is linked with.
    ///
    /// # Errors
    /// If it does not tell, or the library is not found beside it.
    pub(crate) fn llvm(self) -> Result<Llvm> {
        let major = self.described("LLVM version: ", |version| version.split('.').next()?.parse().ok())?;
        let rustup_libraries = self.sysroot()?.join("lib");
        let debian_libraries = Path::new("/usr/lib").join(format!("{}-linux-gnu", env::consts::ARCH));
        let folder = if self == Self::Debian { debian_libraries } else { rustup_libraries };
        // Both give their library a name like `libLLVM.so.22.1…`.
        let prefix = format!("libLLVM.so.{major}.");
        let mut libraries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
        let library = libraries
            .find_map(|entry| {
                entry.ok().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            })
            .with_context(|| format!("no {prefix}* in {}", folder.display()))?
            .path();
        Ok(Llvm { major, library })
    }

    /// What `rustc -vV` says on the line that starts with `label`.
    fn described<T>(self, label: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
        let text = answer(self.rustc().arg("-vV"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(label));
        value
            .and_then(parse)
            .with_context(|| format!("{self} does not tell its {}", label.trim_end_matches(": ")))
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RustupNightly => "rustup's nightly",
            Self::Debian => "Debian's rustc",
        })
    }
}

fn rustup_run(tool: &str) -> Command {
    let mut command = Command::new("rustup");
    // Without the variable that cargo's own proxy sets, which would win.
    command.env_remove("RUSTUP_TOOLCHAIN").args(["run", NIGHTLY, tool]);
    command
}

/// Whether bpf-linker links what this compiler emits: the crate is empty, but its bitcode is of the compiler's LLVM.
pub(crate) fn links_with(compiler: Compiler, linker: &Path) -> bool {
    const EMPTY_CRATE: &str = "#![feature(no_core)]\n#![no_std]\n#![no_core]\n";
    let Ok(folder) = tempfile::tempdir() else { return false };
    let source = folder.path().join("empty.rs");
    std::fs::write(&source, EMPTY_CRATE).is_ok()
        && succeeds(
            compiler
                .rustc()
                .args([
                    "--edition=2024",
                    "--target=bpfel-unknown-none",
                    "--crate-type=cdylib",
                    "-Clink-arg=--btf",
                ])
                .arg(format!("-Clinker={}", linker.display()))
                .arg("-o")
                .arg(folder.path().join("empty.o"))
                .arg(source),
        )
}
