//! Every test: units, the suites that need a kernel, and those with the peers.

use std::env;

use anyhow::{Result, ensure};

use crate::process::{is_root, run_and_read, step};
use crate::workspace::Workspace;
use crate::{build, chart, cluster, ebpf, setup};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for `cargo test`: a filter, `-p PACKAGE`, `--test SUITE`, `-- …`; without any, everything runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// # Errors
/// If we are not root, something is missing, a build fails, or a test does.
pub(crate) fn start(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        is_root(),
        "the kernel suites make network namespaces and cgroups and load BPF programs: run them as root, \
         or run `cargo test -p evenkeel` for what needs none of it"
    );
    let toolchain = setup::everything()?;
    ebpf::build(workspace, &toolchain)?;
    build::agent(workspace, false)?;
    // Slow, and nothing that a person changes by chance: in full runs only.
    if options.arguments.is_empty() && env::var_os("CI").is_some() {
        ebpf::reproducible::verify(workspace, &toolchain)?;
    }
    let programs = cluster::programs::find_or_build(workspace)?;
    let tools = chart::Tools::find_or_build(workspace)?;
    step("running the tests");
    let mut tally = Tally::default();
    let outcome = run_and_read(
        workspace
            .cargo()
            .env("EVENKEEL_BIN", workspace.agent(false))
            .env(cluster::PROGRAMS_VARIABLE, programs)
            .env(chart::TOOLS_VARIABLE, tools.folder())
            .args(["test", "--no-fail-fast"])
            .args(&options.arguments),
        |line| tally.add(line),
    );
    // One suite's line says nothing of the others: this is the run's.
    println!("{} passed, {} failed", tally.passed, tally.failed);
    outcome?;
    ensure!(tally.passed > 0, "no test matched");
    Ok(())
}

/// What all suites of a run counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Reads a suite's closing line: `test result: ok. 12 passed; 0 failed; …`.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            match count.split_once(' ').map(|(number, what)| (number.parse::<u64>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                _ => (),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_closing_lines_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s",
            "test a_test_of_that_name ... ok",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 15, failed: 2 });
    }
}
