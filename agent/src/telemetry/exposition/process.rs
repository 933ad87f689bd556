//! What the worker process itself uses, under the names that Prometheus' own client libraries have for it
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), so that dashboards for any program show the agent too.
//! A worker process that was started again has another start time.

use std::fmt::Write as _;
use std::fs;

/// The metrics' text; what `/proc` does not tell is left out.
pub(super) fn process_text() -> String {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let stat = stat.as_deref().and_then(Stat::read);
    let boot = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time_seconds);
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    let ticks = ticks_per_second();
    let mut text = String::new();
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds",
            "counter",
            "Time that the worker process spent on CPUs",
            stat.as_ref().map(|stat| stat.cpu_ticks as f64 / ticks),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the worker process that is in RAM",
            stat.as_ref().map(|stat| stat.resident_pages as f64 * page_bytes()),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "When the worker process began, since the Unix epoch",
            stat.as_ref().zip(boot).map(|(stat, boot)| boot + stat.start_ticks as f64 / ticks),
        ),
        ("process_open_fds", "gauge", "Open file descriptors of the worker process", open),
        (
            "process_max_fds",
            "gauge",
            "File descriptors that the worker process may have open",
            most_open_files(),
        ),
    ] {
        let Some(value) = value else { continue };
        let suffix = if kind == "counter" { "_total" } else { "" };
        let written = write!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{suffix} {value:?}\n");
        written.expect("a String takes whatever is written to it");
    }
    text
}

/// What is wanted of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    /// Since the boot.
    start_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(line: &str) -> Option<Self> {
        // A program's name may have anything in it, also parentheses and spaces; what follows is numbers.
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The manual counts from 1, and two fields stand before the name's end.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, resident_pages: field(24)? })
    }
}

/// When the machine booted, since the Unix epoch.
fn boot_time_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn ticks_per_second() -> f64 {
    // SAFETY: no memory is involved; Linux always has an answer.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

fn page_bytes() -> f64 {
    // SAFETY: no memory is involved; Linux always has an answer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as f64 }
}

fn most_open_files() -> Option<f64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a limit of our own, which is written to.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (got == 0).then_some(limit.rlim_cur as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_is_read_whatever_the_programs_name() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 9000 1000000 77 18446744073709551615 1 1";
        let expected = Stat { cpu_ticks: 200, start_ticks: 9_000, resident_pages: 77 };
        assert_eq!(Stat::read(line), Some(expected));
        assert_eq!(Stat::read("42 (cut) S 1"), None);
        assert_eq!(boot_time_seconds("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_is_told_of() {
        let text = process_text();
        let value = |name: &str| -> f64 {
            let line =
                text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            line[name.len()..].trim().parse().unwrap_or_else(|_| panic!("{line}"))
        };
        assert!(value("process_resident_memory_bytes ") > 1e5);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_open_fds ") >= 3.0 && value("process_max_fds ") >= value("process_open_fds "));
        let began = value("process_start_time_seconds ");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        // A clock that was set since the boot moves the start with it.
        assert!(began > 0.0 && began < now.as_secs_f64() + 60.0, "{began}");
    }
}
