//! Each endpoint in its turn, or where they are not alike, as many turns as its share says.

use super::weights::Weights;

/// The endpoint after the last one that `turn` stands on, skipping those that are excluded.
pub(super) fn pick(
    count: usize,
    weights: Option<Weights<'_>>,
    turn: &mut usize,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    if let Some(weights) = weights
        && let Some(index) = by_strides(count, weights, turn, &excluded)
    {
        return Some(index);
    }
    for _ in 0..count {
        *turn = turn.wrapping_add(1);
        let index = *turn % count;
        if !excluded(index) {
            return Some(index);
        }
    }
    None
}

/// The largest share, in whole numbers.
const SCALE: usize = u16::MAX as usize;

/// Rounds that are gone through for one pick: an endpoint with the least share is passed over more often than that only where all have
/// so little, and then plain turns are as good.
const ROUNDS: usize = 32;

/// gRFC A58's static stride scheduler: in each round an endpoint is passed over unless its strides, which are as long as its
/// share, have come past another whole one. Nothing but the turn is remembered.
fn by_strides(
    count: usize,
    weights: Weights<'_>,
    turn: &mut usize,
    excluded: impl Fn(usize) -> bool,
) -> Option<usize> {
    for _ in 0..count * ROUNDS {
        *turn = turn.wrapping_add(1);
        let (index, round) = (*turn % count, *turn / count);
        if excluded(index) {
            continue;
        }
        let stride = (weights.share(index) * SCALE as f64) as usize;
        // Each starts elsewhere, so that equal ones do not come in the same round.
        let place = (stride.wrapping_mul(round)).wrapping_add(index.wrapping_mul(SCALE / 2)) % SCALE;
        if place + stride >= SCALE {
            return Some(index);
        }
    }
    None
}
