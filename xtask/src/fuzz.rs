//! Fuzzes the call path with libFuzzer, each target for a bounded time, on a stable compiler.
//!
//! What cargo-fuzz adds to a build are the compiler's own, stable flags for coverage; only its sanitizers ask for a nightly, and
//! the code under test has next to no `unsafe` for them to watch. So nothing is installed here, and `cargo fuzz` works all the same.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::debian;
use crate::process::{answer, run, step, succeeds};
use crate::workspace::Workspace;

/// A core's time for each target in CI: with this many, on two cores, some two minutes in all, the build included.
const DEFAULT_SECONDS: u32 = 30;
/// An input that takes longer is a finding: the slowest of the corpus takes milliseconds. The clock is the wall's: a machine that
/// stands still for some seconds is no finding.
const INPUT_LIMIT_SECONDS: u32 = 60;
/// Memory above this is a finding: targets need a tenth of it.
const MEMORY_LIMIT_MIB: u32 = 1_024;
/// Longer inputs are slow to run, and seldom show more.
const LONGEST_INPUT_BYTES: u32 = 4_096;

/// What tells targets so (`fuzz_targets/differential.rs`).
const SURVEY: &str = "EVENKEEL_FUZZ_SURVEY";

#[derive(clap::Args)]
pub(crate) struct Options {
    /// One of `fuzz/fuzz_targets`; without it, all of them
    target: Option<String>,
    /// A core's time for each target; they run at once, and share what cores there are
    #[arg(long, default_value_t = DEFAULT_SECONDS)]
    seconds: u32,
    /// Runs the target on this one input instead, as a finding says
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// Puts what was found to reach further code into the corpus that is kept with the sources
    #[arg(long)]
    keep: bool,
}

/// # Errors
/// If something is missing, the build fails, or a target finds an input that breaks what must hold.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    let fuzz = Fuzz::build(workspace, options.target.as_deref())?;
    if let (Some(target), Some(input)) = (&options.target, &options.input) {
        return fuzz.replay(target, input);
    }
    for target in &fuzz.targets {
        fuzz.check_corpus(target)?;
    }
    let mut failed = Vec::new();
    let seconds = wall_clock_seconds(options.seconds, fuzz.targets.len());
    step(&format!("fuzzing {} for {seconds} s", fuzz.targets.join(", ")));
    let mut running = Running(Vec::new());
    for target in &fuzz.targets {
        running.0.push((target.as_str(), fuzz.start(target, seconds, options.target.is_none())?));
    }
    for (target, child) in &mut running.0 {
        let status = child.wait()?;
        let said = fs::read_to_string(fuzz.log(target)).unwrap_or_default();
        if status.success() {
            let last = said.lines().rev().find(|line| line.starts_with("Done ")).unwrap_or("done");
            step(&format!("{target}: {last}"));
        } else {
            eprintln!("{said}");
            failed.push(fuzz.finding(target, &said));
        }
    }
    if options.keep {
        for target in &fuzz.targets {
            fuzz.keep(target)?;
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// How long so many targets run beside each other, so that each has had a core for so many seconds.
fn wall_clock_seconds(seconds: u32, targets: usize) -> u32 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let rounds = targets as f64 / cores.min(targets).max(1) as f64;
    (f64::from(seconds) * rounds).ceil() as u32
}

/// Targets that run: none outlives us, also where one of them could not be started.
struct Running<'t>(Vec<(&'t str, Child)>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for (_, child) in &mut self.0 {
            // Of one that has ended there is nothing to kill, and nothing to wait for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Fuzz {
    /// The folder of the targets' package.
    package: PathBuf,
    /// What is built, found and said.
    target_dir: PathBuf,
    programs: PathBuf,
    targets: Vec<String>,
}

impl Fuzz {
    fn build(workspace: &Workspace, only: Option<&str>) -> Result<Self> {
        let package = workspace.root.join("fuzz");
        let all = targets(&package)?;
        let targets = match only {
            Some(target) if all.iter().any(|known| known == target) => vec![target.to_owned()],
            Some(target) => bail!("no target {target}: there are {}", all.join(", ")),
            None => all,
        };
        // libFuzzer is C++.
        if !succeeds(Command::new("c++").arg("--version")) {
            debian::install(debian::C_TOOLCHAIN)?;
        }
        step("building the fuzz targets");
        let host = host_triple()?;
        let target_dir = workspace.target.join("fuzz");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
        cargo.current_dir(&package).env("RUSTFLAGS", instrumentation());
        // Named although it is our own machine: so build scripts and macros are not instrumented.
        cargo.args(["build", "--release", "--target", &host, "--target-dir"]).arg(&target_dir);
        for target in &targets {
            cargo.args(["--bin", target]);
        }
        run(&mut cargo)?;
        let programs = target_dir.join(host).join("release");
        Ok(Self { package, target_dir, programs, targets })
    }

