//! How the worker threads' counters are told: by a word that is the metric's, too.

/// One of the worker threads' counters, of all of them together.
#[derive(Debug, Clone, Copy)]
pub struct PathCount {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// It says how many there are now, and not how many there have been.
    pub is_gauge: bool,
    /// How many.
    pub value: u64,
}
