//! A profile by stack, whatever it counts: addresses, which get names when it is written.
//! Next: [`symbols`](super::symbols).

use super::pprof;
use super::symbols::Symbols;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How a line of folded stacks begins that is none.
pub const NOTE: &str = "# ";

/// What stands for all stacks that were not told apart.
const OTHER_STACKS: &str = "[other stacks]";

/// Values by stack.
#[derive(Debug)]
pub struct StackProfile {
    /// What each stack's values are.
    pub(super) kinds: Vec<Kind>,
    /// Which of them folded stacks have.
    pub(super) shown: usize,
    /// How much of what one sample stood for.
    pub(super) period: (Kind, i64),
    pub(super) began: SystemTime,
    /// For how long; `None`: it is what was so at one moment.
    pub(super) took: Option<Duration>,
    pub(super) stacks: Vec<Stack>,
    /// What whoever reads it should know.
    pub(super) notes: Vec<String>,
    /// Functions that are left out where they are innermost.
    pub(super) without: fn(&str) -> bool,
}

/// What is counted, in which unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
}

impl Kind {
    pub(super) fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }
}

/// A stack, and what was counted of it.
#[derive(Debug)]
pub(super) struct Stack {
    /// The thread's name, where it matters.
    pub(super) thread: Option<Arc<str>>,
    /// Addresses within calls, the innermost first; none: all stacks that were not told apart.
    pub(super) frames: Box<[u64]>,
    /// One for each kind.
    pub(super) values: Vec<i64>,
}

/// How a profile by stack is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackFormat {
    /// A line for each stack: its functions from the outermost, with semicolons between them, and a number
    /// (<https://github.com/brendangregg/FlameGraph>). Before them, each after [`NOTE`], what whoever reads it should know: flame graphs
    /// pass such lines over.
    Folded,
    /// pprof's `profile.proto`, compressed by gzip.
    Pprof,
}

impl StackProfile {
    /// Writes it down. Reads the names of functions from the files that the process consists of: it blocks.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn write(mut self, format: StackFormat) -> io::Result<Vec<u8>> {
        self.stacks.retain(|stack| stack.values.iter().any(|value| *value != 0));
        let mut addresses: Vec<u64> =
            self.stacks.iter().flat_map(|stack| stack.frames.iter().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let symbols = Symbols::of(&addresses)?;
        self.notes.extend(symbols.notes.iter().cloned());
        for stack in &mut self.stacks {
            let is_left_out = |address: &u64| (self.without)(symbols.name(*address));
            let left_out = stack.frames.iter().take_while(|address| is_left_out(address)).count();
            // Where nothing would be left, all of it is told.
            if left_out > 0 && left_out < stack.frames.len() {
                stack.frames = stack.frames[left_out..].into();
            }
        }
        match format {
            StackFormat::Folded => Ok(self.folded(&symbols)),
            StackFormat::Pprof => pprof::write(&self, &symbols),
        }
    }

    /// The functions of a stack with their addresses, the innermost first. What of the kernel has no names is one.
    pub(super) fn functions<'a>(
        stack: &'a Stack,
        symbols: &'a Symbols,
    ) -> impl DoubleEndedIterator<Item = (u64, &'a str)> {
        let mut functions: Vec<(u64, &str)> =
            stack.frames.iter().map(|address| (*address, symbols.name(*address))).collect();
        functions.dedup_by(|next, last| next.1 == super::kallsyms::NAMELESS && last.1 == next.1);
        if functions.is_empty() {
            functions.push((0, OTHER_STACKS));
        }
        functions.into_iter()
    }

    fn folded(&self, symbols: &Symbols) -> Vec<u8> {
        // In order, and stacks whose addresses differ within the same functions are one.
        let mut lines: BTreeMap<String, i64> = BTreeMap::new();
        for stack in self.stacks.iter().filter(|stack| stack.values[self.shown] != 0) {
            let thread = stack.thread.as_deref().map(word);
            let functions = Self::functions(stack, symbols).rev().map(|(address, name)| {
                // As flame graphs colour it.
                let mark = if super::kallsyms::is_kernels(address) { "_[k]" } else { "" };
                word(name) + mark
            });
            let line = thread.into_iter().chain(functions).collect::<Vec<_>>().join(";");
            *lines.entry(line).or_default() += stack.values[self.shown];
        }
        let notes = self.notes.iter().map(|note| format!("{NOTE}{}\n", word(note)));
        let stacks = lines.iter().map(|(line, value)| format!("{line} {value}\n"));
        notes.chain(stacks).collect::<String>().into_bytes()
    }
}

/// A name without what ends one in a folded stack.
fn word(name: &str) -> String {
    name.chars()
        .map(|char| {
            if char == ';' {
                ':'
            } else if char.is_control() {
                ' '
            } else {
                char
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_a_frame_or_a_line() {
        assert_eq!(word("<[u8; 4] as Drop>::drop\n"), "<[u8: 4] as Drop>::drop ");
    }

    #[test]
    fn what_to_know_stands_before_the_stacks() {
        let profile = StackProfile {
            kinds: vec![Kind::new("samples", "count")],
            shown: 0,
            period: (Kind::new("cpu", "nanoseconds"), 1),
            began: SystemTime::UNIX_EPOCH,
            took: None,
            stacks: vec![Stack { thread: Some("worker".into()), frames: Box::default(), values: vec![3] }],
            notes: vec!["7 samples were lost".to_owned()],
            without: |_| false,
        };
        let folded = String::from_utf8(profile.write(StackFormat::Folded).unwrap()).unwrap();
        assert_eq!(folded, format!("# 7 samples were lost\nworker;{OTHER_STACKS} 3\n"));
    }
}
