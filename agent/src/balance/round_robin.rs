//! Each endpoint in its turn.

/// The endpoint after the last one that `turn` stands on, skipping those that are excluded.
pub(super) fn pick(count: usize, turn: &mut usize, excluded: impl Fn(usize) -> bool) -> Option<usize> {
    for _ in 0..count {
        *turn = turn.wrapping_add(1);
        let index = *turn % count;
        if !excluded(index) {
            return Some(index);
        }
    }
    None
}
