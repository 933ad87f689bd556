//! Methods by numbers: a call carries a small one, and its name is held once.

use super::admission::{Admission, OTHER_METHOD};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// A name that is longer is nobody's method.
const LONGEST_METHOD_BYTES: usize = 256;

/// A method by its number among its [`Methods`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MethodId(pub(super) u16);

impl MethodId {
    /// No gRPC call.
    pub const NONE: Self = Self(0);
    /// One of too many.
    pub(super) const OTHER: Self = Self(1);
}

/// The names of methods, each held once.
#[derive(Debug)]
pub struct Methods {
    names: Vec<Arc<str>>,
    by_path: FxHashMap<Box<[u8]>, MethodId>,
    /// By the last bits of the paths' hashes, which methods came last: nearly always it is that one.
    recent: [MethodId; RECENT],
    admission: Arc<Admission>,
    /// No more are admitted: all that are have numbers.
    is_full: bool,
}

/// Methods that are found without a look-up: those that a pod calls again and again.
const RECENT: usize = 64;

impl Default for Methods {
    /// Methods of which nobody else knows.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Methods {
    pub(super) fn new(admission: Arc<Admission>) -> Self {
        Self {
            names: vec!["".into(), OTHER_METHOD.into()],
            by_path: FxHashMap::default(),
            recent: [MethodId::NONE; RECENT],
            admission,
            is_full: false,
        }
    }

    /// The number of a path (`/package.Service/Method`). The hash is the same for the same path, and guards nothing.
    #[inline]
    pub fn intern(&mut self, path: &[u8], hash: u32) -> MethodId {
        let recent = self.recent[hash as usize % RECENT];
        if path.split_first().is_some_and(|(_, name)| self.names[usize::from(recent.0)].as_bytes() == name)
            && path[0] == b'/'
            && recent != MethodId::NONE
        {
            return recent;
        }
        self.intern_rare(path, hash)
    }

    #[cold]
    fn intern_rare(&mut self, path: &[u8], hash: u32) -> MethodId {
        let id = match self.by_path.get(path) {
            Some(id) => *id,
            None => match path.strip_prefix(b"/").map(str::from_utf8) {
                Some(Ok(name))
                    if !self.is_full
                        && !matches!(name, "" | OTHER_METHOD)
                        && path.len() <= LONGEST_METHOD_BYTES =>
                {
                    self.admit(name)
                }
                _ => MethodId::OTHER,
            },
        };
        if id != MethodId::OTHER {
            self.recent[hash as usize % RECENT] = id;
        }
        id
    }

    /// The number of a method that was never called here.
    fn admit(&mut self, name: &str) -> MethodId {
        match self.admission.method(name) {
            Ok(name) => self.add(name),
            Err(all) => {
                self.is_full = true;
                for name in all {
                    if !self.names.contains(&name) {
                        self.add(name);
                    }
                }
                MethodId::OTHER
            }
        }
    }

    fn add(&mut self, name: Arc<str>) -> MethodId {
        let id = MethodId(self.names.len() as u16);
        self.by_path.insert([b"/", name.as_bytes()].concat().into(), id);
        self.names.push(name);
        id
    }

    /// A method's name.
    pub fn name(&self, id: MethodId) -> &Arc<str> {
        &self.names[usize::from(id.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::MOST_METHODS;
    use super::*;

    #[test]
    fn all_workers_name_the_same_methods() {
        let admission = Arc::new(Admission::default());
        let mut workers = [0, 1, 2].map(|_| Methods::new(Arc::clone(&admission)));
        let mut names = std::collections::BTreeSet::new();
        for round in 0..3 {
            for method in 0..3 * MOST_METHODS {
                // Each begins with others.
                for (index, worker) in workers.iter_mut().enumerate() {
                    let method = (method + index * MOST_METHODS) % (3 * MOST_METHODS);
                    let path = format!("/a.B/{method}");
                    let id = worker.intern(path.as_bytes(), method as u32);
                    names.insert(worker.name(id).to_string());
                    let is_named = **worker.name(id) == path[1..];
                    assert!(
                        is_named || id == MethodId::OTHER,
                        "round {round}: {path} is {}",
                        worker.name(id)
                    );
                }
            }
            for method in 0..3 * MOST_METHODS {
                let path = format!("/a.B/{method}");
                let named = workers.each_mut().map(|worker| {
                    let id = worker.intern(path.as_bytes(), method as u32);
                    worker.name(id).to_string()
                });
                assert!(named.iter().all(|name| *name == named[0]), "round {round}: {named:?}");
            }
        }
        assert_eq!(names.len(), MOST_METHODS + 1);
        assert!(names.contains(OTHER_METHOD));
    }
}
