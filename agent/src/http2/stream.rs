//! (in work)

/// A stream's slot in its connection; valid until [`release`](super::Connection::release).
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct StreamKey(pub(super) u32);
