//! Strings that many rows have in common, each held once.

use std::collections::HashSet;
use std::sync::Arc;

/// How many names are held before those that no row holds any more are first let go. The number doubles with what stays,
/// so that the search costs a constant share of the work.
const FIRST_SWEEP_NAMES: usize = 1024;

/// Namespaces, nodes, zones, port names: a cluster has few of them, and its rows hold them a hundred thousand times.
#[derive(Debug)]
pub struct Interner {
    names: HashSet<Arc<str>>,
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { names: HashSet::new(), sweep_at: FIRST_SWEEP_NAMES }
    }
}

impl Interner {
    /// The name, shared with all who asked for the same one.
    pub fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        if self.names.len() >= self.sweep_at {
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.sweep_at = FIRST_SWEEP_NAMES.max(2 * self.names.len());
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_held_once_and_let_go_when_no_row_holds_it() {
        let mut names = Interner::default();
        let kept = names.intern("zone-a");
        assert!(Arc::ptr_eq(&kept, &names.intern("zone-a")));
        for number in 0..10 * FIRST_SWEEP_NAMES {
            names.intern(&format!("gone-{number}"));
        }
        assert!(names.names.len() <= 2 * FIRST_SWEEP_NAMES, "{} names", names.names.len());
        assert!(Arc::ptr_eq(&kept, &names.intern("zone-a")));
    }
}
