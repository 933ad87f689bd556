//! The live view: the phases, a bar a server, the errors. Redrawn in place on a terminal; elsewhere a plain line a second.

use super::phase::{PHASES, Verdict};
use super::stage::{RATE, Stage};
use super::summary::outcome;
use crate::Tally;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The time over which calls a second are counted.
const RATE_WINDOW: Duration = Duration::from_secs(1);
const BAR_CELLS: f64 = 40.0;
/// Eighths of a cell, from none to all.
const BLOCKS: [&str; 9] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"];
/// Of the 256-colour palette: told apart by people who confuse red and green, too.
const COLOURS: [u8; 4] = [39, 214, 42, 177];

/// Where the demo is shown.
pub(super) struct Screen {
    terminal: bool,
    colour: bool,
    start: Instant,
    current: usize,
    done: Vec<(bool, String)>,
    history: VecDeque<(Instant, Tally)>,
    lines_drawn: usize,
    last_line: Option<Instant>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            terminal,
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            start: Instant::now(),
            current: 0,
            done: Vec::new(),
            history: VecDeque::new(),
            lines_drawn: 0,
            last_line: None,
        }
    }

    /// Something before the first phase.
    pub(super) fn say(&self, what: &str) {
        println!("\n  Evenkeel: {what}\n");
    }

    pub(super) fn begin(&mut self, number: usize) {
        self.current = number;
        if !self.terminal {
            println!("{} {}: {}", self.clock(), number + 1, PHASES[number].title);
        }
    }

    pub(super) fn end(&mut self, verdict: &Verdict) {
        let outcome = outcome(verdict);
        if !self.terminal {
            println!("{}    {outcome}", self.clock());
        }
        self.done.push((verdict.failure.is_none(), outcome));
    }

    /// Shows the count.
    pub(super) fn draw(&mut self, tally: &Tally, stage: &Stage) {
        let now = Instant::now();
        self.history.push_back((now, tally.clone()));
        while self.history.len() > 2 && now - self.history[1].0 > RATE_WINDOW {
            self.history.pop_front();
        }
        if self.terminal {
            let frame = self.frame(tally, stage);
            self.repaint(&frame);
        } else if self.last_line.is_none_or(|last| now - last >= RATE_WINDOW) {
            self.last_line = Some(now);
            println!("{}    {}", self.clock(), self.plain(tally, stage));
        }
    }

    /// Leaves the last frame on the terminal.
    pub(super) fn leave(&mut self) {
        self.lines_drawn = 0;
    }

    fn clock(&self) -> String {
        format!("{:5.1} s", self.start.elapsed().as_secs_f64())
    }

    /// Calls a second that a server answered, over the window.
    fn rate(&self, server: &str, tally: &Tally) -> f64 {
        let Some((since, earlier)) = self.history.front() else { return 0.0 };
        let seconds = since.elapsed().as_secs_f64().max(0.001);
        let count = |tally: &Tally| tally.calls.get(server).copied().unwrap_or(0);
        (count(tally) - count(earlier)) as f64 / seconds
    }

    fn plain(&self, tally: &Tally, stage: &Stage) -> String {
        let mut line = String::new();
        for (server, _) in stage.servers() {
            let _ = write!(line, "{server} {:>3.0}/s  ", self.rate(server, tally));
        }
        let _ = write!(line, "failed so far {}", tally.failed());
        line
    }

    fn frame(&self, tally: &Tally, stage: &Stage) -> String {
        let mut frame = String::new();
        let bold = |text: &str| self.paint("1", text);
        let dim = |text: &str| self.paint("2", text);
        let _ = writeln!(
            frame,
            "  {}  {}\n",
            bold("one client, one channel"),
            dim(&format!("{RATE} calls/s to a Service · {}", self.clock()))
        );
        for (number, phase) in PHASES.iter().enumerate() {
            let title = format!("{:<44}", phase.title);
            let line = match self.done.get(number) {
                Some((true, outcome)) => format!("  {} {title} {}", self.paint("32", "✔"), dim(outcome)),
                Some((false, outcome)) => format!("  {} {title} {outcome}", self.paint("31", "✘")),
                None if number == self.current => format!("  {} {}", self.paint("36", "▶"), bold(&title)),
                None => format!("  {}", dim(&format!("· {title}"))),
            };
            let _ = writeln!(frame, "{line}");
        }
        frame.push('\n');
        let full = RATE as f64;
        for (position, (server, alive)) in stage.servers().enumerate() {
            let rate = self.rate(server, tally);
            let bar = bar(rate / full);
            let padding = " ".repeat((BAR_CELLS as usize).saturating_sub(bar.chars().count()));
            let bar = self.paint(&format!("38;5;{}", COLOURS[position % COLOURS.len()]), &bar);
            let calls = tally.calls.get(server).copied().unwrap_or(0);
            let name = if alive { server.to_owned() } else { dim(server) };
            let _ = writeln!(frame, "  {name}  {bar}{padding} {rate:>4.0}/s {calls:>7} calls");
        }
        let failed = tally.failed();
        let shown = if failed == 0 { dim("none") } else { self.paint("31", &failed.to_string()) };
        let _ = writeln!(
            frame,
            "\n  failed calls: {shown}   {}",
            dim(&format!("connections the client opened: {}", tally.connections))
        );
        frame
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn repaint(&mut self, frame: &str) {
        let mut output = String::new();
        if self.lines_drawn > 0 {
            let _ = write!(output, "\x1b[{}A", self.lines_drawn);
        }
        for line in frame.lines() {
            // Clears what a longer line left.
            let _ = writeln!(output, "{line}\x1b[K");
        }
        self.lines_drawn = frame.lines().count();
        let mut stdout = std::io::stdout();
        // A reader that has gone away does not change what is measured.
        let _ = stdout.write_all(output.as_bytes());
        let _ = stdout.flush();
    }
}

/// A bar whose full length is 1.
pub(super) fn bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * BAR_CELLS * 8.0).round() as usize;
    BLOCKS[8].repeat(eighths / 8) + BLOCKS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(1.0).chars().count(), BAR_CELLS as usize);
        assert_eq!(bar(0.5).chars().count(), BAR_CELLS as usize / 2);
        assert_eq!(bar(1.0 / (BAR_CELLS * 2.0)), "▌");
    }
}
