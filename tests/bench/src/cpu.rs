//! CPU time of processes, and whether the machine is quiet.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How much of the machine others may use while it counts as quiet.
const QUIET_SHARE: f64 = 0.10;
/// What is looked at to tell.
const QUIET_SAMPLE: Duration = Duration::from_millis(200);

/// User and system time of all threads of these processes, in nanoseconds.
///
/// # Errors
/// If a process is gone.
pub(crate) fn nanoseconds(pids: &[u32]) -> Result<u64> {
    Ok(by_thread(pids)?.values().sum())
}

/// The same by the threads' names.
///
/// # Errors
/// If a process is gone.
pub(crate) fn by_thread(pids: &[u32]) -> Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::<String, u64>::new();
    for pid in pids {
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("the proxy is gone: cannot read {tasks}"))? {
            let task = task?.path();
            // A thread that ends meanwhile has no time to tell.
            let Ok(stat) = fs::read_to_string(task.join("schedstat")) else { continue };
            let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
            let on_cpu = stat.split_ascii_whitespace().next().and_then(|field| field.parse::<u64>().ok());
            *sums.entry(name.trim_end().to_owned()).or_default() += on_cpu
                .context("schedstat does not begin with a number: the kernel lacks CONFIG_SCHED_INFO")?;
        }
    }
    Ok(sums)
}

/// Resident memory of these processes, in KiB.
pub(crate) fn resident_kib(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    };
    pids.iter().filter_map(of).sum()
}

/// The processes that `pid` started, theirs too, and itself.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        family.extend(children.split_ascii_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    family
}

/// Waits until nothing else runs, but not longer than `limit`; whether it is quiet now.
pub(crate) fn wait_for_quiet(limit: Duration) -> bool {
    let start = Instant::now();
    loop {
        let Some(before) = machine() else { return false };
        sleep(QUIET_SAMPLE);
        let Some(after) = machine() else { return false };
        let (busy, all) = (after.0 - before.0, after.1 - before.1);
        if busy as f64 <= all as f64 * QUIET_SHARE {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
    }
}

/// Ticks that the machine's cores were busy, and all ticks.
fn machine() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let ticks: Vec<u64> = fields.take(8).map(|field| field.parse().unwrap_or(0)).collect();
    let all: u64 = ticks.iter().sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}
