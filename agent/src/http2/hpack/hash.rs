//! The hash that finds a field in an encoder's table: worked out once where a field is decoded, and carried along.
//!
//! It guards nothing: a hit is verified byte by byte, and the length of a search is bounded.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

pub(in crate::http2) fn of_name(name: &[u8]) -> u32 {
    fold(mix(name.len() as u64, name))
}

pub(in crate::http2) fn with_value(name_hash: u32, value: &[u8]) -> u32 {
    fold(mix(u64::from(name_hash) ^ ((value.len() as u64) << 32), value))
}

fn mix(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        state = step(state, u64::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        state = step(state, u64::from_le_bytes(last));
    }
    state
}

fn step(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER)
}

fn fold(state: u64) -> u32 {
    (state ^ (state >> 32)) as u32
}
