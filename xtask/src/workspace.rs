//! Where things are: the sources, what is built from them, and what is kept from one clone to the next.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The folders that every command works in.
pub(crate) struct Workspace {
    /// Where the workspace's `Cargo.toml` is.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask's manifest has no parent folder")?
            .to_owned();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root, target })
    }

    /// The kernel programs' object, which the agent carries.
    pub(crate) fn ebpf_object(&self) -> PathBuf {
        self.target.join("ebpf/evenkeel-ebpf.o")
    }

    /// The agent as `build` made it.
    pub(crate) fn agent(&self, release: bool) -> PathBuf {
        self.target.join(if release { "release" } else { "debug" }).join("evenkeel")
    }

    /// The same cargo that runs this program, in the workspace's root. All of our commands give the agent's build
    /// script the same object, so that none of them makes the next build the agent again; nor does a cargo that a person types.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        cargo.current_dir(&self.root);
        // What cargo says of this program to it: build scripts such as ring's run again when it changes, and all that is above them.
        for (name, _) in env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
                cargo.env_remove(name);
            }
        }
        let object = self.ebpf_object();
        if object.exists() {
            cargo.env("EVENKEEL_EBPF_OBJECT", object);
        }
        cargo
    }
}

/// A folder that outlives this clone: `$XDG_CACHE_HOME/evenkeel`, else `~/.cache/evenkeel`.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir().context("no home folder: set HOME or XDG_CACHE_HOME")?.join(".cache"),
    };
    Ok(base.join("evenkeel"))
}

/// Where cargo keeps the sources of what we depend on.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => Ok(env::home_dir().context("no home folder: set HOME or CARGO_HOME")?.join(".cargo")),
    }
}
