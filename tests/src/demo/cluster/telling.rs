//! The acts one below the other: what was typed, a bar a server while the calls are counted, and what came of it.

use super::stage::ClusterStage;
use crate::Tally;
use crate::demo::phase::Verdict;
use crate::demo::screen::bar;
use crate::demo::summary::outcome;
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The time over which calls are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// How often a line is written where nothing can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where the demo is shown.
pub(super) struct Telling {
    terminal: bool,
    history: VecDeque<(Instant, Tally)>,
    lines_drawn: usize,
    last_line: Instant,
}

impl Telling {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, history: VecDeque::new(), lines_drawn: 0, last_line: Instant::now() }
    }

    /// Something that is no act.
    pub(super) fn say(&self, what: &str) {
        println!("\n  {what}");
    }

    pub(super) fn begin(&mut self, number: usize, title: &str) {
        self.lines_drawn = 0;
        self.history.clear();
        self.last_line = Instant::now();
        println!("\n  {}. {title}", number + 1);
    }

    pub(super) fn end(&mut self, verdict: &Verdict) {
        let mark = if verdict.failure.is_none() { "✔" } else { "✘" };
        let line =
            format!("    {mark} {}, after {:.1} s", outcome(verdict), verdict.settled_after.as_secs_f64());
        if self.terminal {
            self.repaint(&line);
        } else {
            println!("{line}");
        }
    }

    /// Shows the count.
    pub(super) fn draw(&mut self, tally: &Tally, stage: &ClusterStage) {
        let now = Instant::now();
        self.history.push_back((now, tally.clone()));
        while self.history.len() > 2 && now - self.history[1].0 > WINDOW {
            self.history.pop_front();
        }
        let latest = self.history.front().map(|(_, earlier)| tally.since(earlier)).unwrap_or_default();
        if self.terminal {
            self.repaint(&bars(&latest, stage.servers()));
        } else if now - self.last_line >= LINE_EVERY {
            self.last_line = now;
            let shares: Vec<String> =
                latest.calls.iter().map(|(server, calls)| format!("{server} {calls}/s")).collect();
            println!("      {}  failed {}", shares.join("  "), latest.failed());
        }
    }

    fn repaint(&mut self, frame: &str) {
        let mut output = String::new();
        if self.lines_drawn > 0 {
            let _ = write!(output, "\x1b[{}A\x1b[J", self.lines_drawn);
        }
        let _ = writeln!(output, "{frame}");
        self.lines_drawn = frame.lines().count();
        let mut stdout = std::io::stdout();
        // A reader that has gone away does not change what is measured.
        let _ = stdout.write_all(output.as_bytes());
        let _ = stdout.flush();
    }
}

/// A line for each server that takes part, or still gets calls.
fn bars(latest: &Tally, servers: &[String]) -> String {
    let names: BTreeSet<&String> = servers.iter().chain(latest.calls.keys()).collect();
    let all = latest.completed().max(1) as f64;
    let mut frame = String::new();
    for name in names {
        let calls = latest.calls.get(name).copied().unwrap_or(0);
        let _ = writeln!(frame, "      {name:<28} {calls:>4}/s {}", bar(calls as f64 / all));
    }
    let _ = write!(frame, "      failed: {}", latest.failed());
    frame
}

/// What came of each act.
pub(super) fn print_table(verdicts: &[Verdict]) {
    println!("\n  {:<40}{:<30}{:>8}{:>10}{:>12}", "", "the client's calls", "failed", "settled", "meanwhile");
    for verdict in verdicts {
        println!(
            "  {:<40}{:<30}{:>8}{:>8.1} s{:>12}",
            verdict.title,
            shares(&verdict.steady),
            verdict.steady.failed(),
            verdict.settled_after.as_secs_f64(),
            format!("{} failed", verdict.change.failed()),
        );
    }
}

/// Whom the calls went to: the names of pods say nothing in a table.
fn shares(tally: &Tally) -> String {
    let all = tally.completed().max(1) as f64;
    let shares: Vec<String> =
        tally.calls.values().map(|&calls| format!("{:.0}", 100.0 * calls as f64 / all)).collect();
    match shares.len() {
        0 => "none".to_owned(),
        1 => "all on one pod".to_owned(),
        _ => format!("{} %", shares.join(" + ")),
    }
}
