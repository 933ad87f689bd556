//! A full run in two lanes: the suites on a cluster wait for it most of the time, and the others have the CPUs meanwhile.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use super::{Tally, is_of_cluster};
use crate::process::{answer, run, run_and_read, step};
use crate::workspace::Workspace;

/// Runs all tests; `cargo` has the variables that they want.
///
/// # Errors
/// If a build fails, or a test does.
pub(super) fn run_all(workspace: &Workspace, cargo: &Command, tally: &mut Tally) -> Result<()> {
    let test = |words: &[&str]| {
        let mut command = workspace.cargo();
        command.arg("test").args(words);
        for (name, value) in cargo.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    };
    run(&mut test(&["--no-run"]))?;
    let suites = suites(workspace)?;
    let lane = |of_cluster: bool| suites.iter().filter(move |suite| is_of_cluster(suite) == of_cluster);
    let named = |of_cluster| lane(of_cluster).flat_map(|suite| ["--test", suite]).collect::<Vec<_>>();
    let mut on_cluster = test(&["--no-fail-fast"]);
    on_cluster.args(named(true));
    let mut others = test(&["--no-fail-fast", "--lib", "--bins"]);
    others.args(named(false));

    let log = workspace.target.join("suites-on-a-cluster.log");
    step(&format!("the suites on a cluster run beside the others: what they print is in {}", log.display()));
    let beside = thread::spawn(move || run_into(&log, on_cluster));
    let outcome = run_and_read(&mut others, |line| tally.add(line));
    step("the suites on a cluster, which ran beside the others");
    let beside =
        beside.join().map_err(|_| anyhow!("the suites on a cluster were not watched to their end"))?;
    let (lines, outcome_beside) = beside?;
    for line in lines {
        println!("{line}");
        tally.add(&line);
    }
    outcome.and(outcome_beside)
}

/// Runs a program until it ends, with what it prints in a file. Answers that, and how it ended.
fn run_into(log: &Path, mut command: Command) -> Result<(Vec<String>, Result<()>)> {
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let output = child.stdout.take().context("it was asked for")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(file, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
        lines.push(line);
    }
    let status = child.wait()?;
    let outcome =
        if status.success() { Ok(()) } else { Err(anyhow!("the suites on a cluster ended with {status}")) };
    Ok((lines, outcome))
}

/// The names of all suites: integration tests, as cargo calls them.
fn suites(workspace: &Workspace) -> Result<BTreeSet<String>> {
    let metadata = answer(workspace.cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("what cargo says of the workspace")?;
    let packages = metadata["packages"].as_array().context("a workspace has packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let suites = targets.filter(|target| target["kind"][0] == "test");
    suites.map(|suite| Ok(suite["name"].as_str().context("a target has a name")?.to_owned())).collect()
}
