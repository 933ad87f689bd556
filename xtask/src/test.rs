//! Every test: units, the suites that need a kernel, and those with the peers.

use std::env;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process::{is_root, run_and_read, step};
use crate::workspace::Workspace;
use crate::{build, chart, cluster, consumers, ebpf, image, setup};

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
    let mut cargo = workspace.cargo();
    cargo.env("EVENKEEL_BIN", workspace.agent(false));
    // Built from source or fetched, and not by cargo. Without them the other suites say as much as ever, and those that want them what to
    // do.
    for (what, wanted, bring) in [
        ("a cluster or the chart", is_of_cluster as fn(&str) -> bool, with_cluster as Bring),
        ("Prometheus or Jaeger", is_of_consumers, with_consumers),
    ] {
        if may_run(&options.arguments, wanted)
            && let Err(error) = bring(workspace, &mut cargo)
        {
            ensure!(env::var_os("CI").is_none(), "{error:#}");
            step(&format!("the suites that need {what} will fail: {error:#}"));
        }
    }
    step("running the tests");
    let mut tally = Tally::default();
    let outcome = run_and_read(cargo.args(["test", "--no-fail-fast"]).args(&options.arguments), |line| {
        tally.add(line);
    });
    // One suite's line says nothing of the others: this is the run's.
    println!("{} passed, {} failed", tally.passed, tally.failed);
    outcome?;
    ensure!(tally.passed > 0, "no test matched");
    Ok(())
}

/// Brings what some suites need, and tells the tests where it is.
type Bring = fn(&Workspace, &mut Command) -> Result<()>;

/// Tells the tests where Kubernetes' programs, helm, kustomize and the agent's image are, built now if they are not there.
fn with_cluster(workspace: &Workspace, cargo: &mut Command) -> Result<()> {
    cargo.env(cluster::PROGRAMS_VARIABLE, cluster::programs::find_or_build(workspace)?);
    cargo.env(chart::TOOLS_VARIABLE, chart::Tools::find_or_build(workspace)?.folder());
    cargo.env(cluster::IMAGE_VARIABLE, image::of_tests_agent(workspace)?);
    Ok(())
}

/// Tells the tests where Prometheus and Jaeger are, brought now if they are not there. What is named already stays.
fn with_consumers(workspace: &Workspace, cargo: &mut Command) -> Result<()> {
    let is_named = |variable| env::var_os(variable).is_some();
    if !is_named(consumers::PROMETHEUS_VARIABLE) {
        cargo.env(consumers::PROMETHEUS_VARIABLE, consumers::prometheus(workspace)?);
    }
    if !is_named(consumers::JAEGER_VARIABLE) {
        cargo.env(consumers::JAEGER_VARIABLE, consumers::jaeger(workspace)?);
    }
    Ok(())
}

/// Whether a suite needs a cluster, or the chart.
fn is_of_cluster(suite: &str) -> bool {
    suite.starts_with("cluster") || ["deployment", "chart"].contains(&suite)
}

/// Whether a suite needs Prometheus or Jaeger.
fn is_of_consumers(suite: &str) -> bool {
    suite.starts_with("consumers")
}

/// Whether arguments for `cargo test` leave any suite that is so.
fn may_run(arguments: &[String], is_so: impl Fn(&str) -> bool) -> bool {
    let cargos: Vec<&str> = arguments.iter().map(String::as_str).take_while(|word| *word != "--").collect();
    let suites = cargos.windows(2).filter(|words| words[0] == "--test").map(|words| words[1]);
    let mut suites = suites.chain(cargos.iter().filter_map(|word| word.strip_prefix("--test="))).peekable();
    if suites.peek().is_some() {
        return suites.any(is_so);
    }
    !cargos.iter().any(|word| ["--lib", "--bins", "--bin", "--doc"].contains(word))
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
    fn only_what_may_run_on_a_cluster_waits_for_one_to_be_built() {
        for (arguments, expected) in [
            ("", true),
            ("a_filter", true),
            ("--test cluster_itself", true),
            ("--test=chart", true),
            ("--test spread --test deployment", true),
            ("--test spread", false),
            ("-p evenkeel --lib http2", false),
            ("--test spread -- --test cluster_itself", false),
        ] {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            assert_eq!(may_run(&arguments, is_of_cluster), expected, "{arguments:?}");
        }
    }

    #[test]
    fn only_the_consumers_suites_wait_for_prometheus_and_jaeger() {
        let may = |arguments: &str| {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            may_run(&arguments, is_of_consumers)
        };
        assert!(may("") && may("--test consumers -- a_filter"));
        assert!(!may("--test spread") && !may("--test cluster_itself") && !may("--lib"));
    }

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
