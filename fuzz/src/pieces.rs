//! Input in pieces, as reads of a socket bring it.

/// Pieces of `bytes` whose sizes follow from `seed`: all of it at once, a byte at a time, or anything in between.
pub fn pieces(bytes: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    let mut state = u32::from(seed);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Numerical Recipes' linear congruential generator: any will do.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let size = match seed {
            0 => rest.len(),
            1 => 1,
            _ => 1 + (state >> 16) as usize % (usize::from(seed) * 4),
        };
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        Some(piece)
    })
}
