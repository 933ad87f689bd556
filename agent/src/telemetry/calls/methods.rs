//! Methods by numbers: a call carries a small one, and its name is held once.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Methods that are counted by name, for each pod and Service port; the largest APIs have some hundred, and of a client's inventions
/// there is no end. Calls of others count as `other`.
pub const MOST_METHODS: usize = 100;
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
}

/// Methods that are found without a look-up: those that a pod calls again and again.
const RECENT: usize = 64;

impl Default for Methods {
    fn default() -> Self {
        Self {
            names: vec!["".into(), "other".into()],
            by_path: FxHashMap::default(),
            recent: [MethodId::NONE; RECENT],
        }
    }
}

impl Methods {
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
                    if self.by_path.len() < MOST_METHODS
                        && !name.is_empty()
                        && path.len() <= LONGEST_METHOD_BYTES =>
                {
                    let id = MethodId(self.names.len() as u16);
                    self.names.push(name.into());
                    self.by_path.insert(path.into(), id);
                    id
                }
                _ => return MethodId::OTHER,
            },
        };
        self.recent[hash as usize % RECENT] = id;
        id
    }

    /// A method's name.
    pub fn name(&self, id: MethodId) -> &Arc<str> {
        &self.names[usize::from(id.0)]
    }
}