    /// Runs a target on each input that is kept, the same on every machine, and makes room for what it will find.
    fn check_corpus(&self, target: &str) -> Result<()> {
        for folder in [self.found(target), self.artifacts(target)] {
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let mut program = self.program(target);
        program.arg("-runs=0").arg(self.corpus(target)).stderr(Stdio::null());
        run(&mut program).with_context(|| {
            format!("{target} fails on its kept corpus: cargo xtask fuzz {target} says on what")
        })
    }

    /// Starts a target on the kept corpus, and on what earlier runs here have found. `survey`: differences from another program that
    /// nobody has listed are told, and no failures.
    fn start(&self, target: &str, seconds: u32, survey: bool) -> Result<Child> {
        let log = fs::File::create(self.log(target))?;
        let mut program = self.program(target);
        if survey {
            program.env(SURVEY, "1");
        }
        program
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={LONGEST_INPUT_BYTES}"))
            // The first folder gets what is found.
            .arg(self.found(target))
            .arg(self.corpus(target))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {target}"))
    }

    fn replay(&self, target: &str, input: &Path) -> Result<()> {
        // A file that is missing would be taken for a folder to come.
        let input = input.canonicalize().with_context(|| input.display().to_string())?;
        run(self.program(target).arg(input))
    }

    /// Merges into the kept corpus what reaches code that it does not reach.
    fn keep(&self, target: &str) -> Result<()> {
        step(&format!("keeping what {target} has found"));
        let corpus = self.corpus(target);
        fs::create_dir_all(&corpus)?;
        run(self.program(target).args(["-merge=1"]).arg(&corpus).arg(self.found(target)))
    }

    fn program(&self, target: &str) -> Command {
        let mut program = Command::new(self.programs.join(target));
        program
            .arg(format!("-timeout={INPUT_LIMIT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MIB}"))
            .arg(format!("-artifact_prefix={}/", self.artifacts(target).display()));
        program
    }

    /// What to do about a target that failed.
    fn finding(&self, target: &str, said: &str) -> String {
        let written =
            said.lines().find_map(|line| line.split_once("Test unit written to ").map(|(_, path)| path));
        match written {
            Some(path) => format!("{target} failed; once more: cargo xtask fuzz {target} --input {path}"),
            None => format!("{target} failed, and left no input: its words are above"),
        }
    }

    fn corpus(&self, target: &str) -> PathBuf {
        self.package.join("corpus").join(target)
    }

    fn found(&self, target: &str) -> PathBuf {
        self.target_dir.join("found").join(target)
    }

    fn artifacts(&self, target: &str) -> PathBuf {
        self.target_dir.join("artifacts").join(target)
    }

    fn log(&self, target: &str) -> PathBuf {
        self.target_dir.join(format!("{target}.log"))
    }
}

/// The targets: a file each.
fn targets(package: &Path) -> Result<Vec<String>> {
    let folder = package.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        if let Some(name) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(".rs")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The machine that we run on, as the compiler names it.
pub(crate) fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let version = answer(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not tell its host")?.to_owned())
}

/// Flags by which the compiler counts each edge and reports comparisons: those of cargo-fuzz, without a sanitizer.
fn instrumentation() -> String {
    let coverage = ["level=4", "inline-8bit-counters", "pc-table", "trace-compares"];
    let coverage: Vec<_> =
        coverage.iter().map(|option| format!("-Cllvm-args=-sanitizer-coverage-{option}")).collect();
    format!("--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 {}", coverage.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_the_command_that_replays_it() {
        let fuzz = Fuzz {
            package: PathBuf::new(),
            target_dir: PathBuf::new(),
            programs: PathBuf::new(),
            targets: Vec::new(),
        };
        let said = "panicked\nartifact_prefix='x/'; Test unit written to x/crash-1\nBase64: AA==\n";
        assert!(fuzz.finding("hpack", said).ends_with("cargo xtask fuzz hpack --input x/crash-1"));
    }

    #[test]
    fn every_target_has_its_binary() -> Result<()> {
        let workspace = Workspace::find()?;
        let manifest = fs::read_to_string(workspace.root.join("fuzz/Cargo.toml"))?;
        for target in targets(&workspace.root.join("fuzz"))? {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")), "{target}");
        }
        Ok(())
    }
}
